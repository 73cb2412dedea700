"""Cells become rows: without white space around, numbered by their place, counted where they are left out."""

from __future__ import annotations

import numpy as np
import pytest

from sst2_ray.data.labels import ClassNames, canonical_labels
from sst2_ray.data.rows import Cells, require_classes
from sst2_ray.errors import InputError


def cells(texts, labels):
    return Cells(texts=texts, labels=canonical_labels(labels, None), where="here")


def rows(texts, labels):
    return cells(texts, labels).rows(ClassNames())[0]


def test_white_space_around_a_sentence_is_dropped():
    assert rows([" fine  "], [1]).texts == ["fine"]


def test_taken_rows_keep_their_ids():
    taken = rows(["a", "b", "c"], [1, 0, 1]).take(np.array([True, False, True]))
    assert taken.texts == ["a", "c"]
    assert taken.labels.tolist() == [1, 1]
    assert taken.row_ids.tolist() == [0, 2]


def test_rows_without_a_text_or_a_label_are_left_out_counted_and_named():
    found, remark = cells(["a", "", "b", "  ", None, "c", "d"], [1, 0, None, 0, 1, "", 0]).rows(ClassNames())
    assert (found.texts, found.row_ids.tolist()) == (["a", "d"], [0, 6])
    assert remark == "here: left out 5 rows: 3 without a text (rows 2, 4, 5), 2 without a label (rows 3, 6)"


def test_three_rows_of_many_are_named():
    _, remark = cells(["a", *[""] * 9], [1] * 10).rows(ClassNames())
    assert remark == "here: left out 9 rows: 9 without a text (rows 2, 3, 4, ...)"


def test_nothing_is_said_where_nothing_is_left_out():
    assert cells(["a", "b"], [0, 1]).rows(ClassNames())[1] is None


def test_labels_that_are_no_classes_are_refused_with_their_counts():
    with pytest.raises(InputError, match=r"here: labels maybe \(2\), 3 \(1\) are not among the classes negative, pos"):
        rows(["a", "b", "c", "d"], ["maybe", "maybe", 3, 1])


def test_a_split_without_any_label_is_refused():
    with pytest.raises(InputError, match="here: none of its 2 rows has both a text and a label"):
        rows(["a", "b"], [-1, -1])


@pytest.mark.parametrize(("label", "said"), [(1, r"positive \(1\)"), (0, r"negative \(0\)")])
def test_a_single_class_is_refused(label, said):
    with pytest.raises(InputError, match=f"here: all 2 rows are {said}; at least two classes are needed"):
        require_classes(rows(["a", "b"], [label, label]), ClassNames(), "here")


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="here: has no rows"):
        require_classes(rows([], []), ClassNames(), "here")
