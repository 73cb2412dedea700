"""Labels are 0 and 1 in any of their usual spellings, and nothing else is guessed."""

from __future__ import annotations

import numpy as np
import pytest

from sst2_ray.data.rows import make_rows, require_two_classes
from sst2_ray.errors import InputError


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0, 0), (1, 1), ("0", 0), ("1", 1), (False, 0), (True, 1), ("False", 0), ("True", 1), ("negative", 0),
        ("positive", 1), ("NEG", 0), ("Pos", 1), (" Positive ", 1), (np.int64(1).item(), 1),
    ],
)  # fmt: skip
def test_usual_labels_are_understood(value, label):
    assert make_rows(["fine"], [value], "here").labels.tolist() == [label]


@pytest.mark.parametrize("value", [2, -1, "2", "good", "", None, 0.5, 1.0, float("nan"), [1], "1.0"])
def test_other_labels_are_refused_with_value_and_row(value):
    with pytest.raises(InputError, match=r"here: label .* in row 2: must be 0 or 1, negative or positive") as refused:
        make_rows(["fine", "bad"], [1, value], "here")
    assert repr(value) in str(refused.value)


def test_white_space_around_a_sentence_is_dropped():
    assert make_rows([" fine  "], [1], "here").texts == ["fine"]


def test_taken_rows_keep_their_ids():
    taken = make_rows(["a", "b", "c"], [1, 0, 1], "here").take(np.array([True, False, True]))
    assert taken.texts == ["a", "c"]
    assert taken.labels.tolist() == [1, 1]
    assert taken.row_ids.tolist() == [0, 2]


@pytest.mark.parametrize(("label", "said"), [(1, r"positive \(1\)"), (0, r"negative \(0\)")])
def test_a_single_class_is_refused(label, said):
    with pytest.raises(InputError, match=f"here: all 2 rows are {said}; both labels are needed"):
        require_two_classes(make_rows(["a", "b"], [label, label], "here"), "here")


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="here: has no rows"):
        require_two_classes(make_rows([], [], "here"), "here")
