"""Hold-outs and subsets: in proportion, the same every time, and sharing nothing with what stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sst2_ray.data.splitting import hold_out, normalize, subset, words_of
from tests.support.reviews import reviews


def columns(rows):
    return [text for text, _ in rows], np.array([label for _, label in rows], dtype=np.int8)


TEXTS, LABELS = columns(reviews(400))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("It's GREAT !", "itsgreat"),
        ("it s great", "itsgreat"),
        ("caf\u00e9", "caf\u00e9"),
        ("cafe\u0301", "caf\u00e9"),
        ("10 out of 10", "10outof10"),
        ("\uff21\uff22", "ab"),
        ("snake_case", "snakecase"),
        (":-)", ":-)"),
    ],
)
def test_normalizing_keeps_letters_and_digits_in_lower_case(text, key):
    assert normalize(text) == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "\u092f\u0939 \u092b\u093f\u0932\u094d\u092e \u0905\u091a\u094d\u091b\u0940 \u0939\u0948",
            "\u092f\u0939 \u092b\u093f\u0932\u094d\u092e \u0905\u091a\u094d\u091b\u093e \u0939\u0948",
        ),
        ("\u0b95\u0bbf", "\u0b95\u0bc0"),
        ("the food was \U0001f600, table 3", "the food was \U0001f621, table 3"),
        ("fine \u2764", "fine \u2639"),
        ("room 3 scored 1.5 of 5", "room 3 scored 15 of 5"),
        ("10,5 Punkte f\u00fcr alle", "105 Punkte f\u00fcr alle"),
        ("A+", "A"),
        ("C++ for you", "C# for you"),
    ],
)
def test_sentences_that_differ_in_marks_pictographs_numbers_or_signs_are_different(one, other):
    assert normalize(one) != normalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cool ?", "cool"),
        ("STRASSE", "stra\u00dfe"),
        ("It's so 'good' ...", "its so good"),
        ("\uff11\uff0e\uff15 stars are few", "1.5 stars are few"),
        ("E\u0301tude in blue", "\u00e9tude in BLUE"),
        ("I spent $ 5 on this film", "I spent 5 on this film"),
    ],
)
def test_sentences_that_differ_in_case_width_or_punctuation_are_the_same(one, other):
    assert normalize(one) == normalize(other)


def test_a_hold_out_has_its_share_of_each_class():
    held = hold_out(TEXTS, LABELS, 0.1, purpose="hold-out")
    assert np.bincount(LABELS[held]).tolist() == [20, 20]


def test_a_hold_out_keeps_an_uneven_ratio_of_classes():
    some = np.flatnonzero((LABELS == 1) | (np.arange(400) % 10 == 1))
    texts, labels = [TEXTS[i] for i in some], LABELS[some]
    held = hold_out(texts, labels, 0.25, purpose="hold-out")
    assert np.bincount(labels[held]).tolist() == [10, 50]


def test_a_hold_out_does_not_depend_on_the_order_of_the_rows():
    backwards = hold_out(TEXTS[::-1], LABELS[::-1], 0.1, purpose="hold-out")
    assert (backwards[::-1] == hold_out(TEXTS, LABELS, 0.1, purpose="hold-out")).all()


def test_hold_outs_for_different_purposes_differ():
    assert (hold_out(TEXTS, LABELS, 0.1, purpose="a") != hold_out(TEXTS, LABELS, 0.1, purpose="b")).any()


def test_duplicates_go_to_the_same_side():
    texts = [*TEXTS, *(text.upper().replace(" .", "!") for text in TEXTS)]
    held = hold_out(texts, np.concatenate([LABELS, LABELS]), 0.2, purpose="hold-out")
    assert held.any()
    assert (held[:400] == held[400:]).all()


def test_phrases_leave_with_their_sentence():
    phrases = [" ".join(text.split()[1:-1]) for text in TEXTS]
    held = hold_out([*TEXTS, *phrases], np.concatenate([LABELS, LABELS]), 0.2, purpose="hold-out")
    assert held.any()
    assert (held[:400] == held[400:]).all()


def test_a_phrase_of_many_sentences_stays():
    texts = [*TEXTS, "of film number"]
    held = hold_out(texts, np.append(LABELS, np.int8(1)), 0.2, purpose="hold-out")
    assert held.any()
    assert not held[-1]


def test_texts_of_thousands_of_words_are_split():
    texts = [f"{i} " * 5_000 for i in range(20)]
    held = hold_out(texts, np.arange(20, dtype=np.int8) % 2, 0.2, purpose="hold-out")
    assert held.sum() == 4


def test_excerpts_leave_with_their_text_however_long_it_is():
    texts = [" ".join(f"w{i}x{j}" for j in range(80)) for i in range(200)]
    excerpts = [" ".join(text.split()[17:37]) for text in texts]
    held = hold_out([*texts, *excerpts], np.arange(400, dtype=np.int8) // 2 % 2, 0.1, purpose="hold-out")
    assert held.sum() == 40
    assert (held[:200] == held[200:]).all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.lists(st.sampled_from("abcde"), min_size=1, max_size=5).map(" ".join), st.integers(0, 1)),
        min_size=1,
        max_size=40,
    ),
    fraction=st.floats(0.05, 0.9),
)
def test_nothing_held_out_stands_in_what_is_kept(rows, fraction):
    texts, labels = columns(rows)
    held = hold_out(texts, labels, fraction, purpose="hold-out")
    kept = [f" {' '.join(words_of(text))} " for text, out in zip(texts, held, strict=True) if not out]
    for text, out in zip(texts, held, strict=True):
        if out:
            assert not any(f" {' '.join(words_of(text))} " in other for other in kept)
    for label in (0, 1):
        assert (labels[held] == label).sum() <= max(1, round(fraction * (labels == label).sum()))


def test_a_subset_has_exactly_its_size_and_ratio():
    chosen = subset(TEXTS, LABELS, 64, purpose="train_rows")
    assert np.bincount(LABELS[chosen]).tolist() == [32, 32]


def test_a_small_subset_has_both_classes_where_one_is_rare():
    labels = np.zeros(400, dtype=np.int8)
    labels[7] = 1
    chosen = subset(TEXTS, labels, 4, purpose="train_rows")
    assert chosen[7]
    assert chosen.sum() == 4


@pytest.mark.parametrize("number", [0, 1])
def test_a_subset_of_a_single_stratum_has_its_size(number):
    """The tenths of a regression's values are one where most rows have the same value."""
    assert subset(TEXTS, np.full(400, number, dtype=np.int16), 10, purpose="train_rows").sum() == 10


def test_a_smaller_subset_is_part_of_a_larger_one():
    small, large = (subset(TEXTS, LABELS, size, purpose="train_rows") for size in (64, 128))
    assert (large | ~small).all()


# ---- more than two classes


def test_a_hold_out_has_its_share_of_each_of_many_classes():
    labels = (np.arange(400) % 8).astype(np.int16)
    held = hold_out(TEXTS, labels, 0.1, purpose="hold-out")
    assert np.bincount(labels[held]).tolist() == [5] * 8


def test_the_only_row_of_a_class_stays():
    labels = np.append(np.zeros(399, dtype=np.int16), np.int16(2))
    labels[:200] = 1
    held = hold_out(TEXTS, labels, 0.5, purpose="hold-out")
    assert not held[-1]


@given(sizes=st.lists(st.integers(1, 60), min_size=3, max_size=9).filter(lambda s: sum(s) > 9), share=st.floats(0.1, 1))
def test_a_subset_of_many_classes_has_its_size_each_class_and_their_ratio(sizes, share):
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int16)
    num_rows = max(len(sizes), round(share * len(labels)))
    num_rows = min(num_rows, len(labels))
    chosen = subset([str(i) for i in range(len(labels))], labels, num_rows, purpose="train_rows")
    found = np.bincount(labels[chosen], minlength=len(sizes))
    assert found.sum() == num_rows
    if num_rows >= len(sizes):
        assert ((found > 0) == (np.array(sizes) > 0)).all()
    assert (np.abs(found - num_rows * np.array(sizes) / len(labels)) < len(sizes)).all()
