"""Labels have one spelling, classes a stated order."""

from __future__ import annotations

import numpy as np
import pytest

from sst2_ray.data.labels import NEGATIVE_POSITIVE, ClassNames, canonical_label, canonical_labels
from sst2_ray.errors import InputError


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0, 0), (1, 1), ("0", 0), ("1", 1), (False, 0), (True, 1), ("False", 0), ("True", 1), ("negative", 0),
        ("positive", 1), ("NEG", 0), ("Pos", 1), (" Positive ", 1), (np.int64(1).item(), 1), (1.0, 1), ("0.0", 0),
        ("LABEL_1", 1), ("label_0", 0),
    ],
)  # fmt: skip
def test_spellings_of_negative_and_positive_are_0_and_1(value, label):
    canonical = canonical_label(value)
    assert canonical is not None
    assert ClassNames().match([canonical])[canonical] == label


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_an_empty_cell_is_no_label(value):
    assert canonical_label(value) is None


@pytest.mark.parametrize("value", [{"a": 1}, '{"id": 0}', b"bytes"])
def test_an_object_is_no_label(value):
    with pytest.raises(InputError, match="is an object, not a label"):
        canonical_label(value)


@pytest.mark.parametrize("value", [[1, 0], ["a"], "[1, 0]", '["toxic", "insult"]'])
def test_several_labels_a_row_are_refused(value):
    with pytest.raises(InputError, match="holds several labels"):
        canonical_label(value)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1", "0"], NEGATIVE_POSITIVE),
        (["pos", "neg"], NEGATIVE_POSITIVE),
        (["POSITIVE", "NEGATIVE", "1"], NEGATIVE_POSITIVE),
        (["yes", "no"], ("no", "yes")),
        (["1", "-1"], ("-1", "1")),
        (["10", "9", "2"], ("2", "9", "10")),
        (["2.5", "10", "2"], ("2", "2.5", "10")),
        (["positive", "neutral", "negative"], ("negative", "neutral", "positive")),
        (["0", "1", "2"], ("0", "1", "2")),
        (["\u00e9tude", "zebra", "Zoo"], ("Zoo", "zebra", "\u00e9tude")),
    ],
)
def test_classes_are_ordered_by_value_or_by_unicode_whatever_the_order_of_the_rows(labels, names):
    assert ClassNames.of_labels(labels).names == names
    assert ClassNames.of_labels(labels[::-1]).names == names


def test_codes_with_leading_zeros_are_names_that_are_told_apart_and_ordered_whatever_the_order_of_the_rows():
    cells = ["007", "042", "7", "7.0", " 00 ", "LABEL_01", "-07", "0", "-0", "0.0"]
    labels = canonical_labels(cells, None)
    assert labels == ["007", "042", "7", "7", "00", "LABEL_01", "-07", "0", "0", "0"]
    for order in (["7", "042", "007"], ["042", "007", "7"], ["007", "7", "042"]):
        assert ClassNames.of_labels(order).names == ("007", "7", "042")


def test_numbers_of_a_class_label_become_its_names_and_minus_one_no_label():
    assert canonical_labels([1, 0, -1, None], ["pos", "neg"]) == ["neg", "pos", None, None]


def test_a_label_that_is_no_class_is_left_out_of_the_match():
    assert ClassNames(("ham", "spam")).match(["ham", "SPAM", "eggs"]) == {"ham": 0, "SPAM": 1}


def test_classes_that_differ_only_in_case_are_told_apart():
    assert ClassNames(("us", "US")).match(["us", "US", "Us"]) == {"us": 0, "US": 1}


def test_minus_one_and_one_stand_for_negative_and_positive_where_there_is_nothing_else():
    assert ClassNames().match(["-1", "1"]) == {"-1": 0, "1": 1}
    assert ClassNames().match(["-1", "0", "1"]) == {"0": 0, "1": 1}


def test_words_for_negative_and_positive_mean_the_same_in_an_order_of_the_users_own_and_numbers_nothing():
    own = ClassNames(("positive", "Negative"))
    assert own.match(["neg", "POS", "false", "true", "negative"]) == {
        "neg": 1, "POS": 0, "false": 1, "true": 0, "negative": 1,
    }  # fmt: skip
    assert own.match(["0", "1", "-1"]) == {}


def test_a_models_classes_have_numbers_where_its_labels_flag_gave_them():
    assert ClassNames.of_model(["ham", "spam"], ["ham=0", "spam=1"]) == ClassNames(("ham", "spam"), numbered=True)
    for flag in ([], ["ham", "spam"], ["eggs=0", "spam=1"]):
        assert ClassNames.of_model(["ham", "spam"], flag) == ClassNames(("ham", "spam"))


def test_names_that_the_data_number_themselves_keep_that_order():
    """MRPC's F1 is of `equivalent`, its class 1, which stands first by Unicode."""
    declared = ("not_equivalent", "equivalent")
    assert ClassNames.of_labels(["equivalent", "not_equivalent"], declared).names == declared
    assert ClassNames.of_labels(["b", "a"], ("c", "b", "a")).names == ("b", "a")
    assert ClassNames.of_labels(["b", "x"], ("b", "a")).names == ("b", "x")
    assert ClassNames.of_labels(["positive", "negative"], ("positive", "negative")).names == NEGATIVE_POSITIVE


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["ham", "spam"], ("ham", "spam")),
        (["spam", "ham"], ("spam", "ham")),
        (["ham=0,spam=1"], ("ham", "spam")),
        (["spam=1,ham=0"], ("ham", "spam")),
        (["low=0", "middle=1", "high=2"], ("low", "middle", "high")),
        (["low,middle,high"], ("low", "middle", "high")),
        (["very good", "a, b"], ("very good", "a, b")),
        (["2.0", "LABEL_1"], ("2", "1")),
        (["Negative", "POSITIVE"], NEGATIVE_POSITIVE),
    ],
)
def test_classes_can_be_fixed_as_a_list_or_with_their_numbers(words, names):
    assert ClassNames.of_flag(words).names == names


def test_numbers_in_a_file_stand_for_the_classes_that_were_given_them():
    numbered = ClassNames.of_flag(["ham=0,spam=1"])
    assert numbered.match(["0", "1"]) == {"0": 0, "1": 1}
    assert numbered.match(["ham", "spam"]) == {"ham": 0, "spam": 1}
    assert ClassNames.of_flag(["ham", "spam"]).match(["0", "1"]) == {}
    # Names come before numbers.
    assert ClassNames.of_flag(["1=0,0=1"]).match(["0", "1"]) == {"1": 0, "0": 1}


@pytest.mark.parametrize(
    "words",
    [["ham=0,spam"], ["ham=0", "spam"], ["ham=1,spam=2"], ["ham=0,spam=0"], ["ham"], ["ham", "ham"], ["ham=0,ham=1"]],
)
def test_labels_that_fix_no_classes_are_refused_in_one_line(words):
    with pytest.raises(InputError, match="must name two classes or more, each once, all or none of them with a number"):
        ClassNames.of_flag(words)
