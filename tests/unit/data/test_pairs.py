"""Pairs of texts: read from two columns, the same when both texts are, held out and compared as one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.data.splitting import hold_out, normalize
from sst2_ray.data.texts import singles
from sst2_ray.errors import InputError

COLUMNS = ("sentence1", "sentence2")


def rows(count=80, topic="film"):
    """Pairs of which each text stands in several, no two pairs alike; labels in turn."""
    return [(f"the {topic} of year {i // 4}", f"it was number {i % 4} of {i // 8}", i % 2) for i in range(count)]


def write(path, data, names=(*COLUMNS, "label")):
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*data, strict=True)), strict=True))), path)
        return path
    divider = "," if path.suffix == ".csv" else "\t"
    path.write_text("".join(divider.join(map(str, row)) + "\n" for row in (names, *data)))
    return path


def load(data, **values):
    return load_splits(TrainConfig(data=str(data), batch_size=4, **{"text_columns": COLUMNS, **values}))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv", "pairs.parquet"])
def test_two_columns_are_the_texts_of_a_pair(tmp_path, name):
    splits = load(write(tmp_path / name, rows()))
    assert splits.text_columns == COLUMNS
    found = {
        (*text, label)
        for part in (splits.train, splits.dev)
        for text, label in zip(part.texts, part.labels, strict=True)
    }
    assert found == set(rows())


def test_columns_of_other_names_and_without_a_header_can_be_named(tmp_path):
    named = write(tmp_path / "nli.csv", rows(), ("Premise", "hypothesis ", "label"))
    assert load(named, text_columns=("premise", "hypothesis")).text_columns == ("Premise", "hypothesis")
    bare = write(tmp_path / "bare.tsv", rows()[1:], tuple(map(str, rows()[0])))
    splits = load(bare, text_columns=("1", "2"), label_column="3", header="no")
    assert len(splits.train) + len(splits.dev) == 80


def test_a_pair_of_which_one_text_is_missing_is_left_out_and_counted(tmp_path):
    data = [*rows(), ("only the first", "", 1), ("  ", "only the second", 0)]
    splits = load(write(tmp_path / "pairs.csv", data))
    assert len(splits.train) + len(splits.dev) == 80
    assert any("left out 2 rows: 2 without a text (rows 81, 82)" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("A fine film .", "It is fine"), ("a FINE film", "it is fine !"), True),
        (("ab", "c"), ("a", "bc"), False),
        (("one", "two"), ("two", "one"), False),
        (("one", "two"), "one two", False),
        (("one", "!"), ("one", "?"), False),
    ],
)
def test_pairs_are_the_same_when_both_texts_are(one, other, same):
    assert (normalize(one) == normalize(other)) == same


def test_a_hold_out_of_pairs_has_its_share_and_keeps_equal_pairs_together():
    texts = [(a, b) for a, b, _ in rows()] + [(a.upper(), b + " .") for a, b, _ in rows()]
    labels = np.array([label for *_, label in rows()] * 2, dtype=np.int16)
    held = hold_out(texts, labels, 0.2, purpose="hold-out")
    assert np.bincount(labels[held]).tolist() == [16, 16]
    assert (held[:80] == held[80:]).all()


def test_a_pair_of_the_training_split_in_dev_is_a_leak_and_a_shared_text_is_none(tmp_path):
    train = write(tmp_path / "train.csv", rows())
    mixed = [(a, b, label) for (a, _, _), (_, b, label) in zip(rows(), rows(topic="play")[9:], strict=False)]
    load(train, dev_data=str(write(tmp_path / "mixed.csv", mixed)))
    leaked = str(write(tmp_path / "leaked.csv", [*mixed, *rows()[:3]]))
    with pytest.raises(InputError, match=r"3 of 74 evaluation pairs also stand in .*\(\"the film of year 0 \| it was"):
        load(train, dev_data=leaked)
    splits = load(train, dev_data=leaked, drop_leaks=True)
    assert len(splits.train) == 77
    assert any("left out 3 of 80 training rows" in note for note in splits.notes)


def test_pairs_that_repeat_and_contradict_are_in_the_notes(tmp_path):
    data = [*rows(), *rows()[:3], (*rows()[5][:2], 0)]
    notes = load(write(tmp_path / "pairs.csv", data)).notes
    assert any("4 of 84 training pairs repeat another one" in n and "1 pairs carry several labels" in n for n in notes)


def test_a_pair_has_another_fingerprint_than_its_texts_joined(tmp_path):
    pairs = load(write(tmp_path / "pairs.tsv", rows()), dev_rows=4, train_rows=8)
    again = load(write(tmp_path / "again.tsv", rows()), dev_rows=4, train_rows=8)
    swapped = load(write(tmp_path / "swapped.tsv", rows()), dev_rows=4, train_rows=8, text_columns=COLUMNS[::-1])
    assert pairs.fingerprint == again.fingerprint != swapped.fingerprint


def test_singles_lists_every_text():
    assert singles([("a", "b"), "c"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"text_columns": ("sentence1",)}, "text_columns='sentence1': takes two columns"),
        ({"text_columns": ("a", "b", "c")}, r"text_columns=\('a', 'b', 'c'\): takes two columns"),
        ({"text_columns": ("a", "A")}, r"text_columns=\('a', 'A'\): takes two columns"),
        (
            {"text_column": "sentence1"},
            r"text_column='sentence1', text_columns=\('sentence1', 'sentence2'\): give one of",
        ),
        (
            {"text_columns": ("sentence1", "other")},
            "has no text column 'other'; it has sentence1, sentence2, label; name the",
        ),
        ({"text_columns": ("sentence1", "label")}, "column 'label' cannot be both the text and the label"),
        ({"text_columns": ()}, r"name one with --text-column \(the two of a pair with --text-columns\)"),
    ],
)
def test_columns_that_are_no_pair_are_refused_in_one_line(tmp_path, values, reason):
    with pytest.raises(InputError, match=reason) as refused:
        load(write(tmp_path / "pairs.csv", rows()), **values)
    assert "\n" not in str(refused.value)
