"""Files of a folder become parts of whole pieces, and an output folder knows what it is of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sst2_ray.data.labels import ClassNames
from sst2_ray.data.options import ReadOptions
from sst2_ray.errors import InputError
from sst2_ray.predict import parts
from sst2_ray.predict.labelling import Labelled
from sst2_ray.predict.output_folder import OutputFolder
from sst2_ray.predict.parts import InputFile, PartReader, check_file, check_together, cut, find_inputs
from sst2_ray.predict.scoring import Scores, ValueScores
from sst2_ray.storage import Storage
from tests.support.object_store import BUCKET, object_store_here

OPTIONS = ReadOptions()
CLASSES = ClassNames(("negative", "positive"))


def parquet(path: Path, rows: int) -> Path:
    pq.write_table(pa.table({"text": pa.array([f"{path.stem} {i}" for i in range(rows)], pa.string())}), path)
    return path


def texts(reader: PartReader, part: parts.Part) -> list[str | None]:
    return [text for file, piece in reader.pieces(part) for text in file.texts(piece)]


def test_parts_are_whole_pieces_of_one_file_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PIECE_ROWS", 10)
    monkeypatch.setattr(parts, "PART_ROWS", 20)
    for name, rows in (("b", 45), ("a", 7), ("c", 0)):
        parquet(tmp_path / f"{name}.parquet", rows)
    facts = [check_file(file, OPTIONS) for file in find_inputs(str(tmp_path))]
    found = cut(facts)
    assert [(p.file.name, p.first_piece, p.num_pieces, p.num_rows) for p in found] == [
        ("a.parquet", 0, 1, 7), ("b.parquet", 0, 2, 20), ("b.parquet", 2, 2, 20), ("b.parquet", 4, 1, 5),
    ]  # fmt: skip
    assert [p.output for p in found] == sorted(p.output for p in found)
    reader = PartReader(OPTIONS)
    order = [found[2], found[1], found[3], found[0]]  # forward, back, and to another file
    read = {part.number: texts(reader, part) for part in order}
    assert [text for part in found for text in read[part.number]] == [f"a {i}" for i in range(7)] + [
        f"b {i}" for i in range(45)
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.parquet", b"PAR1 nothing", "is not valid PARQUET"),
        ("x.jsonl", b'{"text": "a"}\nno json\n', "1 rows cannot be read: line 2"),
        ("x.csv", b"", "is empty"),
        ("x.csv", b"a,b\n1,2\n", "no text column"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^--input .*{name}.*{told}"):
        check_file(InputFile(folder=str(tmp_path), name=name), OPTIONS)


def test_files_with_different_columns_and_folders_without_rows_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", 1)
    (tmp_path / "b.csv").write_text("text,stars\nfine,3\n")
    facts = [check_file(file, OPTIONS) for file in find_inputs(str(tmp_path))]
    with pytest.raises(InputError, match=r"b\.csv: has other columns than a\.parquet"):
        check_together(facts, "folder")
    parquet(tmp_path / "a.parquet", 0)
    with pytest.raises(InputError, match="folder: is empty"):
        check_together([check_file(find_inputs(str(tmp_path))[0], OPTIONS)], "folder")


def test_hidden_files_of_a_folder_are_no_inputs(tmp_path: Path) -> None:
    for name in ("a.csv", "_b.csv", "._a.csv", ".c.csv"):
        (tmp_path / name).write_text("text\nfine\n")
    for pattern in (tmp_path, tmp_path / "*.csv"):
        assert [file.name for file in find_inputs(str(pattern))] == ["a.csv"]
    for named in ("_b.csv", "_*.csv"):
        assert [file.name for file in find_inputs(str(tmp_path / named))] == ["_b.csv"]


def test_inputs_are_found_in_an_object_store(tmp_path: Path) -> None:
    with object_store_here() as env:
        uri = f"s3://{BUCKET}/reviews?endpoint_override={env['AWS_ENDPOINT_URL'].replace('://', '%3A%2F%2F')}"
        storage = Storage.open(uri, "--input")
        for name in ("b.parquet", "a.jsonl", "_SUCCESS", "_c.jsonl", ".d.jsonl", "notes.md"):
            storage.write_bytes(name, b'{"text": "fine"}\n' if name == "a.jsonl" else b"")
        storage.upload(parquet(tmp_path / "b.parquet", 3), "b.parquet")
        found = find_inputs(uri)
        assert [file.name for file in found] == ["a.jsonl", "b.parquet"]
        assert [sum(check_file(file, OPTIONS).pieces) for file in found] == [1, 3]
        one = uri.replace("reviews", "reviews/*.parquet")
        assert [file.name for file in find_inputs(one)] == ["b.parquet"]
        assert find_inputs(one.replace("*", "b")) == find_inputs(one)
        with pytest.raises(InputError, match=r"^--input s3://sst2/nowhere.*no such file or folder"):
            find_inputs(uri.replace("reviews", "nowhere"))
        storage.write_bytes("my file.jsonl", b'{"text": "fine"}\n')
        encoded = find_inputs(uri.replace("reviews", "reviews/my%20file.jsonl"))
        assert sum(check_file(encoded[0], OPTIONS).pieces) == 1


@pytest.fixture
def one_part(tmp_path: Path) -> parts.Part:
    return cut([check_file(InputFile(folder=str(tmp_path), name=parquet(tmp_path / "a.parquet", 3).name), OPTIONS)])[0]


def test_an_output_folder_goes_on_with_its_own_parts_only(tmp_path: Path, one_part: parts.Part) -> None:
    output = OutputFolder(str(tmp_path / "out"))
    output.check(overwrite=False)
    manifest = {"model": "m", "input": [{"name": "a", "rows": 3}]}
    assert output.begin(manifest, [one_part], overwrite=False) == [one_part]
    output.write(one_part, tmp_path / "a.parquet", Labelled(classes=CLASSES, scores=None, num_rows=3, blank=[1]))
    output.check(overwrite=False)
    assert output.begin(manifest, [one_part], overwrite=False) == []
    total = Labelled(classes=CLASSES, scores=None, num_rows=2, blank=[0])
    total.merge(output.counts(one_part), 2)
    assert (total.num_rows, total.blank) == (5, [0, 3])
    with pytest.raises(InputError, match="was begun with another input; choose another folder, or pass --overwrite"):
        output.begin({**manifest, "input": []}, [one_part], overwrite=False)
    assert output.begin({**manifest, "input": []}, [one_part], overwrite=True) == [one_part]
    assert pq.ParquetDataset(tmp_path / "a.parquet").read().num_rows == 3


def test_the_same_command_with_overwrite_goes_on_where_it_was_killed(tmp_path: Path, one_part: parts.Part) -> None:
    output, manifest = OutputFolder(str(tmp_path / "out")), {"model": "m"}
    second = dataclasses.replace(one_part, number=one_part.number + 1)
    (tmp_path / "f").write_bytes(b"x")
    assert list(output.begin(manifest, [one_part, second], overwrite=True)) == [one_part, second]
    output.write(one_part, tmp_path / "f", cast(Labelled, SimpleNamespace(to_json=dict)))
    assert list(output.begin(manifest, [one_part, second], overwrite=True)) == [second]
    assert list(output.begin({"model": "n"}, [one_part, second], overwrite=True)) == [one_part, second]


def test_a_model_s_fingerprint_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    """A model of an object store is copied to a folder of another name each time."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("1")
    assert parts.fingerprint(tmp_path / "a") == parts.fingerprint(tmp_path / "b")
    (tmp_path / "b" / "weights").rename(tmp_path / "b" / "other")
    assert parts.fingerprint(tmp_path / "a") != parts.fingerprint(tmp_path / "b")


def test_a_folder_with_other_files_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"holds other files \(mine\.txt\)"):
            OutputFolder(str(tmp_path)).check(overwrite=overwrite)
    with pytest.raises(InputError, match="is a file; with --num-workers it is a folder"):
        OutputFolder(str(tmp_path / "mine.txt")).check(overwrite=False)


def test_scores_of_parts_add_up_to_those_of_all_rows() -> None:
    logits = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    labels = [("positive", "negative", "neutral", None)[i % 4] for i in range(40)]
    whole, total = Scores(classes=CLASSES), Scores(classes=CLASSES)
    whole.add(logits, labels)
    for start in range(0, 40, 16):
        part = Scores(classes=CLASSES)
        part.add(logits[start : start + 16], labels[start : start + 16])
        total.merge_json(json.loads(json.dumps(part.to_json())))
    assert total.sums.confusion.tolist() == whole.sums.confusion.tolist()
    assert total.sums.loss == pytest.approx(whole.sums.loss)
    assert total.unknown_notes == whole.unknown_notes


def test_scores_of_parts_of_a_regression_are_those_of_all_rows() -> None:
    logits = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    labels = [("1.5", "-2", "many", None, "nan")[i % 5] for i in range(40)]
    whole, total = ValueScores(), ValueScores()
    whole.add(logits, labels)
    for start in range(0, 40, 16):
        part = ValueScores()
        part.add(logits[start : start + 16], labels[start : start + 16])
        total.merge_json(json.loads(json.dumps(part.to_json())))
    assert total == whole
    assert (total.known, total.unknown_notes) == (16, ["16 rows whose label is no number not scored"])
    assert total.lines() == whole.lines()
