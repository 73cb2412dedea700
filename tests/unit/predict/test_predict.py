"""`sst2-ray predict`: sentences and files of any format to labels and probabilities, or one line that says what is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sst2_ray
from sst2_ray.errors import InputError
from sst2_ray.predict import inputs
from sst2_ray.predict.predictor import Predictor
from tests.support.models import SENTENCES
from tests.support.object_store import BUCKET, object_store_here

ROOT = Path(__file__).parents[3]
LABELS = [0, 1, 0, 1, 0, 1, 1]


@pytest.fixture
def refused(command, tmp_path):
    """Runs a command that must be refused: exit code 2, one line, and nothing written below tmp_path."""

    def call(*words):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return err.removeprefix("error: ").rstrip("\n")

    return call


@pytest.fixture(scope="module")
def expected(export):
    return sst2_ray.predict(export, SENTENCES)


def write(path: Path, rows: list[dict]) -> Path:
    """`rows` in the format of the path's suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("".join(row["text"] + "\n" for row in rows), encoding="utf-8")
    else:
        tab = path.suffix == ".tsv"
        with path.open("w", newline="", encoding="utf-8") as file:
            plain = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if tab else {}
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n", **plain)
            writer.writeheader()
            writer.writerows(rows)
    return path


def table(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


# ---- from Python


def test_predictions_are_labels_with_their_probability(expected):
    assert [p.text for p in expected] == SENTENCES
    assert {p.label for p in expected} == {"negative", "positive"}
    for p in expected:
        assert p.label == ("positive" if p.probability > 0.5 else "negative")
        assert p.label_id == int(p.label == "positive")
        assert p.confidence == max(p.probability, 1 - p.probability)


def test_the_order_is_the_callers_whatever_the_batches(export, expected):
    for batch_tokens in (1, 40, 10_000):
        found = sst2_ray.predict(export, SENTENCES, batch_tokens=batch_tokens)
        assert [p.text for p in found] == SENTENCES
        # The toy head multiplies rounding by some thousands.
        assert [p.probability for p in found] == pytest.approx([p.probability for p in expected], abs=1e-3)


def test_no_texts_give_no_predictions(export):
    assert sst2_ray.predict(export, []) == []


def test_white_space_around_a_sentence_is_nothing(export, expected):
    assert sst2_ray.predict(export, [f"  {SENTENCES[0]}\n"])[0].probability == pytest.approx(
        expected[0].probability, abs=1e-3
    )


def test_longer_sentences_are_truncated_to_the_models_length(export):
    long = "film " * 500
    assert sst2_ray.predict(export, [long])[0].probability == pytest.approx(
        sst2_ray.predict(export, [long + "comes to life"])[0].probability, abs=1e-6
    )


def test_a_predictor_is_a_class_for_map_batches(export, expected):
    batch = {"id": np.arange(len(SENTENCES)), "text": np.array(SENTENCES, dtype=object)}
    found = Predictor(export)(batch)
    assert list(found) == ["id", "text", "predicted", "predicted_label", "probability"]
    assert found["predicted"].tolist() == [p.label_id for p in expected]
    assert found["probability"].dtype == np.float32


def test_a_runs_folder_stands_for_the_model_in_it(export, tmp_path, expected):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(export)
    assert [p.label for p in sst2_ray.predict(tmp_path / "run", SENTENCES)] == [p.label for p in expected]


def test_a_models_uri_is_read_like_a_folder(export, tmp_path, expected):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(export)
    for uri in (export.as_uri(), (tmp_path / "run").as_uri()):
        assert [p.label for p in sst2_ray.predict(uri, SENTENCES)] == [p.label for p in expected]


def test_predicting_imports_neither_ray_nor_deepspeed(export):
    code = f"import sys, sst2_ray; sst2_ray.predict({str(export)!r}, ['x']); print([m for m in ('ray', 'deepspeed') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# ---- sentences on the command line


def test_sentences_are_shown_with_label_and_confidence(command, export, expected):
    code, out, err = command("--model-dir", export, "--text", *SENTENCES[:2])
    assert (code, err) == (0, "")
    for p in expected[:2]:
        assert p.text in out
        assert f"{p.label}" in out
        assert f"{p.confidence:.1%}" in out


def test_sentences_are_written_and_drawn(command, export, tmp_path, expected):
    output, picture = tmp_path / "out.parquet", tmp_path / "picture.png"
    code, out, _ = command("--model-dir", export, "--text", *SENTENCES, "--out", output, "--picture", picture)
    assert code == 0
    assert [row["predicted_label"] for row in table(output)] == [p.label for p in expected]
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert f"written: {picture}" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "picture.png"]


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_a_picture_takes_any_sentence(command, export, tmp_path, suffix):
    picture = tmp_path / f"picture.{suffix}"
    awkward = ["$x^ costs $5 {", "a\\b_c", "word " * 300, "電影"]
    assert command("--model-dir", export, "--text", *awkward, "--picture", picture)[0] == 0
    assert picture.stat().st_size > 1000


def test_markup_in_a_sentence_is_text(command, export):
    assert "[bold]loud[/bold]" in command("--model-dir", export, "--text", "[bold]loud[/bold]")[1]


# ---- files


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl", "txt"])
def test_every_format_is_labelled_row_for_row(command, export, tmp_path, expected, suffix):
    rows = [{"text": text} if suffix == "txt" else {"id": str(i), "text": text} for i, text in enumerate(SENTENCES)]
    source, output = write(tmp_path / f"in.{suffix}", rows), tmp_path / "out.parquet"
    code, out, _ = command("--model-dir", export, "--input", source, "--out", output)
    assert code == 0
    assert f"7 rows of {source}" in out
    found = table(output)
    assert [{key: row[key] for key in rows[0]} for row in found] == rows
    assert [row["predicted"] for row in found] == [p.label_id for p in expected]
    assert [row["probability"] for row in found] == pytest.approx([p.probability for p in expected], abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, "out.parquet"]


def test_other_columns_of_parquet_keep_their_types(command, export, tmp_path):
    rows = [{"id": i, "score": i / 2, "sentence": text} for i, text in enumerate(SENTENCES)]
    source, output = write(tmp_path / "in.parquet", rows), tmp_path / "out.parquet"
    command("--model-dir", export, "--input", source, "--out", output)
    assert [{key: row[key] for key in rows[0]} for row in table(output)] == rows
    schema = pq.read_schema(output)
    assert [str(schema.field(name).type) for name in ("predicted", "predicted_label", "probability")] == [
        "int8",
        "string",
        "float",
    ]


def test_quotation_marks_in_tsv_are_characters(command, export, tmp_path):
    (tmp_path / "in.tsv").write_text('sentence\n"a film\nthat " is\n')
    command("--model-dir", export, "--input", tmp_path / "in.tsv", "--out", tmp_path / "out.parquet")
    assert [row["sentence"] for row in table(tmp_path / "out.parquet")] == ['"a film', 'that " is']


def test_several_files_are_one(command, export, tmp_path):
    for number in range(3):
        write(tmp_path / f"part-{number}.csv", [{"text": SENTENCES[number]}])
    command("--model-dir", export, "--input", tmp_path / "part-*.csv", "--out", tmp_path / "out.parquet")
    assert [row["text"] for row in table(tmp_path / "out.parquet")] == SENTENCES[:3]


def test_a_row_without_a_text_has_no_prediction_and_is_counted(command, export, tmp_path):
    rows = [{"text": text} for text in ("a film", None, "  ", "dull")]
    source = write(tmp_path / "in.parquet", rows)
    out = command("--model-dir", export, "--input", source, "--out", tmp_path / "out.parquet")[1]
    assert [row["predicted"] is None for row in table(tmp_path / "out.parquet")] == [False, True, True, False]
    assert "note: 2 rows without a text and so without a prediction (rows 2, 3)" in out


def test_a_file_with_labels_is_scored(command, export, tmp_path, expected):
    rows = [{"text": text, "label": label} for text, label in zip(SENTENCES, LABELS, strict=True)]
    right = sum(p.label_id == label for p, label in zip(expected, LABELS, strict=True))
    for suffix in ("csv", "parquet"):
        code, out, _ = command("--model-dir", export, "--input", write(tmp_path / f"in.{suffix}", rows))
        assert code == 0
        assert f"accuracy {100 * right / 7:.2f} % ({right} of 7; 95 % interval " in out
        assert " F1 " in out


def test_hidden_labels_are_not_scored(command, export, tmp_path):
    rows = [{"text": text, "label": label} for text, label in zip(SENTENCES, [-1, 1, None, -1, 0, 1, 1], strict=True)]
    out = command("--model-dir", export, "--input", write(tmp_path / "in.parquet", rows))[1]
    assert " of 4; " in out


def test_columns_can_be_named(command, export, tmp_path):
    rows = [{"review": text, "stars": "pos"} for text in SENTENCES]
    source = write(tmp_path / "in.csv", rows)
    out = command("--model-dir", export, "--input", source, "--text-column", "review", "--label-column", "stars")[1]
    assert " of 7; " in out


def test_more_rows_than_a_piece_keep_their_order(command, export, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PIECE_ROWS", 4)
    pieces = []
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, texts: pieces.append(len(texts)) or logits(self, texts))
    rows = [{"text": f"{text} {i}"} for i in range(5) for text in SENTENCES]
    for suffix in ("parquet", "csv", "txt", "jsonl"):
        output = tmp_path / f"{suffix}.parquet"
        source = write(tmp_path / f"in.{suffix}", rows)
        assert command("--model-dir", export, "--input", source, "--out", output)[0] == 0
        assert [row["text"] for row in table(output)] == [row["text"] for row in rows]
        assert len(rows) == sum(pieces)
        assert max(pieces) == 4
        pieces.clear()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "Text ;label\na film;1\ndull, really;0\n"),
        ("a.csv.gz", 'text,label\na film,1\n"dull, really",0\n'),
        ("a.tsv", "a film\t1\ndull, really\t0\nfine\t1\nbad\t0\n"),
        ("a.json", '{"text": {"0": "a film", "1": "dull, really"}, "label": {"0": 1, "1": 0}}'),
        ("a.jsonl", '\ufeff{"text": "a film"}\n{"text": "dull, really", "label": 0}\n'),
    ],
)
def test_what_training_reads_is_read(command, export, tmp_path, name, content):
    (tmp_path / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    code, out, _ = command("--model-dir", export, "--input", tmp_path / name, "--out", tmp_path / "out.parquet")
    assert code == 0
    assert "accuracy" in out
    found = [next(iter(row.values())) for row in table(tmp_path / "out.parquet")]
    assert found[:2] == ["a film", "dull, really"]


@pytest.mark.parametrize("text", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_every_string_type_are_labelled(command, export, tmp_path, expected, text):
    column = pa.array(SENTENCES)
    column = column.dictionary_encode() if pa.types.is_dictionary(text) else column.cast(text)
    pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    command("--model-dir", export, "--input", tmp_path / "in.parquet", "--out", tmp_path / "out.parquet")
    assert [row["predicted"] for row in table(tmp_path / "out.parquet")] == [p.label_id for p in expected]


def class_label_file(path: Path, names: list[str], labels: list[int]) -> Path:
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    made = pa.table({"text": SENTENCES, "label": labels}).replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(made, path)
    return path


def test_numbers_of_a_class_label_count_by_their_names(command, export, tmp_path):
    flags = ("--model-dir", export, "--input")
    one = command(*flags, class_label_file(tmp_path / "a.parquet", ["negative", "positive"], LABELS))[1]
    other = command(
        *flags, class_label_file(tmp_path / "b.parquet", ["positive", "negative"], [1 - y for y in LABELS])
    )[1]
    assert one.splitlines()[1] == other.splitlines()[1]


def test_labels_that_the_model_does_not_know_are_not_scored_and_said(command, export, tmp_path):
    source = class_label_file(tmp_path / "a.parquet", ["ham", "spam"], LABELS)
    code, out, _ = command("--model-dir", export, "--input", source, "--out", tmp_path / "out.parquet")
    assert code == 0
    assert len(table(tmp_path / "out.parquet")) == 7
    assert (
        "note: 7 rows not scored: labels spam (4), ham (3) are not among the model's classes negative, positive" in out
    )
    assert "accuracy" not in out


def test_labels_that_the_model_does_not_know_are_refused_where_nothing_else_is_asked_for(
    refused, command, export, tmp_path
):
    source = write(tmp_path / "in.csv", [{"text": f"{i}", "label": "ham"} for i in range(41)])
    message = refused("--model-dir", export, "--input", source)
    assert "41 rows not scored: labels ham (41) are not among the model's classes" in message
    assert "pass --out" in message
    assert command("--model-dir", export, "--input", source, "--ignore-labels")[0] == 2


def test_minus_one_is_a_class_where_the_only_other_is_one(command, export, tmp_path):
    rows = [{"text": SENTENCES[0], "label": label} for label in (-1, 1) * 15]
    out = command("--model-dir", export, "--input", write(tmp_path / "in.csv", rows))[1]
    assert "accuracy 50.00 % (15 of 30; " in out


def test_rows_without_a_label_are_counted(command, export, tmp_path):
    rows = [{"text": "a film", "label": ""}, {"text": "dull", "label": "0"}, {"text": "fine", "label": "maybe"}]
    out = command("--model-dir", export, "--input", write(tmp_path / "in.csv", rows))[1]
    assert " of 1; " in out
    assert "note: 1 row without a label not scored (row 1)" in out
    assert "note: 1 row not scored: labels maybe (1) are not among the model's classes negative, positive" in out


def test_a_text_that_is_cut_is_counted(command, export, tmp_path):
    (tmp_path / "in.txt").write_text("word " * 2_000 + "\nshort\n")
    out = command("--model-dir", export, "--input", tmp_path / "in.txt")[1]
    assert "note: 1 text cut to the model's 64 tokens" in out


def test_answers_are_counted_at_the_end(command, export, tmp_path, expected):
    source = write(tmp_path / "in.csv", [{"text": text} for text in SENTENCES])
    counts = Counter(p.label for p in expected).most_common()
    out = command("--model-dir", export, "--input", source, "--output", tmp_path / "out.csv")[1]
    assert f"7 rows of {source}: {counts[0][0]} {counts[0][1]}, {counts[1][0]} {counts[1][1]}" in out


def test_a_small_file_is_shown(command, export, tmp_path, expected):
    out = command("--model-dir", export, "--input", write(tmp_path / "in.txt", [{"text": SENTENCES[0]}]))[1]
    assert SENTENCES[0] in out
    assert f"{expected[0].confidence:.1%}" in out


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_predictions_are_written_in_the_format_of_the_outputs_name(command, export, tmp_path, expected, suffix):
    source = write(tmp_path / "in.parquet", [{"text": text} for text in SENTENCES])
    output = tmp_path / f"out.{suffix}"
    assert command("--model-dir", export, "--input", source, "--out", output)[0] == 0
    if suffix == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        rows = list(csv.DictReader(output.open(newline=""), delimiter="," if suffix == "csv" else "\t"))
    assert [row["text"] for row in rows] == SENTENCES
    assert [row["predicted_label"] for row in rows] == [p.label for p in expected]
    assert [float(row["probability"]) for row in rows] == pytest.approx([p.probability for p in expected], abs=1e-3)


def test_predictions_are_written_to_an_object_store(command, refused, export, tmp_path):
    source = write(tmp_path / "in.csv", [{"text": text} for text in SENTENCES])
    with object_store_here():
        for words in (("--input", source), ("--text", *SENTENCES)):
            uri = f"s3://{BUCKET}/out/{words[0][2:]}.csv"
            assert f"written: {uri}" in command("--model-dir", export, *words, "--out", uri)[1]
            assert "exists; choose another name" in refused("--model-dir", export, *words, "--out", uri)
            shown = command("--model-dir", export, "--input", uri)[1]  # what was written is an input in its turn
            assert all(text in shown for text in SENTENCES)
        nowhere = f"s3://{BUCKET}/out.csv?endpoint_override=127.0.0.1:9&scheme=http"
        assert "cannot be written (" in refused("--model-dir", export, "--text", "a film", "--out", nowhere)


@pytest.mark.parametrize(
    "content",
    ["a film\ndull\n", "text\na film\ndull\n", "id,text\n1,a film\n2,dull\n", '{"text": "a film"}\n{"text": "dull"}\n'],
)
def test_standard_input_and_output_are_dashes(export, content):
    done = subprocess.run(
        [sys.executable, "-m", "sst2_ray", "predict", "--model-dir", str(export), "--input", "-", "--out", "-"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, input=content, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if content.startswith("{"):
        rows = [json.loads(line) for line in done.stdout.splitlines()]
    else:
        rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["text"] for row in rows] == ["a film", "dull"]
    assert {row["predicted_label"] for row in rows} <= {"negative", "positive"}
    assert "2 rows of -" in done.stderr


# ---- known data sets and leaks


def test_a_data_set_is_scored_on_its_evaluation_split(command, export, tmp_path):
    rows = [{"sentence": f"{text} {i}", "label": i % 2} for i, text in enumerate(SENTENCES)]
    write(tmp_path / "train.tsv", rows[:3])
    write(tmp_path / "dev.tsv", rows[3:])
    output = tmp_path / "out.parquet"
    code, out, _ = command("--model-dir", export, "--data", tmp_path, "--out", output)
    assert code == 0
    assert f"4 rows of dev of {tmp_path.name}" in out
    assert " of 4; " in out
    assert [row["label"] for row in table(output)] == [1, 0, 1, 0]


def test_labels_of_a_data_set_are_written_by_the_model_s_numbers(command, export, tmp_path):
    model = shutil.copytree(export, tmp_path / "model")
    names = {"sst2_ray.json": {"labels": ["spam", "ham"]}, "config.json": {"id2label": {"0": "spam", "1": "ham"}}}
    for file, stated in names.items():
        (model / file).write_text(json.dumps({**json.loads((model / file).read_text()), **stated}))
    rows = [{"text": f"{text} {i}", "label": ("ham", "spam")[i % 2]} for i, text in enumerate(SENTENCES)]
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "dev.csv", [{**row, "text": f"unseen {row['text']}"} for row in rows])
    code, out, err = command("--model-dir", model, "--data", tmp_path, "--out", tmp_path / "out.parquet")
    assert code == 0, err
    found = table(tmp_path / "out.parquet")
    assert [row["label"] for row in found] == [int(row["label"] == "ham") for row in rows]
    assert f"{sum(row['label'] == row['predicted'] for row in found)} of {len(rows)}; " in out


def test_an_output_that_cannot_hold_the_columns_or_is_a_folder_is_one_line(refused, export, tmp_path):
    pq.write_table(pa.table({"text": ["a film"], "tags": [["x"]]}), tmp_path / "in.parquet")
    words = ("--model-dir", export, "--input", tmp_path / "in.parquet")
    assert "cannot hold the input's columns" in refused(*words, "--out", tmp_path / "out.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder; name a file" in refused(*words, "--out", tmp_path / "folder.csv", "--overwrite")


def test_a_bucket_that_is_not_there_is_refused_before_anything_is_computed(refused, export, monkeypatch):
    with object_store_here():
        monkeypatch.setattr(Predictor, "logits", None)
        message = refused("--model-dir", export, "--text", "a film", "--out", "s3://nobucket/out.csv")
    assert message.startswith("--out ")
    assert "cannot be written" in message


def test_a_model_trained_on_the_parent_corpus_is_not_scored_on_sst2(refused, command, reviews_export):
    folder = os.environ.get("SST2_RAY_DATA")
    if not folder:
        pytest.skip("SST2_RAY_DATA is not set: needs a folder with GLUE's SST-2 (train.tsv, dev.tsv)")
    for words in (["--data", folder], ["--input", Path(folder) / "dev.tsv"]):
        message = refused("--model-dir", reviews_export, *words)
        assert message.startswith("a model trained on rotten-tomatoes cannot be scored on glue: ")
    code, out, _ = command("--model-dir", reviews_export, "--input", Path(folder) / "dev.tsv", "--allow-leak")
    assert code == 0
    assert "note: LEAK, allowed: " in out


# ---- what is refused


def test_nothing_or_too_much_to_label(refused, export, tmp_path):
    source = write(tmp_path / "in.txt", [{"text": "a"}])
    assert refused("--model-dir", export) == "nothing to label: give exactly one of --text, --input and --data"
    assert refused("--model-dir", export, "--text", "a", "--input", source).startswith("--text and --input: ")


def test_an_unknown_flag_names_the_nearest(refused, export):
    assert "did you mean --text" in refused("--model-dir", export, "--texts", "a")


def test_a_folder_that_is_no_export(refused, tmp_path):
    assert "no such folder" in refused("--model-dir", tmp_path / "nowhere", "--text", "a")
    assert "it has no sst2_ray.json" in refused("--model-dir", tmp_path, "--text", "a")


def test_a_planted_pickle_is_refused_and_not_run(refused, export, tmp_path):
    import shutil

    copy = shutil.copytree(export, tmp_path / "copy")
    ran = tmp_path / "ran"
    (copy / "pytorch_model.bin").write_bytes(f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode())
    assert "pytorch_model.bin may be a pickle" in refused("--model-dir", copy, "--text", "a")
    assert not ran.exists()


@pytest.mark.parametrize("flag", ["--out", "--picture"])
def test_what_exists_is_not_overwritten_unless_told(refused, command, export, tmp_path, flag):
    target = tmp_path / ("x.parquet" if flag == "--out" else "x.png")
    target.write_text("mine")
    words = ("--model-dir", export, "--text", "a", flag, target)
    assert refused(*words) == f"{flag} {target}: exists; choose another name, or pass --overwrite"
    assert target.read_text() == "mine"
    assert command(*words, "--overwrite")[0] == 0
    assert target.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--text", "a", "--out", "out.doc"], "--out out.doc: its name must end in .parquet"),
        (["--text", "a", "--picture", "x.gif"], "--picture x.gif: its name must end in .png or .svg or .pdf"),
        (["--text", "a", "--out", "no/such/out.parquet"], "its folder does not exist"),
        (["--text", " "], "--text: sentence 1 is empty"),
        (["--data", "glue", "--picture", "x.png"], "it shows the sentences of --text"),
        (["--text", *["a"] * 41, "--picture", "x.png"], "it holds 40 sentences, not 41"),
        (["--text", "a", "--batch-tokens", "0"], "--batch-tokens 0: must be above 0"),
        (["--input", "nowhere.csv", "--out", "o.parquet"], "--input nowhere.csv: no such file"),
        (["--input", "s3x://b/in.csv", "--out", "o.parquet"], "--input s3x://b/in.csv: cannot be read"),
        (["--data", "gleu"], "did you mean glue?"),
    ],
)
def test_impossible_requests(refused, export, words, reason):
    assert reason in refused("--model-dir", export, *words)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.csv", b"", "is empty"),
        ("in.csv", b"text,label\n", "is empty"),
        ("in.txt", b"", "is empty"),
        ("in.doc", b"x", ".doc is not a known format; one of .csv"),
        (
            "in.csv",
            b"review\nfine\n",
            "has no text column 'sentence' or 'text'; it has review; name one with --text-column",
        ),
        ("in.csv", b"text,predicted\nfine,1\n", "has a column 'predicted', which the output adds"),
        ("in.csv", b"text\ncaf\xe9\n", "line 2 is not UTF-8 (byte 0xe9)"),
        ("in.txt", b"caf\xe9\n", "line 1 is not UTF-8 (byte 0xe9)"),
        ("in.csv", b"text,label\na,1\nb,1,2\n", "1 row does not have 2 cells as the first row has: 3 in row 2"),
        ("in.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not a JSON object"),
        ("in.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("in.parquet", b"PAR1 but not really", "is not valid PARQUET"),
    ],
)
def test_files_that_cannot_be_labelled(refused, export, tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    message = refused("--model-dir", export, "--input", tmp_path / name, "--out", tmp_path / "out.parquet")
    assert message.startswith(f"--input {tmp_path / name}")
    assert reason in message


def test_a_file_that_breaks_off_later_leaves_no_output(refused, export, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PIECE_ROWS", 2)
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in SENTENCES])
    source.write_text(source.read_text() + "{\n")
    words = ["--input", source, "--out", tmp_path / "out.parquet"]
    assert "line 8 is not a JSON object" in refused("--model-dir", export, *words)


def test_a_text_column_of_numbers(refused, export, tmp_path):
    source = write(tmp_path / "in.parquet", [{"text": 1}])
    assert "column 'text' is int64, not text" in refused("--model-dir", export, "--input", source, "--out", "o.parquet")


def test_a_file_without_labels_that_is_too_large_to_show_needs_an_output(refused, export, tmp_path):
    source = write(tmp_path / "in.txt", [{"text": "a"}] * 41)
    assert refused("--model-dir", export, "--input", source).endswith("so say where to write: --out")


def test_files_of_different_columns(refused, export, tmp_path):
    write(tmp_path / "a.csv", [{"text": "a"}])
    write(tmp_path / "b.csv", [{"text": "a", "id": "1"}])
    words = ["--input", tmp_path / "*.csv", "--out", tmp_path / "out.parquet"]
    assert "has other columns than" in refused("--model-dir", export, *words)


def test_a_gpu_that_is_not_there(refused, export):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "--device cuda: torch sees no GPU here" in refused("--model-dir", export, "--text", "a", "--device", "cuda")
    for device, message in (
        ("cuda:1", "device='cuda:1': torch sees no GPU here"),
        ("tpu", "device='tpu': must be auto, cpu or cuda"),
    ):
        with pytest.raises(InputError, match=message):
            sst2_ray.Predictor(str(export), device=device)


def test_the_job_is_the_same_command(export, expected):
    done = subprocess.run(
        [sys.executable, "jobs/predict.py", "--model-dir", str(export), "--text", SENTENCES[0]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{expected[0].confidence:.1%}" in done.stdout
