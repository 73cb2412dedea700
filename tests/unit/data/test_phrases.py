"""Texts inside texts: what is found by hashes is what a search of every run of words finds."""

from __future__ import annotations

import hashlib
from itertools import accumulate

import numpy as np
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


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "ba", "\u00e9", "\U0001f600"]), max_size=9), max_size=40))
def test_every_run_of_words_that_is_a_text_is_found_and_nothing_else(texts):
    assert found_in(keys_of(texts)) == searched(texts)


def test_chunks_change_nothing(monkeypatch):
    texts = [[f"w{i % 7}", f"w{i % 5}", f"w{i % 3}"][: 1 + i % 3] for i in range(100)]
    whole = found_in(keys_of(texts))
    monkeypatch.setattr(phrases, "_CHUNK_TEXTS", 8)
    monkeypatch.setattr(phrases, "_PART_TEXTS", 3)
    assert found_in(keys_of(texts)) == whole == searched(texts)


def test_a_text_of_more_words_is_not_searched_but_found():
    long = [f"w{i}" for i in range(phrases.MAX_WORDS + 1)]
    assert found_in(keys_of([long, ["w1"], ["w1", "w2"]])) == {"".join(long): set(), "w1": set(), "w1w2": {"w1"}}


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
