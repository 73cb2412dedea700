"""Texts inside texts: what is found by hashes is what a search of every run of words finds."""

from __future__ import annotations

import hashlib
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sst2_ray.config.train import TrainConfig
from sst2_ray.data import phrases
from sst2_ray.data.load import load_splits
from sst2_ray.data.phrases import Keys, contained
from sst2_ray.data.splitting import hold_out


def keys_of(texts: list[list[str]]) -> Keys:
    """The keys of different texts, given as their words."""
    by_name = {"".join(words): words for words in texts if words}
    return Keys(
        names=list(by_name),
        num_words=np.array([len(words) for words in by_name.values()], dtype=np.int64),
        word_lengths=np.array([len(word) for words in by_name.values() for word in words], dtype=np.int64),
    )


def found_in(keys: Keys) -> dict[str, set[str]]:
    offsets, members = contained(keys)
    return {
        name: {keys.names[k] for k in members[offsets[i] : offsets[i + 1]].tolist()}
        for i, name in enumerate(keys.names)
    }


def searched(texts: list[list[str]]) -> dict[str, set[str]]:
    names = {"".join(words) for words in texts if words}
    by_name = {"".join(words): words for words in texts if words}
    runs = {name: {p for i in range(len(w)) for p in accumulate(w[i:])} for name, w in by_name.items()}
    return {name: (found & names) - {name} for name, found in runs.items()}


TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "ab", "ba", "\u00e9", "\U0001f600"]), max_size=9), max_size=40)


@given(TEXTS)
def test_every_run_of_words_that_is_a_text_is_found_and_nothing_else(texts):
    assert found_in(keys_of(texts)) == searched(texts)


def test_chunks_change_nothing(monkeypatch):
    texts = [[f"w{i % 7}", f"w{i % 5}", f"w{i % 3}"][: 1 + i % 3] for i in range(100)]
    whole = found_in(keys_of(texts))
    monkeypatch.setattr(phrases, "_CHUNK_TEXTS", 8)
    monkeypatch.setattr(phrases, "_PART_TEXTS", 3)
    assert found_in(keys_of(texts)) == whole == searched(texts)


@given(TEXTS, st.integers(1, 4), st.integers(1, 5), st.sampled_from([1, 5, 2**18]))
def test_long_texts_are_searched_by_first_letters_with_the_same_outcome(texts, max_words, first_letters, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phrases, "MAX_WORDS", max_words)
        patch.setattr(phrases, "FIRST_LETTERS", min(first_letters, max_words + 1))  # a long text has as many
        patch.setattr(phrases, "_PART_PHRASES", part)
        assert found_in(keys_of(texts)) == searched(texts)


def test_a_text_of_many_words_holds_its_excerpts_long_and_short():
    long = [f"w{i}" for i in range(20 * phrases.MAX_WORDS)]
    excerpts = [["w1"], ["w1", "w2"], long[70:90], long[3:], long[:-1], [*long[5:80], "other"]]
    found = found_in(keys_of([long, *excerpts]))
    assert found["".join(long)] == {"".join(words) for words in excerpts[:-1]}
    assert found["".join(long[3:])] == {"".join(long[70:90])}


def test_progress_is_told_to_the_last_text(monkeypatch):
    monkeypatch.setattr(phrases, "_CHUNK_TEXTS", 3)
    told = []
    contained(keys_of([[f"w{i}"] for i in range(7)]), told.append)
    assert told == [3, 6, 7]


def test_the_hold_outs_of_sst2_are_those_of_every_version(sst2_folder):
    rows = load_splits(TrainConfig(data=str(sst2_folder), batch_size=1)).train
    for purpose, fraction, size, digest in (
        ("hold-out", 0.1, 6735, "4c319c35b742"),
        ("selection", 0.05, 3367, "68aa1210bed2"),
    ):
        held = hold_out(rows.texts, rows.labels, fraction, purpose=purpose)
        assert (int(held.sum()), hashlib.sha256(np.packbits(held)).hexdigest()[:12]) == (size, digest)
