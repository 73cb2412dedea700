"""Files become rows exactly, or one line says why not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sst2_ray.data.files import find_files, local_copy
from sst2_ray.data.labels import ClassNames
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.readers import read_files
from sst2_ray.data.rows import Rows
from sst2_ray.errors import InputError
from tests.support.reviews import reviews, write_csv, write_jsonl, write_parquet, write_tsv

ROWS = reviews(6)


def rows_of(*paths: Path, **options: str) -> Rows:
    return read_files(list(paths), ReadOptions(**options)).rows(ClassNames())[0]


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(InputError) as refused:
        rows_of(path, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.tsv", write_tsv), ("a.csv", write_csv), ("a.jsonl", write_jsonl), ("a.parquet", write_parquet)],
)
def test_every_format_gives_the_same_rows(tmp_path, name, write):
    rows = rows_of(write(tmp_path / name, ROWS))
    assert rows.texts == [text for text, _ in ROWS]
    assert rows.labels.tolist() == [label for _, label in ROWS]
    assert rows.labels.dtype == "int16"
    assert rows.row_ids.tolist() == list(range(6))
    assert rows.row_ids.dtype == "int64"


def test_several_files_are_numbered_through(tmp_path):
    paths = [write_tsv(tmp_path / "1.tsv", ROWS), write_tsv(tmp_path / "2.tsv", reviews(4, topic="play"))]
    rows = rows_of(*paths)
    assert len(rows) == 10
    assert rows.row_ids.tolist() == list(range(10))


def test_quotation_marks_of_a_tsv_are_characters(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [('" unfinished', 1), ('a "fine" mess', 0)])
    assert rows_of(path).texts == ['" unfinished', 'a "fine" mess']


def test_quoted_csv_cells_may_hold_commas_quotes_and_line_breaks(tmp_path):
    texts = ["one, two", 'say "yes"', "first\nsecond"]
    path = write_csv(tmp_path / "a.csv", [(text, i % 2) for i, text in enumerate(texts)])
    assert rows_of(path).texts == texts


@pytest.mark.parametrize("write", [write_csv, write_tsv])
def test_words_that_look_like_other_types_stay_sentences(tmp_path, write):
    texts = ["null", "NaN", "1917", "true", "2001-01-01"]
    suffix = "csv" if write is write_csv else "tsv"
    path = write(tmp_path / f"a.{suffix}", [(text, i % 2) for i, text in enumerate(texts)])
    assert rows_of(path).texts == texts


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"\xef\xbb\xbfsentence\tlabel\nfine\t1\n")
    assert rows_of(path).texts == ["fine"]


def test_carriage_returns_are_no_part_of_a_label(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"sentence\tlabel\r\nfine\t1\r\nbad\t0\r\n")
    assert rows_of(path).labels.tolist() == [1, 0]


def test_named_columns_are_used(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", ROWS, names=("review", "opinion"))
    assert len(rows_of(path, text="review", label="opinion")) == 6


def test_class_labels_are_read_by_their_names(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    data = datasets.Dataset.from_dict({"text": ["fine", "bad"], "label": [0, 1]}, features=features)
    data.to_parquet(tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet").labels.tolist() == [1, 0]


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.touch()
    assert "is empty" in refusal(path)


def test_a_file_with_one_column_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\nfine\nbad\n")
    assert "has one column (text)" in refusal(path)


def test_a_missing_column_is_refused_with_the_columns_there_are(tmp_path):
    path = write_csv(tmp_path / "a.csv", ROWS, header="review,label")
    message = refusal(path)
    assert "'sentence' or 'text'" in message
    assert "it has review, label" in message
    assert "--text-column" in message


def test_a_column_that_was_named_and_is_not_there_is_refused(tmp_path):
    message = refusal(write_csv(tmp_path / "a.csv", ROWS), label="stars")
    assert "no label column 'stars'" in message


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,label\nfine,1,0\n")
    assert "several columns 'label'" in refusal(path)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_a_file_that_is_not_utf8_is_refused_with_the_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes('text,label\nfine,1\n"caf\u00e9",0\n'.encode("latin1"))
    message = refusal(path)
    assert "line 3 is not UTF-8 (byte 0xe9)" in message
    assert message.endswith("pass --encoding cp1252 if it is that")


def test_a_row_with_too_many_cells_is_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("sentence\tlabel\nfine\t1\nbad\t0\textra\n")
    message = refusal(path)
    assert "1 row does not have 2 cells as the first row has: 3 in row 2 ('bad\\t0\\textra')" in message


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_damaged_file_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text("{ this is neither\n")
    assert ("is not valid PARQUET" if name.endswith("parquet") else "line 1 is not a JSON object") in refusal(path)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "a.xlsx"
    path.write_text("x")
    message = refusal(path)
    assert ".xlsx is not a known format" in message
    assert ".parquet" in message


def test_files_of_different_formats_are_read_together(tmp_path):
    paths = [write_csv(tmp_path / "a.csv", ROWS), write_tsv(tmp_path / "b.tsv", ROWS)]
    assert rows_of(*paths).texts == [text for text, _ in ROWS] * 2


@pytest.mark.parametrize("text", ["", "   ", None])
def test_a_row_without_text_is_left_out_with_its_number(tmp_path, text):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(["fine", text]), "label": [1, 0]}), path)
    rows, remark = read_files([path], ReadOptions()).rows(ClassNames())
    assert rows.texts == ["fine"]
    assert remark == f"{path}: left out 1 row: 1 without a text (row 2)"


def test_a_pattern_finds_its_files_sorted(tmp_path):
    for name in ("b.csv", "a.csv", "c.tsv"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files(str(tmp_path / "*.csv"), "--data")] == ["a.csv", "b.csv"]


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--dev-data .*/none\.csv: no such file or folder"):
        find_files(str(tmp_path / "none.csv"), "--dev-data")


def test_a_uri_is_copied_with_its_splits_alone(tmp_path):
    for name in ("train.tsv", "dev.tsv", "huge.bin"):
        (tmp_path / "there" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "there" / name).write_text(name)
    here = local_copy(f"file://{tmp_path}/there", tmp_path / "scratch", "--data")
    assert sorted(path.name for path in here.iterdir()) == ["dev.tsv", "train.tsv"]


def test_a_uri_of_a_file_is_copied(tmp_path):
    write_tsv(tmp_path / "a.tsv", ROWS)
    assert local_copy(f"file://{tmp_path}/a.tsv", tmp_path / "scratch", "--data").read_text().startswith("sentence")


@pytest.mark.parametrize("uri", ["file:///nowhere/at/all.tsv", "gopher://host/a.tsv"])
def test_a_uri_that_cannot_be_opened_is_refused(tmp_path, uri):
    with pytest.raises(InputError, match=f"--data {uri}"):
        local_copy(uri, tmp_path / "scratch", "--data")
