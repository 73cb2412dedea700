"""Folders are labelled on a real Ray as one process labels them, and a second command does what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from sst2_ray.errors import InfeasibleError, InputError
from sst2_ray.predict.command import main
from tests.support import models
from tests.support.folders import labelled_rows, review_folder
from tests.support.object_store import BUCKET, object_store

pytestmark = pytest.mark.usefixtures("two_cpus")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return models.export_of(models.sbert_folder(folder / "sbert"), folder / "export", corpora=("rotten-tomatoes",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return review_folder(tmp_path_factory.mktemp("data") / "reviews", files=5, rows=60)


def words(export: Path, folder: Path | str, output: Path | str, *more: str) -> list[str]:
    return ["--model-dir", str(export), "--input", str(folder), "--out", str(output), "--precision", "fp32", *more]


def test_the_rows_are_those_of_one_process_and_a_second_command_does_what_is_missing(
    export: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, output = tmp_path / "one.parquet", tmp_path / "out"
    main(words(export, folder, one))
    said = capsys.readouterr().out
    main(words(export, folder, output, "--num-workers", "2"))
    there = capsys.readouterr()
    assert labelled_rows(output).equals(labelled_rows(one))
    scores = [line for line in said.splitlines() if "accuracy" in line or "without" in line]
    assert len(scores) == 2 and all(line in there.out for line in scores)
    assert "300 of 300 rows" in there.err
    assert (output / "_SUCCESS").is_file()

    before = {file.name: file.stat().st_mtime_ns for file in output.glob("part-*")}
    for name in ("_SUCCESS", "part-000001.parquet", "part-000004.parquet"):
        (output / name).unlink()
    main(words(export, folder, output, "--num-workers", "1"))
    assert "180 of 300 rows are there already" in capsys.readouterr().err
    assert labelled_rows(output).equals(labelled_rows(one))
    after = {file.name: file.stat().st_mtime_ns for file in output.glob("part-*")}
    assert sum(after[name] == before[name] for name in before) == 3

    with pytest.raises(InputError, match="was begun with another way of reading or computing"):
        main(words(export, folder, output, "--num-workers", "2", "--ignore-labels"))


def test_folders_of_an_object_store_are_read_and_written(
    export: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sst2_ray.storage import Storage

    with object_store() as env:
        options = f"?endpoint_override={env['AWS_ENDPOINT_URL'].replace('://', '%3A%2F%2F')}&region=us-east-1"
        login = f"s3://{env['AWS_ACCESS_KEY_ID']}:{env['AWS_SECRET_ACCESS_KEY']}@{BUCKET}"
        source, target = (Storage.open(f"{login}/{name}{options}") for name in ("reviews", "labelled"))
        source.upload(folder / "000.parquet", "000.parquet")
        source.upload(folder / "001.parquet", "001.parquet")
        main(words(export, f"{login}/reviews{options}", f"{login}/labelled{options}", "--num-workers", "2"))
        assert target.list() == ["_SUCCESS", "_manifest", "_parts", "part-000000.parquet", "part-000001.parquet"]
        (tmp_path / "copy").mkdir()
        for name in target.list()[-2:]:
            target.download(name, tmp_path / "copy" / name)
    main(words(export, folder, tmp_path / "one.parquet"))
    assert labelled_rows(tmp_path / "copy").equals(labelled_rows(tmp_path / "one.parquet").slice(0, 120))
    assert env["AWS_SECRET_ACCESS_KEY"] + "@" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.parquet", b"PAR1 nothing", r"x\.parquet: is not valid PARQUET"),
        ("x.csv", b"text,label\nfine,1\n", r"x\.csv: has other columns than 000\.parquet"),
    ],
)
def test_a_wrong_file_is_told_before_anything_is_written(
    export: Path, folder: Path, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / "in").mkdir()
    os.link(folder / "000.parquet", tmp_path / "in" / "000.parquet")
    (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        main(words(export, tmp_path / "in", tmp_path / "out", "--num-workers", "2"))
    assert not (tmp_path / "out").exists()


def test_more_workers_than_the_cluster_can_hold_are_refused_with_the_arithmetic(
    export: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InfeasibleError, match=r"--num-workers 9: .*room for 2 is all there can be"):
        main(words(export, folder, tmp_path / "out", "--num-workers", "9"))
    assert not (tmp_path / "out").exists()


def test_workers_that_find_no_place_are_given_up(export: Path, folder: Path, tmp_path: Path) -> None:
    @ray.remote(num_cpus=2)
    class Other:
        """Somebody who holds the cluster."""

        def there(self) -> None:
            """Answer."""

    other = Other.remote()
    ray.get(other.there.remote())
    with pytest.raises(
        InfeasibleError, match=r"no worker has found a place within --placement-timeout-s 2 \(2 workers of"
    ):
        main(words(export, folder, tmp_path / "out", "--num-workers", "2", "--placement-timeout-s", "2"))
    ray.kill(other)
    assert not (tmp_path / "out").exists()


def test_a_known_leak_is_refused_on_a_cluster_as_well(export: Path, tmp_path: Path) -> None:
    data = os.environ.get("SST2_RAY_DATA")
    if data is None:
        pytest.skip("SST2_RAY_DATA names no folder with the real SST-2, whose dev split is what leaks here")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "sentences.tsv").write_bytes(Path(data, "dev.tsv").read_bytes())
    with pytest.raises(InputError, match="a model trained on rotten-tomatoes cannot be scored on glue"):
        main(words(export, tmp_path / "in", tmp_path / "out", "--num-workers", "2"))
    assert not (tmp_path / "out").exists()
