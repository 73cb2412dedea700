"""The searcher that Tune asks for trials: it hands out what the planner plans, as far as the budget goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Any

from ray.tune.search import Searcher

from sst2_ray.errors import FailureClass
from sst2_ray.records import Status
from sst2_ray.sweep.budget import Budget, Durations, SweepClock
from sst2_ray.sweep.configurations import Unit
from sst2_ray.sweep.driver import Session
from sst2_ray.sweep.queue import FINISHED, Outcome, Planner

__all__ = ["Session", "SweepSearcher", "tune_values"]


def tune_values(unit: Unit) -> dict[str, Any]:
    """A trial as Tune carries it and as trackers show it: plain values."""
    return {"trial_id": unit.trial_id, "is_first_seed": unit.is_first_seed, "seed": unit.config.seed, **unit.point}


class SweepSearcher(Searcher):
    """Called from Tune's loop, in one thread. `ended_by` says why it handed out no more: budget, stop, or None.

    begun: trials that an earlier session has begun: what they take now is not what a trial takes. on_change: called after a
    trial was handed out or has ended.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        budget: Budget,
        clock: SweepClock,
        durations: Durations,
        begun: Container[str],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.planner, self.budget, self.clock, self.durations = planner, budget, clock, durations
        self.begun, self.on_change = begun, on_change
        self.ended_by: str | None = None
        self._units: dict[str, Unit] = {}
        self._started: dict[str, float] = {}

    def stop(self) -> None:
        """Hand out nothing more."""
        self.ended_by = self.ended_by or "stop"

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Tune's question for the next trial; None: not now."""
        if self.ended_by is not None:
            return str(Searcher.FINISHED)
        unit = self.planner.peek()
        if unit is None:
            return None
        if unit == FINISHED:
            return str(Searcher.FINISHED)
        assert isinstance(unit, Unit)
        if not self.budget.allows(self.clock.seconds, self.durations.predict(unit.config), self.running_left()):
            if self.planner.running:
                return None  # what runs may end sooner than foretold, and leave room
            self.ended_by = "budget"
            return str(Searcher.FINISHED)
        self._units[trial_id] = self.planner.take()
        self._started[unit.trial_id] = time.monotonic()
        self.on_change()
        return tune_values(unit)

    def running_left(self) -> list[float]:
        """Seconds that each running trial is expected to need still, where that can be told."""
        left = []
        for trial_id, unit in list(self.planner.running.items()):
            whole = self.durations.predict(unit.config)
            if whole is not None:
                left.append(max(0.0, whole - self.elapsed(trial_id)))
        return left

    def elapsed(self, trial_id: str) -> float:
        """Seconds since a running trial was started in this session."""
        return time.monotonic() - self._started.get(trial_id, time.monotonic())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        unit = self._units.pop(trial_id)
        status = (result or {}).get("status")
        if error or result is None or status is None:
            # Its driver died, and again when Tune started it again.
            outcome = Outcome(status=Status.FAILED, score=None, failure_class=FailureClass.WORKER_LOST)
        else:
            outcome = Outcome(status=status, score=result["score"], failure_class=result["failure_class"])
        if outcome.status == Status.SUCCEEDED and unit.trial_id not in self.begun:
            self.durations.add(unit.config, self.elapsed(unit.trial_id))
        self.planner.ended(unit.trial_id, outcome)
        self.on_change()

    # Tune pickles its searcher into the experiment's folder. A sweep is resumed from the results table: nothing goes there.

    def __reduce__(self) -> tuple[Any, ...]:
        return Searcher, ()

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass
