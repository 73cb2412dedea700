"""What runs next: a plain state machine that Tune's searcher asks, and that a resumed sweep fills from the results table.

First every configuration on the first seed; then those that survived (with no scheduler: all) on the other seeds, so that
rankings compare equal numbers of seeds and no lucky seed decides.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.errors import FailureClass
from sst2_ray.records import Status
from sst2_ray.sweep.configurations import Point, Unit, planned_points, units_of

FINISHED: Literal["finished"] = "finished"
MIN_SURVIVORS = 2
"""Of a model: the best needs a runner-up to be compared with."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a trial."""

    status: str

    score: float | None
    """What configurations are ranked by: accuracy on the held-out part of train, or on dev, at the best epoch."""
    failure_class: str | None = None

    @property
    def is_over(self) -> bool:
        """Not to be run again, neither now nor when the sweep is resumed."""
        if self.status == Status.FAILED:
            return self.failure_class not in PASSING
        return self.status in (Status.SUCCEEDED, Status.EARLY_STOPPED)


PASSING = frozenset(
    {
        FailureClass.WORKER_LOST,
        FailureClass.PREEMPTED,
        FailureClass.HUNG,
        FailureClass.NOT_PLACEABLE,
        FailureClass.STORAGE_ERROR,
        FailureClass.USER_STOP,
    },
)
"""Failure classes whose cause may have gone away when a sweep is resumed."""


class Proposer(Protocol):
    """A search that learns (optuna): asked for one configuration after the other, told what each came to."""

    def ask(self, index: int) -> Point: ...
    def tell(self, index: int, score: float | None) -> None: ...


def most_trials(config: SweepConfig, num_points: int) -> int:
    """Of a whole sweep of so many configurations, over all models; where a scheduler decides, the most there can be."""
    if config.scheduler == "none":
        return num_points * config.num_seeds
    per_model = math.ceil(num_points / len(config.models))
    return num_points + most_survivors(config, per_model) * len(config.models) * (config.num_seeds - 1)


def most_survivors(config: SweepConfig, num_points: int) -> int:
    """Of a model's configurations, the most that go on to the other seeds."""
    if config.scheduler != "asha":
        return num_points
    return min(num_points, max(MIN_SURVIVORS, math.ceil(num_points / config.reduction_factor)))


class Planner:
    """Hands out trials one by one. `past`: outcomes by trial id from earlier sessions. `proposer`: for a search whose
    configurations are not known beforehand."""

    def __init__(
        self, config: SweepConfig, past: Mapping[str, Outcome] | None = None, proposer: Proposer | None = None
    ) -> None:
        self.config, self.proposer = config, proposer
        self.past = {trial_id: outcome for trial_id, outcome in (past or {}).items() if outcome.is_over}
        self.outcomes: dict[str, Outcome] = {}
        self.points: list[Point] = [] if proposer else planned_points(config)
        self.running: dict[str, Unit] = {}
        self._units: dict[str, Unit] = {}
        self._queue: deque[Unit] = deque()
        self._index_of: dict[str, int] = {}
        self._opened_other_seeds = False
        if not proposer:
            self._enqueue(units_of(config, point)[0] for point in self.points)
            if config.scheduler == "none":
                self._open_other_seeds(self.points)

    # ---- asked by Tune's searcher

    def peek(self) -> Unit | Literal["finished"] | None:
        """The next trial without handing it out; None: nothing until one that runs has ended."""
        while not self._queue:
            if self.proposer and len(self.points) < self.config.sample_count:
                self._propose(self.proposer)
            elif self._opened_other_seeds:
                return None if self.running else FINISHED
            elif self.running:
                return None
            else:
                self._open_other_seeds(self.survivors())
        return self._queue[0]

    def take(self) -> Unit:
        """Hand out what `peek` showed."""
        unit = self._queue.popleft()
        self.running[unit.trial_id] = unit
        return unit

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        self.running.pop(trial_id)
        self._close(trial_id, outcome)

    # ---- what is known

    @property
    def units(self) -> list[Unit]:
        """Every trial that was planned so far, whatever became of it."""
        return list(self._units.values())

    @property
    def waiting(self) -> list[Unit]:
        return list(self._queue)

    @property
    def num_expected(self) -> int:
        """Trials of the whole sweep; where a scheduler decides, the most there can be."""
        if self._opened_other_seeds:
            return len(self._units)
        return most_trials(self.config, self.config.sample_count if self.proposer else len(self.points))

    def survivors(self) -> list[Point]:
        """Configurations that go on to the other seeds, in their order: all of them without a scheduler; with one, of each
        model those that were not stopped, at most one in `reduction_factor` of them for asha."""
        if self.config.scheduler == "none":
            return self.points
        kept: list[int] = []
        for model in self.config.models:
            mine = [i for i, point in enumerate(self.points) if point["model"] == model]
            finished = [i for i in mine if self._first_outcome(i).status == "succeeded"]
            finished.sort(key=lambda i: -(self._first_outcome(i).score or 0.0))
            kept += finished[: most_survivors(self.config, len(mine))]
        return [point for i, point in enumerate(self.points) if i in kept]

    def _first_outcome(self, index: int) -> Outcome:
        unit = units_of(self.config, self.points[index])[0]
        return self.outcomes.get(unit.trial_id, Outcome(status=Status.LOST, score=None))

    # ---- the queue

    def _propose(self, proposer: Proposer) -> None:
        index = len(self.points)
        point = proposer.ask(index)
        self.points.append(point)
        first = units_of(self.config, point)[0]
        if first.trial_id in self._units:  # drawn before: nothing new to run, but the search learns the same again
            known = self.outcomes.get(first.trial_id)
            proposer.tell(index, _worth(known) if known else None)
            return
        self._index_of[first.trial_id] = index
        self._enqueue([first])

    def _open_other_seeds(self, points: Iterable[Point]) -> None:
        self._opened_other_seeds = True
        chosen = list(points)
        for position in range(1, self.config.num_seeds):
            self._enqueue(units_of(self.config, point)[position] for point in chosen)

    def _enqueue(self, units: Iterable[Unit]) -> None:
        for unit in units:
            if unit.trial_id in self._units:
                continue
            self._units[unit.trial_id] = unit
            done = self.past.get(unit.trial_id)
            if done is None:
                self._queue.append(unit)
            else:
                self._close(unit.trial_id, done)

    def _close(self, trial_id: str, outcome: Outcome) -> None:
        self.outcomes[trial_id] = outcome
        index = self._index_of.get(trial_id)
        if index is not None and self.proposer:
            self.proposer.tell(index, _worth(outcome))


def _worth(outcome: Outcome) -> float | None:
    """What a search is to learn: a configuration that fails for good is the worst there is. None: it is not known, as
    what it failed of may have had another cause."""
    return 0.0 if outcome.status == Status.FAILED and outcome.is_over else outcome.score


BudgetCheck = Callable[[Unit], bool]
"""Whether a trial may start."""
