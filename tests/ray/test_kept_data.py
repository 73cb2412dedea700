"""A run whose tokens lie in files learns what a run with tokens in memory learns."""

from __future__ import annotations

import pytest

from sst2_ray.data import kept_splits
from sst2_ray.run import tokenizing
from tests.support.runs import Runs

pytestmark = pytest.mark.usefixtures("two_cpus")


def test_tokens_from_files_train_the_same_model(runs: Runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    in_memory = runs.train("in-memory", epochs=1)
    assert not list(tmp_path.rglob("ids.i32"))
    monkeypatch.setattr(kept_splits, "LEAST_BYTES", 0)
    monkeypatch.setattr(tokenizing, "LEAST_KEPT_ROWS", 0)
    monkeypatch.setattr(tokenizing, "MANY_ROWS", 0)
    for name in ("first", "again"):
        result = runs.train(name, epochs=1)
        assert result.best_dev_accuracy == in_memory.best_dev_accuracy
        assert runs.rows("epochs", name)[0]["dev_loss"] == runs.rows("epochs", "in-memory")[0]["dev_loss"]
        weights = [next((runs.folder / "runs" / one / "model").rglob("*.safetensors")) for one in ("in-memory", name)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert len(list(tmp_path.rglob("ids.i32"))) == 2  # train and dev, once
