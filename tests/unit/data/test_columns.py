"""Texts in Arrow's form behave as a sequence of strings, or of pairs."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sst2_ray.data import columns
from sst2_ray.data.columns import TextColumn, as_column, pieces_of

SINGLES = ["a film", None, "", "schön 🎬", "the end"]
PAIRS = [("a film", "a play"), None, ("", "b"), ("schön", "🎬")]


@pytest.fixture(params=[SINGLES, PAIRS], ids=["singles", "pairs"])
def texts(request):
    return request.param


@pytest.fixture
def column(texts):
    return TextColumn.of([texts[:2], [], texts[2:]])


def test_it_is_the_sequence_that_it_was_made_of(column, texts):
    assert list(column) == texts
    assert column == texts
    assert texts == column
    assert column != texts[:-1]
    assert column != [*texts[:-1], "another"]
    assert [column[place] for place in range(len(texts))] == texts
    assert column[-1] == texts[-1]


@pytest.mark.parametrize("part", [slice(1, 3), slice(None), slice(-2, None), slice(None, None, -1), slice(9, 12)])
def test_a_slice_is_a_list(column, texts, part):
    assert column[part] == texts[part]


@pytest.mark.parametrize("place", [5, -6, 100])
def test_a_place_that_there_is_not(place):
    with pytest.raises(IndexError):
        TextColumn.of([SINGLES])[place]


def test_rows_are_taken_in_the_order_asked_for(column, texts):
    places = np.array([3, 0, 0])
    assert column.take(places) == [texts[3], texts[0], texts[0]]
    assert as_column(texts).take(places) == column.take(places)
    assert as_column(column) is column


def test_it_can_be_sent_to_workers(column, texts):
    assert list(pickle.loads(pickle.dumps(column))) == texts


@pytest.mark.parametrize("size", [1, 2, 100])
def test_it_is_read_in_pieces(column, texts, monkeypatch, size):
    monkeypatch.setattr(columns, "PIECE", size)
    assert list(column) == texts
    assert [(start, list(piece)) for start, piece in pieces_of(column)] == [
        (start, texts[start : start + size]) for start in range(0, len(texts), size)
    ]


def test_pairs_of_which_a_part_is_missing_altogether():
    column = TextColumn.of([[None, None], [("a", "b")], [None]])
    assert list(column) == [None, None, ("a", "b"), None]


def test_no_texts():
    column = TextColumn.of([])
    assert (len(column), list(column), column[:3]) == (0, [], [])
    assert repr(TextColumn.of([SINGLES])) == "TextColumn(['a film', None, ''], ..., 5 texts)"


def test_a_part_shares_the_memory_of_the_whole():
    column = TextColumn.of([["a", "b", "c"]])
    (part,) = column.arrays(1, 3)
    assert part.to_pylist() == ["b", "c"]
    assert part.buffers()[2].address == column.columns[0].chunk(0).buffers()[2].address


def test_a_part_is_sent_without_the_whole():
    whole = TextColumn.of([[f"text number {number}" for number in range(20_000)]])
    part = TextColumn.joined([whole.arrays(0, 10), whole.arrays(10, 20)])
    sent = pickle.dumps(part)
    assert len(sent) < 4000
    assert list(pickle.loads(sent)) == whole[:20]


def test_the_bytes_of_every_text(column, texts):
    singles = [text for text in texts if text is not None]
    sides = [singles] if isinstance(singles[0], str) else list(zip(*singles, strict=True))
    assert sum(column.byte_lengths()) == sum(len(text.encode()) for side in sides for text in side)
    assert len(column.byte_lengths()) == len(texts) * len(sides)
    assert len(TextColumn.of([]).byte_lengths()) == 0
