"""Tokens that were kept are those that tokenizing gives."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import BertConfig, BertModel

from sst2_ray.config.train import TrainConfig
from sst2_ray.data import kept_splits, processes
from sst2_ray.errors import InputError
from sst2_ray.run import tokenizing
from sst2_ray.run.prepare import check
from sst2_ray.run.tokenizing import prepare
from sst2_ray.sweep.start import tokenize_sweep
from tests.support import models
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


def test_what_was_kept_is_found_without_transformers(config):
    prepare(check(config))
    code = (
        "import sys; from sst2_ray.config.train import TrainConfig; from sst2_ray.run.prepare import check\n"
        "from sst2_ray.data import kept_splits; from sst2_ray.run import tokenizing\n"
        "kept_splits.LEAST_BYTES = tokenizing.LEAST_KEPT_ROWS = 0\n"
        f"made = tokenizing.prepare(check(TrainConfig(**{config.to_dict()!r}))); print(len(made.tokens['train']))\n"
        "print([name for name in ('torch', 'transformers', 'ray', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"


def test_small_inputs_are_tokenized_where_the_caller_says(config, monkeypatch):
    called = []

    def call(work):
        called.append(work)
        return pickle.loads(pickle.dumps(work))()

    inputs = check(config)
    made = tokenizing.tokenize(inputs, call)
    assert len(called) == 1
    assert np.array_equal(made.tokens["train"].input_ids, prepare(inputs).tokens["train"].input_ids)
    tokenizing.tokenize(inputs, call)
    assert len(called) == 1
    monkeypatch.setenv("SST2_RAY_KEEP_DATA", "0")
    monkeypatch.setattr(tokenizing, "MANY_ROWS", 10)
    tokenizing.tokenize(inputs, call)
    assert len(called) == 1


def test_models_of_a_sweep_share_tokens_and_keep_their_own_sizes(tmp_path):
    small, large = models.sbert_folder(tmp_path / "small"), models.sbert_folder(tmp_path / "large")
    BertModel(BertConfig.from_pretrained(large, num_hidden_layers=3)).save_pretrained(large)
    data = write_csv(tmp_path / "mine.csv", reviews(60))
    checked = {
        name: check(TrainConfig(model=str(folder), data=str(data), batch_size=8))
        for name, folder in (("small", small), ("large", large))
    }
    made = tokenize_sweep(checked)
    assert made["small"].tokens["train"] is made["large"].tokens["train"]
    assert made["small"].size.parameters < made["large"].size.parameters
