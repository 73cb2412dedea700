"""Inputs that people really have, through the real command: what the plan of `train` says of them, and what `predict` does.

Runs that train on them: tests/ray/test_labelled_text.py.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedTokenizerFast

from sst2_ray.cli import run
from tests.support.families import family_folder
from tests.support.labelled import class_label, delimited, labelled
from tests.support.models import SENTENCES, export_of, modernbert_folder, toy_tokenizer
from tests.support.reviews import reviews, write_jsonl

DATA = labelled()
NEGATIVE_POSITIVE = "classes negative 27, positive 27; the largest is 50.0% of train, 50.0% of dev"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return modernbert_folder(tmp_path_factory.mktemp("model") / "toy")


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs a command in a folder of its own: exit code and, without line breaks, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(name, *words):
        code = run(name, [str(word) for word in words])
        captured = capsys.readouterr()
        return code, " ".join(captured.out.split()), " ".join(captured.err.split())

    return call


@pytest.fixture
def plan(command, model):
    """The plan of a run on some data, which is accepted."""

    def call(data, *words):
        code, out, err = command("train", "--data", data, "--model", model, "--batch-size", 8, "--dry-run", *words)
        assert (code, "nothing was started, nothing was written" in out) == (0, True), err
        return out

    return call


@pytest.fixture
def refused(command, model):
    """The one line that refuses a run on some data."""

    def call(data, *words):
        code, _, err = command("train", "--data", data, "--model", model, "--batch-size", 8, "--dry-run", *words)
        assert (code, err[:7]) == (2, "error: ")
        return err

    return call


# ---- labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("no", "yes"), "classes no 27, yes 27;"),
        (("non", "oui"), "classes non 27, oui 27;"),
        (("ham", "spam"), "classes ham 27, spam 27;"),
        (("refund", "billing"), "classes billing 27, refund 27;"),
        ((-1, 1), "classes -1 27, 1 27;"),
        (("+1", "-1.0"), "classes -1 27, 1 27;"),
        ((1, 2), "classes 1 27, 2 27;"),
        ((0, 4), "classes 0 27, 4 27;"),
        ((10, 9), "classes 9 27, 10 27;"),
        ((0.0, 1.0), NEGATIVE_POSITIVE),
        (("LABEL_0", "LABEL_1"), NEGATIVE_POSITIVE),
        (("NEGATIVE", " Positive"), NEGATIVE_POSITIVE),
        (("FALSE", "TRUE"), NEGATIVE_POSITIVE),
        (("neg", "Pos "), NEGATIVE_POSITIVE),
        (("negative", "neutral", "positive"), "classes negative 18, neutral 18, positive 18;"),
        (("0.0", "1.0", "2.0"), "classes 0 18, 1 18, 2 18;"),
        (("1", "2", "3", "4", "5"), "classes 1 11, 2 11, 3 11, 4 11, 5 11;"),
        (("sport", "politics", "culture", "science", "weather", "traffic"), "classes culture 9, politics 9, science 9,"),
        (tuple(f"class {i}" for i in range(12)), ", ... (12 in all);"),
        (("\u043d\u0435\u0442", "\u0434\u0430"), "classes \u0434\u0430 27, \u043d\u0435\u0442 27;"),
    ],
)  # fmt: skip
def test_labels_of_any_kind_are_classes_named_as_in_the_file_in_a_stated_order(plan, tmp_path, labels, classes):
    assert classes in plan(delimited(tmp_path / "mine.csv", labelled(labels=labels)))


def test_stars_of_reviews_are_classes_in_the_order_of_their_value(plan, tmp_path):
    source = delimited(tmp_path / "stars.csv", labelled(labels=(4, 1, 5, 2)), header=("review", "stars"))
    assert "classes 1 " in plan(source, "--text-column", "review", "--label-column", "stars")


@pytest.mark.parametrize("rare", [1, "fraud"])
def test_a_rare_class_stands_beside_the_share_of_the_other(plan, tmp_path, rare):
    rows = [(text, rare if i % 30 == 7 else 0) for i, (text, _) in enumerate(labelled(600))]
    assert "522, " in (said := plan(delimited(tmp_path / "rare.csv", rows)))
    assert "the largest is 96.7% of train, 96.7% of dev" in said


@pytest.mark.parametrize("names", [("sentence1", "sentence2"), ("premise", "hypothesis"), ("Question1", "question2")])
def test_pairs_are_read_from_two_columns(plan, tmp_path, names):
    rows = [(text, DATA[i - 3][0], label) for i, (text, label) in enumerate(DATA)]
    source = delimited(tmp_path / "pairs.tsv", rows, header=(*names, "label"), delimiter="\t")
    said = plan(source, "--text-columns", *names)
    assert f"pairs of {names[0]} and {names[1]}, read as one sequence with the separator" in said


def test_a_pair_of_which_one_column_is_read_says_that_the_other_is_not_used(plan, tmp_path):
    rows = [(text, DATA[i - 3][0], label) for i, (text, label) in enumerate(DATA)]
    source = delimited(tmp_path / "pairs.tsv", rows, header=("sentence1", "sentence2", "label"), delimiter="\t")
    assert "1 column not used: sentence2" in plan(source, "--text-column", "sentence1")


def test_rows_with_several_labels_are_refused_by_name(refused, tmp_path):
    source = tmp_path / "tags.jsonl"
    source.write_text("".join(json.dumps({"text": text, "label": ["a", "b"]}) + "\n" for text, _ in DATA))
    assert "holds several labels; only one label a row can be trained on" in refused(source)


# ---- files


FORMS: dict[str, Callable[[Path], Path]] = {
    "semicolon.csv": lambda path: delimited(path, DATA, delimiter=";"),
    "pipe.csv": lambda path: delimited(path, DATA, delimiter="|"),
    "tab.txt": lambda path: delimited(path, DATA, delimiter="\t"),
    "comma.tsv": lambda path: delimited(path, DATA),
    "no-header.tsv": lambda path: delimited(path, DATA, header=(), delimiter="\t"),
    "no-header.csv": lambda path: delimited(path, [(label, text) for text, label in DATA], header=()),
    "capital-header.csv": lambda path: delimited(path, DATA, header=("Text", " label")),
    "SHOUTING.csv": lambda path: delimited(path, DATA, header=("SENTENCE ", "LABEL")),
    "utf16.csv": lambda path: delimited(path, DATA, encoding="utf-16"),
    "utf16.tsv": lambda path: delimited(path, DATA, encoding="utf-16", delimiter="\t"),
    "marked.csv": lambda path: delimited(path, DATA, encoding="utf-8-sig"),
    "plain.csv.gz": lambda path: delimited(path, DATA),
    "tabs.tsv.gz": lambda path: delimited(path, DATA, delimiter="\t"),
    "quoted.csv": lambda path: delimited(path, [(f'he said "{text}", then left', y) for text, y in DATA]),
    "quoted.tsv": lambda path: delimited(path, [(f'he said "{text}", then left', y) for text, y in DATA], delimiter="\t"),
    "all-quoted.tsv": lambda path: delimited(path, DATA, delimiter="\t", quoting=csv.QUOTE_ALL),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_table_is_read_whatever_program_wrote_it(plan, tmp_path, name):
    assert NEGATIVE_POSITIVE in plan(FORMS[name](tmp_path / name))


def as_columns(path: Path) -> None:
    texts, labels = ({str(i): row[column] for i, row in enumerate(DATA)} for column in (0, 1))
    path.write_text(json.dumps({"text": texts, "label": labels}))


def as_records(path: Path) -> None:
    path.write_text(json.dumps([{"text": text, "label": label} for text, label in DATA]))


def as_split(path: Path) -> None:
    path.write_text(json.dumps({"columns": ["text", "label"], "index": list(range(60)), "data": DATA}))


@pytest.mark.parametrize("write", [as_columns, as_records, as_split])
def test_json_is_read_in_pandas_forms(plan, tmp_path, write):
    write(tmp_path / "mine.json")
    assert NEGATIVE_POSITIVE in plan(tmp_path / "mine.json")


def test_a_quoted_tsv_has_the_texts_of_the_quoted_csv_and_says_so(plan, tmp_path):
    token_words = [
        said[said.index("tokens ") : said.index(" steps ")]
        for said in (plan(FORMS[name](tmp_path / name)) for name in ("quoted.csv", "quoted.tsv"))
    ]
    assert token_words[0] == token_words[1]
    said = plan(tmp_path / "quoted.tsv")
    assert "quoted.tsv: quotation marks enclose cells (as pandas writes TSV; --quoting none to read them as" in said


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_a_single_byte_file_gets_the_right_advice_and_is_read_with_it(plan, refused, tmp_path, encoding):
    mark = "\u201cso\u201d" if encoding == "cp1252" else "d\u00e9j\u00e0 vu"
    source = delimited(tmp_path / "mine.csv", [(f"{text}, {mark}", y) for text, y in DATA], encoding=encoding)
    assert "pass --encoding cp1252 if it is that" in refused(source)
    assert NEGATIVE_POSITIVE in plan(source, "--encoding", encoding)


def test_blank_cells_are_counted_and_named_and_the_run_goes_on_or_is_refused_in_one_line(plan, refused, tmp_path):
    source = delimited(tmp_path / "mine.csv", [*DATA, ("", 1), ("words without a label", ""), ("   ", 0)])
    said = "2 without a text (rows 61, 63), 1 without a label (row 62)"
    assert said in plan(source)
    assert said in refused(source, "--no-drop-blank")
    lines = [json.dumps({"text": text, "label": label}) for text, label in [*DATA, (None, 1), ("no label", None)]]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    assert "1 without a text (row 61), 1 without a label (row 62)" in plan(tmp_path / "mine.jsonl")


def test_rows_that_cannot_be_read_are_one_list(refused, tmp_path):
    source = delimited(tmp_path / "mine.csv", [*DATA, *[("a", "b", "c")] * 5])
    said = refused(source)
    assert "5 rows do not have 2 cells" in said
    assert said.count(" in row ") == 3
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "label": 1}\n' + "not json\n" * 5)
    assert "5 rows cannot be read: line 2 is not a JSON object (not json), line 3" in refused(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(("dev", "said"), [("test", "test"), ("val", "val"), ("valid", "valid"), ("Validation", None)])
def test_a_folder_has_its_evaluation_split_under_any_usual_name_and_which_it_is_is_said(plan, tmp_path, dev, said):
    delimited(tmp_path / "data" / "Train.csv", DATA[:40])
    delimited(tmp_path / "data" / f"{dev}.csv", DATA[40:])
    out = plan(tmp_path / "data")
    assert "40 train rows, 20 dev of data" in out
    assert said is None or f"evaluated on its split {said} ({dev}.csv)" in out


@pytest.mark.parametrize(
    "words", [("--text-column", "label"), ("--text-column", "text", "--label-column", "text"), ("--text-column", "no")]
)
def test_columns_that_cannot_be_are_refused_in_one_line(refused, tmp_path, words):
    said = refused(delimited(tmp_path / "mine.csv", DATA), *words)
    assert "cannot be both the text and the label" in said or "has no text column 'no'; it has text, label" in said


@pytest.mark.parametrize("half", ["\\ud83d", "\\udc00 \\ud800"])
def test_half_a_character_is_one_line_with_its_row_in_train_and_predict(refused, command, export, tmp_path, half):
    source = tmp_path / "half.jsonl"
    source.write_text("".join(f'{{"text": "{text} {half}", "label": {label}}}\n' for text, label in DATA))
    assert "60 rows cannot be read: row 1 holds half a character" in refused(source)
    code, _, err = command("predict", "--model-dir", export, "--input", source)
    assert (code, "60 rows cannot be read: row 1 holds half a character" in err) == (2, True)


PLAIN = "".join(f"{text},{label}\n" for text, label in DATA)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("blank-lines.csv", b"\n\r\ntext,label\n\n" + PLAIN.encode()),
        ("excel.csv", b"sep=;\ntext;label\n" + PLAIN.replace(",", ";").encode()),
        ("excel-quoted.csv", b'"sep=|"\r\ntext|label\r\n' + PLAIN.replace(",", "|").encode()),
        ("compressed.csv", gzip.compress(b"text,label\n" + PLAIN.encode())),
        ("compressed.tsv", pa.compress(b"text\tlabel\n" + PLAIN.replace(",", "\t").encode(), "zstd", asbytes=True)),
        ("mac.csv", b"text,label\r" + PLAIN.replace("\n", "\r").encode()),
        ("dos.csv", b"text,label\r\n" + PLAIN.replace("\n", "\r\n").encode()),
        ("trailing.csv", b"text,label,\n" + PLAIN.replace("\n", ",\n").encode()),
        ("spaces.csv", b"text , label\n" + PLAIN.replace(",", " , ").encode()),
        ("row-numbers.csv", b",text,label\n" + "".join(f"{i},{t},{y}\n" for i, (t, y) in enumerate(DATA)).encode()),
    ],
)
def test_what_spreadsheets_and_editors_add_to_a_table_is_no_row_of_it(plan, label_file, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert NEGATIVE_POSITIVE in plan(tmp_path / name)
    rows, said = label_file(tmp_path / name)
    assert (len(rows), " of 60; " in said) == (60, True)


@pytest.mark.parametrize("cell", ["nan", "NaN", "<NA>", "#N/A", ""])
def test_cells_that_pandas_leaves_where_there_is_no_label_are_none(plan, label_file, tmp_path, cell):
    rows = [(text, cell if i in (8, 19) else label) for i, (text, label) in enumerate(DATA)]
    said = plan(delimited(tmp_path / "mine.csv", rows))
    assert "left out 2 rows: 2 without a label (rows 9, 20)" in said
    assert "classes negative 26, positive 26;" in said
    assert "2 rows without a label not scored (rows 9, 20)" in label_file(tmp_path / "mine.csv")[1]


def test_json_s_not_a_number_is_no_label(plan, tmp_path):
    lines = [json.dumps({"text": t, "label": float("nan") if i == 3 else float(y)}) for i, (t, y) in enumerate(DATA)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    assert "left out 1 row: 1 without a label (row 4)" in plan(tmp_path / "mine.jsonl")


@pytest.mark.parametrize(
    ("kind", "values", "classes"),
    [
        (pa.decimal128(5, 2), [Decimal(0), Decimal(1)], NEGATIVE_POSITIVE),
        (pa.decimal128(5, 2), [Decimal("0.50"), Decimal("1.50")], "classes 0.5 27, 1.5 27;"),
        (pa.date32(), [date(2024, 1, 2), date(2024, 1, 1)], "classes 2024-01-01 27, 2024-01-02 27;"),
        (pa.bool_(), [False, True], NEGATIVE_POSITIVE),
        (pa.float32(), [0.0, 1.0], NEGATIVE_POSITIVE),
        (pa.dictionary(pa.int8(), pa.string()), ["ham", "spam"], "classes ham 27, spam 27;"),
    ],
)
def test_labels_of_a_typed_column_are_classes_whatever_their_type(plan, tmp_path, kind, values, classes):
    labels = pa.array([values[i % 2] for i in range(60)], kind)
    pq.write_table(pa.table({"text": [text for text, _ in DATA], "label": labels}), tmp_path / "mine.parquet")
    assert classes in plan(tmp_path / "mine.parquet")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "lines.csv",
            "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in DATA),
            "holds JSON Lines; give it a",
        ),
        ("spaced.csv", '"text", "label"\n' + "".join(f'"{t}", "{y}"\n' for t, y in DATA), "remove the spaces after"),
        ("caret.csv", "text^label\n" + PLAIN.replace(",", "^"), "has no text column"),
        ("nul.csv", "text,label\n" + PLAIN.replace("a", "\0"), "holds zero bytes"),
        ("open.csv", "text,label\n" + PLAIN + '"open,1\n' + PLAIN, "cells as the first row has"),
        ("twice.csv", "text,Text,label\n" + "".join(f"{t},{t},{y}\n" for t, y in DATA), "has several columns 'text'"),
        ("object.jsonl", "".join(json.dumps({"text": t, "label": {"id": y}}) + "\n" for t, y in DATA), "is an object"),
        (
            "splits.json",
            json.dumps({"train": [{"text": "a"}, {"text": "b"}], "test": [{"text": "c"}]}),
            "holds no table",
        ),
        ("pairs.json", json.dumps(DATA), "holds no table"),
        ("one.csv", "text,label\n" + "".join(f"{t},pos\n" for t, _ in DATA), "at least two classes are needed"),
        ("measures.csv", "text,label\n" + "".join(f"{t},{i / 7}\n" for i, (t, _) in enumerate(DATA)), "are no classes"),
        ("marked.csv", "\ufeff", "is empty"),
    ],
)
def test_what_is_no_table_of_labelled_texts_is_one_line(refused, tmp_path, name, content, reason):
    (tmp_path / name).write_text(content, encoding="utf-8")
    said = refused(tmp_path / name)
    assert reason in said
    assert len(said) < 400


def test_classes_that_differ_in_case_alone_are_said(plan, tmp_path):
    said = plan(delimited(tmp_path / "mine.csv", labelled(labels=("ham", "spam", "Spam"))))
    assert "classes Spam, spam differ in case alone and are taken for different ones" in said


def test_a_split_in_two_formats_says_which_file_is_not_read(plan, tmp_path):
    delimited(tmp_path / "data" / "train.csv", DATA[:40])
    delimited(tmp_path / "data" / "train.csv.gz", DATA[:40])
    delimited(tmp_path / "data" / "train.tsv", DATA[:40], delimiter="\t")
    delimited(tmp_path / "data" / "dev.csv", DATA[40:])
    said = plan(tmp_path / "data")
    assert "40 train rows, 20 dev of data" in said
    assert "not used: train.csv.gz, train.tsv, of a split that is there in another format" in said


def test_class_folders_have_any_names_and_texts_without_a_class_are_left_out(plan, tmp_path):
    for i, (text, label) in enumerate(DATA):
        split, name = ("train", "test")[i >= 40], ("1 \u2605 (bad)", "5 \u2605")[label]
        file = tmp_path / "reviews" / split / name / f"{i}_7.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "reviews" / "train" / "unsup").mkdir()
    (tmp_path / "reviews" / "train" / "unsup" / "0_0.txt").write_text("of no class")
    (tmp_path / "reviews" / "train" / ".DS_Store").write_bytes(b"\0")
    said = plan(tmp_path / "reviews")
    assert "classes 1 \u2605 (bad) 20, 5 \u2605 20;" in said
    assert "left out its folder unsup, whose texts have no label" in said


@pytest.mark.parametrize(
    ("dev", "reason"),
    [
        ("", "dev.csv: is empty"),
        ("text,label\n", "evaluation split: has no rows"),
        ("text\nfine\n", "has one column (text)"),
        ("text,label\na good one,neutral\na bad one,pos\n", "labels neutral (1) are not among the classes"),
        ("text,label\na good one,-1\na bad one,-1\n", "none of its 2 rows has both a text and a label"),
    ],
)
def test_an_evaluation_split_that_cannot_be_scored_is_one_line(refused, tmp_path, dev, reason):
    delimited(tmp_path / "data" / "train.csv", DATA)
    (tmp_path / "data" / "dev.csv").write_text(dev)
    assert reason in refused(tmp_path / "data")


# ---- scripts


HINDI = (
    "\u092f\u0939 \u092b\u093f\u0932\u094d\u092e \u0905\u091a\u094d\u091b\u0940 \u0939\u0948",
    "\u092f\u0939 \u092b\u093f\u0932\u094d\u092e \u092c\u0941\u0930\u0940 \u0939\u0948",
)
TAMIL = ("\u0b95\u0bbf \u0ba8\u0bb2\u0bcd\u0bb2", "\u0b95\u0bbf \u0bae\u0bcb\u0b9a")
THAI = ("\u0e01\u0e34\u0e19 \u0e14\u0e35", "\u0e01\u0e34\u0e19 \u0e44\u0e21\u0e48")
OTHER_MARK = {"\u0940": "\u093e", "\u0941": "\u0942", "\u0bbf": "\u0bc0", "\u0e34": "\u0e37"}


@pytest.mark.parametrize("texts", [HINDI, TAMIL, THAI])
def test_sentences_that_differ_in_vowel_signs_alone_are_no_leak(plan, tmp_path, texts):
    train = [(f"{text} {i}", label) for i in range(20) for label, text in enumerate(texts)]
    changed = [("".join(OTHER_MARK.get(letter, letter) for letter in text), label) for text, label in train]
    assert all(text != other for (text, _), (other, _) in zip(train, changed, strict=True))
    dev = delimited(tmp_path / "dev.csv", changed)
    said = plan(delimited(tmp_path / "train.csv", train), "--dev-data", dev)
    assert "40 train rows, 40 dev of dev.csv" in said
    assert "repeat another one" not in said


@pytest.mark.parametrize(
    "pair",
    [
        ("the food was \U0001f600, table", "the food was \U0001f621, table"),
        ("rated \u2764 by guest", "rated \u2639 by guest"),
        ("it scored 1.5 of 5 in room", "it scored 15 of 5 in room"),
        ("10,5 points for team", "105 points for team"),
        ("an A+ for pupil", "an A for pupil"),
        ("\u0641\u064a\u0644\u0645 \u062c\u064a\u0651\u062f", "\u0641\u064a\u0644\u0645 \u0633\u064a\u0651\u0626"),
        ("\u8fd9\u90e8\u7535\u5f71\u5f88\u597d", "\u8fd9\u90e8\u7535\u5f71\u5f88\u5dee"),
        ("\U0001f600\U0001f389 \U0001f603", "\U0001f600\U0001f389 \U0001f622"),
    ],
)
def test_sentences_that_differ_in_pictographs_or_numbers_alone_are_different(plan, tmp_path, pair):
    rows = [(f"{text} {i}", label) for i in range(20) for label, text in enumerate(pair)]
    said = plan(delimited(tmp_path / "mine.csv", rows))
    assert "repeat another one" not in said
    assert "36 train rows, 4 hold-out" in said


# ---- predict


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    return export_of(modernbert_folder(folder / "model"), folder / "export", max_length=64)


@pytest.fixture
def label_file(command, export, tmp_path):
    """The rows of `predict --output`, and what it says."""

    def call(source, *words):
        out = tmp_path / "labelled.jsonl"
        code, said, err = command("predict", "--model-dir", export, "--input", source, "--output", out, *words)
        assert code == 0, err
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert all(row["predicted_label"] in ("negative", "positive", None) for row in rows)
        return rows, said

    return call


def test_minus_one_is_negative_where_the_only_other_label_is_one(command, export, tmp_path):
    source = delimited(tmp_path / "mine.csv", [(SENTENCES[0], label) for label in (-1, 1) * 15])
    assert "accuracy 50.00 % (15 of 30; " in command("predict", "--model-dir", export, "--input", source)[1]


def test_names_of_a_class_label_mean_the_same_in_train_and_predict(plan, label_file, tmp_path):
    numbers = [1, 0] * 30
    rows = [(text, number) for (text, _), number in zip(DATA, numbers, strict=True)]
    straight = class_label(tmp_path / "a.parquet", ["negative", "positive"], rows)
    reversed_ = class_label(tmp_path / "b.parquet", ["positive", "negative"], [(text, 1 - y) for text, y in rows])
    assert NEGATIVE_POSITIVE in plan(reversed_)
    scores = [label_file(source, "--overwrite")[1] for source in (straight, reversed_)]
    assert "accuracy" in scores[0]
    assert scores[0].split("accuracy")[1].split("written")[0] == scores[1].split("accuracy")[1].split("written")[0]


@pytest.mark.parametrize("names", [["ham", "spam"], ["World", "Sports"]])
def test_class_names_that_the_model_does_not_know_are_said_and_the_rows_are_labelled(label_file, tmp_path, names):
    rows, said = label_file(class_label(tmp_path / "mine.parquet", names, DATA))
    assert len(rows) == 60
    assert f"60 rows not scored: labels {names[0]} (30), {names[1]} (30) are not among the model's classes" in said


@pytest.mark.parametrize("labels", [("ham", "spam"), (1, 2, 3), ("2024-01-01", "2024-01-02")])
def test_any_label_column_gives_predictions(label_file, tmp_path, labels):
    rows, said = label_file(delimited(tmp_path / "mine.csv", labelled(labels=labels)))
    assert (len(rows), "not scored" in said) == (60, True)
    rows, said = label_file(delimited(tmp_path / "mine.csv", labelled(labels=labels)), "--ignore-labels", "--overwrite")
    assert (len(rows), "scored" in said) == (60, False)


def dictionary(path: Path) -> Path:
    texts = pa.array([text for text, _ in DATA], pa.string()).dictionary_encode()
    pq.write_table(pa.table({"text": texts, "label": [label for _, label in DATA]}), path)
    return path


def marked(path: Path) -> Path:
    write_jsonl(path, reviews(60))
    path.write_text("\ufeff" + path.read_text())
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [("category.parquet", dictionary), ("bom.jsonl", marked), ("plain.csv.gz", lambda path: delimited(path, DATA))],
)
def test_what_train_reads_predict_reads(plan, label_file, tmp_path, name, write):
    source = write(tmp_path / name)
    assert NEGATIVE_POSITIVE in plan(source)
    rows, said = label_file(source)
    assert (len(rows), " of 60; " in said) == (60, True)


@pytest.mark.parametrize("first", [{"text": "no label here"}, {"text": "none either", "label": None}])
def test_a_label_that_comes_later_is_scored_and_the_row_without_is_named(label_file, tmp_path, first):
    source = tmp_path / "late.jsonl"
    records = [first, *({"text": text, "label": label} for text, label in DATA)]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    rows, said = label_file(source)
    assert (len(rows), " of 60; " in said) == (61, True)
    assert "1 row without a label not scored (row 1)" in said


@pytest.mark.parametrize("words", [200_000, 500])
def test_a_text_that_is_cut_is_said(label_file, tmp_path, words):
    (tmp_path / "long.txt").write_text("word " * words + "\nshort\n")
    assert "1 text cut to the model's 64 tokens" in label_file(tmp_path / "long.txt")[1]


def test_several_bad_rows_of_a_file_are_one_line_of_predict(command, export, tmp_path):
    source = delimited(tmp_path / "mine.csv", [*DATA, *[("a", "b", "c")] * 5])
    code, _, err = command("predict", "--model-dir", export, "--input", source, "--output", tmp_path / "out.csv")
    assert (code, "5 rows do not have 2 cells" in err) == (2, True)
    assert not (tmp_path / "out.csv").exists()


def test_a_data_set_of_csv_files_is_scored_by_the_class_names(command, export, tmp_path):
    delimited(tmp_path / "data" / "train.csv", DATA)
    delimited(tmp_path / "data" / "test.csv", [(text, "pos" if y else "neg") for text, y in labelled(20)])
    code, out, err = command("predict", "--model-dir", export, "--data", tmp_path / "data", "--allow-leak")
    assert (code, " of 20; " in out) == (0, True), err


# ---- models


SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 130,
}  # fmt: skip


def bare(family: str, folder: Path) -> Path:
    """An encoder without its tokenizer."""
    AutoModel.from_config(CONFIG_MAPPING[family](vocab_size=600, **SMALL)).save_pretrained(folder)
    return folder


def vocabulary_lost(folder: Path) -> Path:
    bare("bert", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: bare("bert", folder),
        lambda folder: bare("roberta", folder),
        lambda folder: bare("electra", folder),
        vocabulary_lost,
    ],
)  # fmt: skip
def test_a_folder_without_its_vocabulary_is_refused_in_one_line(command, tmp_path, make):
    make(tmp_path / "lost")
    source = delimited(tmp_path / "mine.csv", DATA)
    code, _, err = command("train", "--data", source, "--model", "./lost", "--batch-size", 8, "--dry-run")
    assert code == 2
    assert "error: --model ./lost" in err
    assert "tokenizer" in err


def test_an_export_that_lost_its_tokenizer_is_refused_in_one_line(command, export, tmp_path):
    shutil.copytree(export, tmp_path / "lost")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "lost" / file).unlink()
    code, _, err = command("predict", "--model-dir", tmp_path / "lost", "--text", "a film")
    assert (code, "error: --model-dir " in err, "tokenizer" in err) == (2, True, True)


@pytest.mark.parametrize("kind", ["LORA", "PREFIX_TUNING"])
def test_an_adapter_is_named_as_such_with_how_it_is_merged(command, tmp_path, kind):
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": kind, "base_model_name_or_path": "owner/base"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    source = delimited(tmp_path / "mine.csv", DATA)
    code, _, err = command("train", "--data", source, "--model", "./adapter", "--batch-size", 8, "--dry-run")
    assert (code, "adapter" in err, "merge" in err) == (2, True, True)


def settings(folder: Path, **changes: object) -> None:
    """Change a model's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")


def plain_tokenizer(folder: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer().backend_tokenizer).save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (pickled, "has its weights as a pickle only, which is never loaded; save them as safetensors"),
        (pointer, "is a pointer of Git LFS, not the weights; run git lfs pull"),
        (plain_tokenizer, "has no pad token"),
        (
            lambda folder: settings(folder, model_type="xbert", auto_map={"AutoModel": "m.X"}),
            "code of models is not run",
        ),
        (lambda folder: settings(folder, model_type="llama"), "has a decoder, which generates text"),
        (lambda folder: settings(folder, is_decoder=True), "has a decoder, which generates text"),
        (
            lambda folder: settings(folder, quantization_config={"quant_method": "gptq"}),
            "its weights are quantized (gptq)",
        ),
        (lambda folder: settings(folder, vocab_size=30_000), "300 of the model's 30,000 entries"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_in_words_that_say_why(command, tmp_path, change, reason):
    change(family_folder("bert", tmp_path / "model"))
    source = delimited(tmp_path / "mine.csv", DATA)
    code, _, err = command("train", "--data", source, "--model", "./model", "--batch-size", 8, "--dry-run")
    assert (code, reason in err) == (2, True), err


@pytest.mark.parametrize("family", ["distilbert", "squeezebert", "bert", "xlm", "mpnet"])
def test_every_familys_sizes_are_found_for_the_plan(command, tmp_path, family):
    # BERT's folder comes from a task with several labels a text.
    changes = {"num_labels": 3, "problem_type": "multi_label_classification"} if family == "bert" else {}
    family_folder(family, tmp_path / "model", **changes)
    source = delimited(tmp_path / "mine.csv", DATA)
    code, out, err = command("train", "--data", source, "--model", "./model", "--batch-size", 8, "--dry-run")
    assert (code, "memory about" in out) == (0, True), err


@pytest.mark.parametrize("family", ["ibert", "data2vec-text", "esm", "roberta-prelayernorm", "longformer", "roberta"])
def test_more_tokens_than_positions_are_refused_before_the_start(command, tmp_path, family):
    family_folder(family, tmp_path / "model", pad_token_id=1)
    source = delimited(tmp_path / "mine.csv", DATA)
    code, _, err = command(
        "train", "--data", source, "--model", "./model", "--max-length", 130, "--batch-size", 8, "--dry-run"
    )
    assert (code, "has 128 positions; use 128 or less" in err) == (2, True), err


@pytest.mark.parametrize("names", [("bos_token", "eos_token"), ("cls_token", "sep_token")])
def test_a_tokenizer_needs_no_more_special_tokens_than_its_texts(command, tmp_path, names):
    family_folder("bert", tmp_path / "model")
    backend = toy_tokenizer().backend_tokenizer
    roles = dict(zip(names, ("[CLS]", "[SEP]"), strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", **roles).save_pretrained(
        tmp_path / "model"
    )
    source = delimited(tmp_path / "mine.csv", DATA)
    code, out, err = command("train", "--data", source, "--model", "./model", "--batch-size", 8, "--dry-run")
    assert (code, "nothing was started" in out) == (0, True), err
