"""Tokens that were kept are those that tokenizing gives."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.data import kept_splits, processes
from sst2_ray.errors import InputError
from sst2_ray.run import tokenizing
from sst2_ray.run.prepare import check
from sst2_ray.run.tokenizing import prepare
from tests.support.reviews import reviews, write_csv


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own, in which data of any size are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_splits, "LEAST_BYTES", 0)
    monkeypatch.setattr(tokenizing, "LEAST_KEPT_ROWS", 0)
    return tmp_path / "cache" / f"sst2-ray-{os.getuid()}" / "data"


@pytest.fixture
def config(tmp_path):
    data = write_csv(tmp_path / "mine.csv", reviews(400))
    return TrainConfig(model="modernbert-mini", data=str(data), batch_size=8, selection_fraction=0.1, max_length=9)


def same(one, other):
    assert (one.tokenizer_json, one.vocab_size, list(one.tokens)) == (
        other.tokenizer_json, other.vocab_size, list(other.tokens),
    )  # fmt: skip
    for name, tokens in one.tokens.items():
        for part in ("input_ids", "offsets", "labels", "row_ids"):
            mine, others = getattr(tokens, part), getattr(other.tokens[name], part)
            assert np.array_equal(mine, others)
            assert mine.dtype == others.dtype
        assert tokens.num_truncated == other.tokens[name].num_truncated
    return True


def test_they_are_those_of_memory_and_found_again(config, cache, monkeypatch):
    monkeypatch.setenv("SST2_RAY_KEEP_DATA", "0")
    in_memory = prepare(check(config))
    monkeypatch.delenv("SST2_RAY_KEEP_DATA")
    assert not cache.exists()
    first = prepare(check(config))
    assert same(first, in_memory)
    assert first.tokens["train"].num_truncated
    assert len(list(cache.iterdir())) == 2

    def load(*_, **__):
        pytest.fail("tokenized again")

    monkeypatch.setattr(tokenizing.tokenizers, "load_tokenizer", load)
    assert same(prepare(check(config)), first)


def test_several_processes_give_the_same(config, monkeypatch):
    first = prepare(check(config))
    monkeypatch.setenv("SST2_RAY_KEEP_DATA", "0")
    monkeypatch.setattr(processes, "ROWS_A_PROCESS", 10)
    monkeypatch.setattr(processes, "PIECE", 7)
    monkeypatch.setattr(processes, "num_usable_cpus", lambda: 2)
    assert same(prepare(check(config)), first)


def test_another_length_and_another_model_are_tokenized(config, cache):
    prepare(check(config))
    before = len(list(cache.iterdir()))
    prepare(check(TrainConfig(**{**config.to_dict(), "max_length": 12})))
    assert len(list(cache.iterdir())) > before


@pytest.mark.parametrize("damage", ["short", "gone", "told"])
def test_damaged_files_are_made_anew(config, cache, damage):
    first = prepare(check(config))
    (ids,) = cache.glob("*/0/ids.i32")
    if damage == "short":
        os.truncate(ids, 40)
    elif damage == "gone":
        ids.unlink()
    else:
        (ids.parent / "told.json").write_text("{}")
    again = prepare(check(config))
    assert same(again, prepare(check(config)))
    assert again.vocab_size == first.vocab_size


def test_a_language_that_the_tokenizer_does_not_know_is_refused_every_time(config, cache, monkeypatch):
    def refuse(*_, **__):
        raise InputError("--model: most tokens are unknown")

    monkeypatch.setattr(tokenizing.tokenizers, "check_known", refuse)
    for _ in range(2):
        with pytest.raises(InputError, match="unknown"):
            prepare(check(config))
    assert not list(Path(cache).glob("new-*"))
