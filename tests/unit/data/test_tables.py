"""Files that programs and people leave behind give the same rows, whatever their form."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.files import local_copy
from sst2_ray.data.labels import ClassNames
from sst2_ray.data.load import load_splits
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.readers import read_files
from sst2_ray.data.rows import Cells, Splits
from sst2_ray.errors import InputError
from sst2_ray.predict.inputs import open_input
from sst2_ray.storage import Storage
from tests.support.object_store import BUCKET, object_store_here
from tests.support.reviews import reviews, write_csv, write_glue_folder, write_parquet

ROWS = reviews(40)
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]


def read(path: Path, **options) -> Cells:
    return read_files([path], ReadOptions(**options))


def pairs(cells: Cells) -> list[tuple[str, int]]:
    rows, _ = cells.rows(ClassNames())
    return list(zip(rows.texts, rows.labels.tolist(), strict=True))


def table(path: Path, rows=ROWS, header=("text", "label"), encoding="utf-8", **form) -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, **{"lineterminator": "\n", **form})
        if header:
            writer.writerow(header)
        writer.writerows(rows)
    return path


def splits_of(path: Path, **fields) -> Splits:
    return load_splits(TrainConfig(data=str(path), batch_size=8, **fields))


# ---- delimiters and headers


@pytest.mark.parametrize(
    ("name", "delimiter", "note"),
    [
        ("a.csv", ",", None),
        ("a.csv", ";", "a.csv: columns are divided by ';'"),
        ("a.csv", "|", "a.csv: columns are divided by '|'"),
        ("a.csv", "\t", "a.csv: columns are divided by a tab"),
        ("a.tsv", "\t", None),
        ("a.tab", "\t", None),
        ("a.txt", "\t", None),
        ("a.tsv", ",", "a.tsv: columns are divided by ','"),
    ],
)
def test_the_delimiter_is_found_and_said_where_it_is_not_the_usual_one(tmp_path, name, delimiter, note):
    cells = read(table(tmp_path / name, delimiter=delimiter))
    assert pairs(cells) == ROWS
    assert cells.notes == ((note,) if note else ())


@pytest.mark.parametrize("delimiter", ["^", "~", "\x1f"])
def test_any_delimiter_can_be_given(tmp_path, delimiter):
    assert pairs(read(table(tmp_path / "a.csv", delimiter=delimiter), delimiter=delimiter)) == ROWS


def test_a_comma_inside_a_text_is_no_delimiter_of_a_file_with_semicolons(tmp_path):
    rows = [(f"{text}, and so on", label) for text, label in ROWS]
    assert pairs(read(table(tmp_path / "a.csv", rows, delimiter=";"))) == rows


@pytest.mark.parametrize("header", [("Text", "Label"), (" text ", " label"), ("SENTENCE", "label"), ("label ", "TEXT")])
def test_names_of_columns_are_trimmed_and_matched_whatever_their_case(tmp_path, header):
    rows = [row[::-1] for row in ROWS] if header[1] == "TEXT" else ROWS
    assert pairs(read(table(tmp_path / "a.csv", rows, header))) == ROWS


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("name", "delimiter"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_file_without_a_header_of_two_columns_is_read_and_said(tmp_path, name, delimiter, flip):
    rows = [row[::-1] for row in ROWS] if flip else ROWS
    cells = read(table(tmp_path / name, rows, (), delimiter=delimiter))
    assert pairs(cells) == ROWS
    text = 2 if flip else 1
    assert cells.notes == (f"{name}: no header; column {text} is the text, column {3 - text} the label",)


def test_columns_of_a_file_without_a_header_are_named_by_number(tmp_path):
    path = table(tmp_path / "cola.tsv", [("gj04", label, "", text) for text, label in ROWS], (), delimiter="\t")
    assert pairs(read(path, text="4", label="2")) == ROWS
    with pytest.raises(InputError, match="has no text column 'sentence' or 'text'; it has 1, 2, 3, 4"):
        read(path)


def test_a_header_of_unknown_names_is_a_header(tmp_path):
    assert pairs(read(table(tmp_path / "a.csv", header=("review", "stars")), text="review", label="Stars")) == ROWS


def test_a_header_can_be_denied(tmp_path):
    path = table(tmp_path / "a.csv", [("text", 1), ("other", 0)], ())
    assert [text for text, _ in pairs(read(path, header="no"))] == ["text", "other"]


# ---- quotation marks


QUOTED = [(f'he said "{text}", then\tleft', label) for text, label in ROWS]


def test_a_tsv_that_pandas_wrote_gives_the_texts_of_the_csv(tmp_path):
    tsv, comma = table(tmp_path / "a.tsv", QUOTED, delimiter="\t"), table(tmp_path / "a.csv", QUOTED)
    assert pairs(read(tsv)) == pairs(read(comma)) == QUOTED
    assert "quotation marks enclose cells" in read(tsv).notes[0]


def test_a_tsv_with_every_cell_quoted_is_read_as_quoted(tmp_path):
    assert pairs(read(table(tmp_path / "a.tsv", delimiter="\t", quoting=csv.QUOTE_ALL))) == ROWS


@pytest.mark.parametrize("text", ['" unfinished', 'a "fine" mess', '"whole"', 'ends with "'])
def test_quotation_marks_of_a_tsv_as_glue_writes_it_are_characters(tmp_path, text):
    path = tmp_path / "a.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in [(text, 1), *ROWS]))
    cells = read(path)
    assert pairs(cells) == [(text, 1), *ROWS]
    assert "quotation marks are characters" in cells.notes[0]


def test_the_decision_about_quotation_marks_can_be_overridden(tmp_path):
    path = table(tmp_path / "a.tsv", [('say "yes"', 1), ("no", 0)], delimiter="\t")
    assert pairs(read(path))[0][0] == 'say "yes"'
    assert pairs(read(path, quoting="none"))[0][0] == '"say ""yes"""'


# ---- encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding, name):
    rows = [(f"{text} caf\u00e9 \U0001f600", label) for text, label in ROWS]
    assert (
        pairs(read(table(tmp_path / name, rows, encoding=encoding, delimiter="\t" if "tsv" in name else ","))) == rows
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_lines_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS), encoding=encoding)
    assert pairs(read(path)) == ROWS


@pytest.mark.parametrize(
    ("encoding", "text"), [("cp1252", "it\u2019s \u201cso\u201d"), ("shift-jis", "\u6620\u753b"), ("cp1251", "\u0444")]
)
def test_an_encoding_can_be_given(tmp_path, encoding, text):
    rows = [(f"{text} {t}", label) for t, label in ROWS]
    path = table(tmp_path / "a.csv", rows, encoding=encoding)
    assert pairs(read(path, encoding=encoding)) == rows


def test_bytes_of_a_windows_file_get_the_right_advice(tmp_path):
    path = table(tmp_path / "a.csv", [("it\u2019s so", 1)], encoding="cp1252")
    with pytest.raises(InputError, match=r"line 2 is not UTF-8 \(byte 0x92\); pass --encoding cp1252 if it is that"):
        read(path)


def test_utf16_without_its_mark_and_unknown_encodings_are_refused_in_one_line(tmp_path):
    path = table(tmp_path / "a.csv", encoding="utf-16-le")
    with pytest.raises(InputError, match="pass --encoding utf-16-le"):
        read(path)
    assert pairs(read(path, encoding="utf-16-le")) == ROWS
    with pytest.raises(InputError, match="--encoding utf-9: Python knows no such encoding"):
        read(path, encoding="utf-9")


# ---- compression


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv.bz2", "a.jsonl.zst", "a.CSV.GZ"])
def test_compressed_files_are_read(tmp_path, name):
    inner = Path(name.lower()).stem
    plain = tmp_path / inner
    if inner.endswith("jsonl"):
        plain.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS))
    else:
        table(plain, delimiter="\t" if inner.endswith("tsv") else ",")
    content = plain.read_bytes()
    if name.endswith("zst"):
        with pa.CompressedOutputStream(str(tmp_path / name), "zstd") as stream:
            stream.write(content)
    else:
        (tmp_path / name).write_bytes((gzip if name.lower().endswith("gz") else bz2).compress(content))
    assert pairs(read(tmp_path / name)) == ROWS


def test_a_damaged_archive_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(b"text,label\nfine,1\n")
    with pytest.raises(InputError, match=r"a\.csv\.gz: cannot be read"):
        read(tmp_path / "a.csv.gz")


# ---- JSON


@pytest.mark.parametrize(
    "document",
    [
        [{"text": t, "label": y} for t, y in ROWS],
        {"text": {str(i): t for i, t in enumerate(TEXTS)}, "label": {str(i): y for i, y in enumerate(LABELS)}},
        {"text": TEXTS, "label": LABELS},
        {"columns": ["text", "label"], "index": list(range(40)), "data": [list(row) for row in ROWS]},
        {"schema": {}, "data": [{"text": t, "label": y} for t, y in ROWS]},
    ],
    ids=["records", "pandas", "lists", "split", "table"],
)
def test_json_documents_of_several_forms_are_read(tmp_path, document):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document, indent=1))
    assert pairs(read(path)) == ROWS


def test_json_lines_in_a_json_file_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS))
    assert pairs(read(path)) == ROWS


@pytest.mark.parametrize("content", ['{"a": 1}', "[1, 2]", "3", '{"text": ["a"], "label": [1, 0]}', "{broken"])
def test_json_that_holds_no_table_is_refused_in_a_short_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content + " " * 100_000)
    with pytest.raises(InputError) as refused:
        read(path)
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_a_key_that_comes_later_is_a_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "no label here"}\n' + "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS)
    )
    rows, remark = read(path).rows(ClassNames())
    assert rows.texts == TEXTS
    assert remark is not None
    assert remark.endswith("left out 1 row: 1 without a label (row 1)")


def test_bad_json_lines_are_counted_and_three_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n' + "{\n" * 3 + '{"text": "b \\ud83d", "label": 0}\n')
    with pytest.raises(InputError, match=r"4 rows cannot be read: line 2 .*, line 3 .*, line 4 is not .*, \.\.\."):
        read(path)


def test_lists_and_objects_are_no_texts_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    values = [["several"], {"a": "text"}, "fine", 1917, None]
    path.write_text(
        "".join(json.dumps({"text": value, "words": "x", "label": i % 2}) + "\n" for i, value in enumerate(values))
    )
    with pytest.raises(
        InputError, match=r"'text' holds a list or an object, not text, in 2 rows; name another with --te"
    ):
        read(path)
    with pytest.raises(InputError, match="'text' holds a list or an object"), open_input(str(path), ReadOptions()):
        pass
    assert len(read(path, text="words").texts) == 5
    path.write_text("".join(json.dumps({"text": value, "label": 1}) + "\n" for value in values[2:]))
    assert list(read(path).texts) == ["fine", "1917", None]


def test_half_a_character_is_refused_with_its_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b \\ud83d", "label": 0}\n')
    with pytest.raises(InputError, match="1 rows cannot be read: row 2 holds half a character"):
        read(path)


# ---- typed files


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_texts_of_every_string_type_are_read(tmp_path, kind, name):
    texts = (
        pa.array(TEXTS, pa.string()).cast(kind)
        if not pa.types.is_dictionary(kind)
        else pa.array(TEXTS).dictionary_encode()
    )
    made = pa.table({"text": texts, "label": LABELS})
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(made, path)
    elif name.endswith("feather"):
        feather.write_feather(made, str(path))
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
            writer.write_table(made)
    assert pairs(read(path)) == ROWS


@pytest.mark.parametrize(
    "labels",
    [pa.array(LABELS, pa.uint8()), pa.array([float(y) for y in LABELS]), pa.array([bool(y) for y in LABELS]),
     pa.array([f"LABEL_{y}" for y in LABELS]).dictionary_encode(), pa.array([str(y) for y in LABELS], pa.large_string())],
)  # fmt: skip
def test_labels_of_every_type_are_read(tmp_path, labels):
    pq.write_table(pa.table({"text": TEXTS, "label": labels}), tmp_path / "a.parquet")
    assert pairs(read(tmp_path / "a.parquet")) == ROWS


def test_several_labels_a_row_are_refused_by_name(tmp_path):
    pq.write_table(pa.table({"text": TEXTS, "label": [[0, 1]] * 40}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="holds several labels; only one label a row"):
        read(tmp_path / "a.parquet")


def test_a_column_cannot_be_text_and_label(tmp_path):
    path = write_csv(tmp_path / "a.csv", ROWS)
    for options in ({"text": "label"}, {"text": "text", "label": "text"}):
        with pytest.raises(InputError, match="cannot be both the text and the label"):
            read(path, **options)


# ---- splits


@pytest.mark.parametrize(
    ("dev", "said"),
    [
        ("dev", None),
        ("validation", None),
        ("valid", "valid"),
        ("val", "val"),
        ("test", "test"),
        ("Dev", None),
        ("VAL", "val"),
    ],
)
def test_a_folder_has_its_evaluation_split_under_any_usual_name(tmp_path, dev, said):
    write_csv(tmp_path / "Train.csv", ROWS)
    write_csv(tmp_path / f"{dev}.csv", reviews(20, topic="play"))
    splits = splits_of(tmp_path)
    assert (len(splits.train), len(splits.dev)) == (40, 20)
    assert splits.notes == ((f"evaluated on its split {said} ({dev}.csv)",) if said else ())


def test_the_first_of_several_evaluation_splits_counts_and_the_others_are_said(tmp_path):
    for name, topic in (("train", "film"), ("test", "opera"), ("validation", "play")):
        write_csv(tmp_path / f"{name}.csv", reviews(20, topic=topic))
    splits = splits_of(tmp_path)
    assert "play" in splits.dev.texts[0]
    assert splits.notes == ("not used: its split test",)


def test_splits_are_found_below_data_and_in_folders(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    write_parquet(tmp_path / "data" / "train" / "0.parquet", ROWS)
    write_parquet(tmp_path / "data" / "test-00000-of-00001-8a3f.parquet", reviews(20, topic="play"))
    splits = splits_of(tmp_path)
    assert (len(splits.train), len(splits.dev)) == (40, 20)


def test_a_split_column_divides_one_file(tmp_path):
    rows = [(*row, "train") for row in ROWS] + [(*row, "Validation") for row in reviews(20, topic="play")]
    splits = splits_of(table(tmp_path / "a.csv", rows, ("text", "label", "Split")))
    assert (len(splits.train), len(splits.dev)) == (40, 20)
    assert splits.notes == ("divided by its split column: train (40) and validation (20)",)


def test_a_split_column_can_be_named_and_must_name_both_splits(tmp_path):
    rows = [(*row, "train") for row in ROWS] + [(*row, "later") for row in reviews(20, topic="play")]
    path = table(tmp_path / "a.csv", rows, ("text", "label", "part"))
    assert len(splits_of(path).train) + len(splits_of(path).dev) == 60
    with pytest.raises(InputError, match=r"its split column holds train \(40\), later \(20\); it must hold train and"):
        splits_of(path, split_column="part")


@pytest.mark.parametrize("options", [{}, {"split_column": "split"}])
@pytest.mark.parametrize(
    ("odd", "said"), [("", "not used: 1 row without a split"), ("unused", "not used: rows of its split unused (1)")]
)
def test_an_odd_cell_of_a_split_column_leaves_its_row_out_and_is_said(tmp_path, odd, said, options):
    rows = [(*row, "train") for row in ROWS] + [(*row, "dev") for row in reviews(20, topic="play")]
    splits = splits_of(table(tmp_path / "a.csv", [*rows, ("odd", 1, odd)], ("text", "label", "split")), **options)
    assert (splits.train.texts, len(splits.dev)) == (TEXTS, 20)
    assert splits.notes == ("divided by its split column: train (40) and dev (20)", said)


@pytest.mark.parametrize("other", ["", "later"])
def test_a_split_column_that_divides_nothing_is_said_and_refused_where_it_is_asked_for(tmp_path, other):
    rows = [(*row, "train") for row in ROWS] + [(*row, other) for row in reviews(20, topic="play")]
    path = table(tmp_path / "a.csv", rows, ("text", "label", "split"))
    splits = splits_of(path)
    assert len(splits.train) + len(splits.dev) == 60
    held = f"which holds train (40), {other or 'no name'} (20); to divide the rows it must hold train and one of dev"
    assert f"not used: its split column, {held}" in splits.notes[0]
    with pytest.raises(InputError, match="its split column holds train"):
        splits_of(path, split_column="split")


@pytest.mark.parametrize("options", [{}, {"split_column": "split"}])
def test_a_split_column_of_training_rows_alone_divides_nothing_and_other_files_need_none(tmp_path, options):
    rows = [(*row, "train", f"user {i // 4}") for i, row in enumerate(ROWS)]
    path = table(tmp_path / "a.csv", rows, ("text", "label", "split", "user"))
    dev = table(tmp_path / "b.csv", reviews(20, topic="play"))
    splits = splits_of(path, dev_data=str(dev), group_column="user", selection_fraction=0.2, **options)
    assert (len(splits.train), len(splits.selection), len(splits.dev)) == (32, 8, 20)
    assert any(note.startswith("not used: its split column, which holds train (40)") for note in splits.notes)


def test_rows_are_named_by_their_place_in_the_file_whatever_their_split(tmp_path):
    rows = [(*row, "train") for row in ROWS] + [(*row, "dev") for row in reviews(20, topic="play")]
    rows[41] = ("", 1, "dev")
    path = table(tmp_path / "a.csv", rows, ("text", "label", "split"))
    assert f"{path}: left out 1 row: 1 without a text (row 42)" in splits_of(path).notes


@pytest.mark.parametrize("name", ["train", "data/train"])
def test_a_split_column_of_data_that_are_divided_already_is_refused(tmp_path, name):
    rows = [(*row, "train") for row in ROWS]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for split in (name, name.replace("train", "dev")):
        table(tmp_path / f"{split}.csv", rows, ("text", "label", "part"))
    with pytest.raises(InputError, match=f"--split-column part: is for a single file; {tmp_path} is none"):
        splits_of(tmp_path, split_column="part")


def test_what_datasets_saved_is_read(tmp_path):
    import datasets

    names = datasets.ClassLabel(names=["positive", "negative"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})

    def made(rows):
        values = {"text": [t for t, _ in rows], "label": [1 - y for _, y in rows]}
        return datasets.Dataset.from_dict(values, features=features)

    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": made(ROWS), "test": made(reviews(20, topic="play"))}).save_to_disk(tmp_path / "both")
    made(ROWS).save_to_disk(tmp_path / "one")
    splits = splits_of(tmp_path / "both")
    assert splits.train.texts == TEXTS
    assert splits.train.labels.tolist() == LABELS
    assert len(splits.dev) == 20
    whole = splits_of(tmp_path / "one", holdout_fraction=0.25)
    assert (len(whole.train), len(whole.dev)) == (30, 10)


def test_class_folders_are_read(tmp_path):
    for split, topic in (("train", "film"), ("test", "play")):
        for number, (text, label) in enumerate(reviews(20, topic=topic)):
            path = tmp_path / split / ("pos" if label else "neg") / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\nsecond line\n")
            path.with_name(f"._{path.name}").write_bytes(b"\0\5")  # as macOS leaves them
    splits = splits_of(tmp_path)
    assert (len(splits.train), len(splits.dev)) == (20, 20)
    assert sorted(splits.train.labels.tolist()) == [0] * 10 + [1] * 10
    assert all(text.endswith("\nsecond line") for text in splits.train.texts)
    assert len(splits_of(tmp_path / "train", holdout_fraction=0.2).dev) == 4


@pytest.mark.parametrize("name", ["aclImdb", "aclImdb/train"])
def test_the_folder_of_imdb_is_read_as_it_was_downloaded(tmp_path, name):
    for split, topic in (("train", "film"), ("test", "play")):
        for number, (text, label) in enumerate(reviews(20, topic=topic)):
            path = tmp_path / "aclImdb" / split / ("pos" if label else "neg") / f"{number}_7.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for beside in ("urls_pos.txt", "urls_neg.txt", "labeledBow.feat"):
            (tmp_path / "aclImdb" / split / beside).write_text("http://www.imdb.com/title/tt0064354/usercomments\n")
    (tmp_path / "aclImdb" / "imdbEr.txt").write_text("0.0490972013402\n")
    splits = splits_of(tmp_path / name)
    assert len(splits.train) + len(splits.dev) == (20 if name.endswith("train") else 40)
    assert splits.classes.names == ("negative", "positive")


def test_text_files_beside_one_folder_of_them_are_the_input(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("a.txt", "b.txt", "old/a.txt"):
        (tmp_path / name).write_text("a fine film\n")
    with open_input(str(tmp_path), ReadOptions()) as files:
        assert files.num_rows == 2


# ---- object stores


def test_what_an_object_store_holds_is_read_as_from_a_disk(tmp_path):
    with object_store_here() as env:
        storage = Storage.open(f"s3://{BUCKET}/data")
        for name in ("reviews.csv", "testimonials.csv", "my file.csv", "_hidden.csv"):
            storage.write_bytes(name, b"text,label\na fine film,1\n")
        host = env["AWS_ENDPOINT_URL"].removeprefix("http://")
        options = f"?scheme=http&endpoint_override={host}"
        for place, rows in (("", 3), ("/", 3), ("/*s.csv", 2), ("/my%20file.csv", 1), (f"/reviews.csv{options}", 1)):
            with open_input(f"s3://{BUCKET}/data{place}", ReadOptions()) as files:
                assert files.num_rows == rows, place
        secret = f"s3://KEY:SECRET@{BUCKET}/nowhere.csv{options}"
        with pytest.raises(InputError, match="no such file or folder") as caught:
            local_copy(secret, tmp_path, "--input")
        assert "SECRET" not in str(caught.value)


def test_a_split_s_file_goes_before_its_backup(tmp_path):
    for name, topic in (("train", "film"), ("train.bak", "old film"), ("dev", "play")):
        write_csv(tmp_path / f"{name}.csv", reviews(20, topic=topic))
    assert not any("old film" in text for text in splits_of(tmp_path).train.texts)


@pytest.mark.parametrize("delimiter", [";;", "§", '"'])
def test_a_delimiter_that_is_none_is_one_line(tmp_path, delimiter):
    (tmp_path / "in.csv").write_text("text;;label\nfine;;1\n")
    with pytest.raises(InputError, match="must be one ASCII character, or tab"):
        splits_of(tmp_path / "in.csv", delimiter=delimiter)


@pytest.mark.parametrize("mark", ["\u00e9", '"'])
def test_a_stated_separator_that_is_none_is_one_line(tmp_path, mark):
    (tmp_path / "in.csv").write_text(f"sep={mark}\ntext,label\n" + "".join(f"{text},{y}\n" for text, y in ROWS))
    with pytest.raises(InputError, match=rf"in\.csv: sep={mark} states no delimiter that can be read; give it with"):
        splits_of(tmp_path / "in.csv")
    assert pairs(read(tmp_path / "in.csv", delimiter=",")) == ROWS


def test_a_file_with_nothing_but_its_separator_is_empty(tmp_path):
    (tmp_path / "in.csv").write_text("sep=;\n")
    with pytest.raises(InputError, match="is empty"):
        splits_of(tmp_path / "in.csv")


# ---- nothing silent


def test_blank_and_unlabelled_rows_are_in_the_notes(tmp_path):
    rows = [*ROWS, ("", 1), ("words without a label", ""), ("   ", 0)]
    path = table(tmp_path / "a.csv", rows)
    assert (
        f"{path}: left out 3 rows: 2 without a text (rows 41, 43), 1 without a label (row 42)" in splits_of(path).notes
    )


def test_columns_that_are_not_used_are_in_the_notes(tmp_path):
    path = table(tmp_path / "a.csv", [(i, *row, "x") for i, row in enumerate(ROWS)], ("id", "text", "label", "source"))
    assert splits_of(path).notes == ("a.csv: 1 column not used: source",)


def test_rows_of_another_width_are_counted_and_three_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "fine,1\nbad, really,0\n" * 5)
    with pytest.raises(InputError) as refused:
        read(path)
    assert str(refused.value).startswith(
        f"{path}: 5 rows do not have 2 cells as the first row has: 3 in row 2 ('bad, really,0'), 3 in row 4"
    )
    assert str(refused.value).count("in row") == 3


def test_100_000_rows_of_csv_are_read_within_two_seconds(tmp_path):
    import time

    path = table(tmp_path / "a.csv", [(f"{text} {i}", label) for i in range(2_500) for text, label in ROWS])
    start = time.perf_counter()
    cells = read(path)
    assert time.perf_counter() - start < 2
    assert len(cells.texts) == 100_000


def test_a_glue_folder_has_no_notes(tmp_path):
    assert splits_of(write_glue_folder(tmp_path, ROWS, reviews(20, topic="play"))).notes == ()
