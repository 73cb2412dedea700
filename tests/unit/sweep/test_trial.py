"""A trial's driver: what fails in it becomes an outcome of its class."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.records import TrialRecord
from sst2_ray.sweep import trial as trial_room
from sst2_ray.sweep.queue import Outcome, TrialQueue
from tests.support.records import trial


class Attempts:
    """Attempts of a trial that never began one."""

    def __init__(self) -> None:
        self.lost: list[tuple[str, str]] = []

    def close_orphans(self, *_: object) -> int:
        return 0

    def add_lost(self, message: str, failure_class: str) -> None:
        self.lost.append((message, failure_class))


def outcome_of(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], TrialRecord], drop: Callable[[TrialRecord], None]
) -> tuple[Outcome, Attempts]:
    spec = TrialQueue(SweepConfig(base=TrainConfig(name="s"), num_seeds=1)).take()
    attempts = Attempts()
    storage = SimpleNamespace(write_json=lambda *_: None)
    made = SimpleNamespace(
        run=run, drop_checkpoints=drop, run_storage=storage, attempts=attempts, shared=SimpleNamespace(inputs=None)
    )
    monkeypatch.setattr(trial_room, "trial_of", lambda *_, **__: made)
    monkeypatch.setattr(trial_room, "run_description", lambda _: {})
    monkeypatch.setattr(trial_room, "prepare_driver", lambda: None)
    context = cast(Any, SimpleNamespace(environment={}, asks_scheduler=False))
    return trial_room.run_trial(cast(Any, {"spec": spec}), context=context)["outcome"], attempts


def out_of_reach(*_: object) -> Any:
    raise OSError("When writing: AWS Error NETWORK_CONNECTION")


def test_checkpoints_that_cannot_be_deleted_change_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    found, attempts = outcome_of(monkeypatch, lambda: trial(best_dev_accuracy=0.9), out_of_reach)
    assert (found.status, found.score, attempts.lost) == ("succeeded", 0.9, [])


def test_storage_out_of_reach_is_no_bug_and_the_trial_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    found, attempts = outcome_of(monkeypatch, out_of_reach, lambda _: None)
    assert (found.status, found.failure_class, found.is_over) == ("failed", "storage_error", False)
    assert attempts.lost == [("OSError: When writing: AWS Error NETWORK_CONNECTION", "storage_error")]
