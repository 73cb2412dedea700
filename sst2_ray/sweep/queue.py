"""The trials still to run, in order: a plain state machine that Tune's searcher asks and the results table refills.

Every configuration runs on the first seed first; then those that survived (without a scheduler: all) on the other seeds, so
that a sweep that ends early has compared all of them. Configurations are ranked by their mean, however many seeds each has
(`results.analysis.ranking.rank`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from sst2_ray.config.metrics import metric_of, oriented, worst
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.errors import FailureClass
from sst2_ray.records import Status, TrialRecord
from sst2_ray.sweep.configurations import (
    Configuration,
    TrialSpec,
    most_configurations,
    planned_configurations,
    trials_of,
)

FINISHED: Literal["finished"] = "finished"
MIN_SURVIVORS = 2
"""Survivors a model, at least: the best needs a runner-up to be compared with."""

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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a trial."""

    status: Status
    score: float | None
    """TrialRecord.score, what configurations are ranked by; of the loss with its sign turned, so that more is better."""
    failure_class: FailureClass | None = None

    @classmethod
    def of(cls, record: TrialRecord) -> Outcome:
        """Take the outcome from the end row of a trial."""
        failure_class = FailureClass(record.failure_class) if record.failure_class else None
        score = None if record.score is None else oriented(metric_of(record), record.score)
        return cls(status=Status(record.status), score=score, failure_class=failure_class)

    @property
    def is_over(self) -> bool:
        """Tell whether the trial is not to be run again, neither now nor when the sweep is resumed."""
        if self.status == Status.FAILED:
            return self.failure_class not in PASSING
        return self.status in (Status.SUCCEEDED, Status.EARLY_STOPPED)

    @property
    def is_worst(self) -> bool:
        """Tell whether the configuration failed for good, which counts as the worst score."""
        return self.status == Status.FAILED and self.is_over


class Proposer(Protocol):
    """A search that learns (optuna): asked for one configuration after the other, told what each scored."""

    def ask(self, index: int) -> Configuration:
        """Return configuration number `index`."""

    def tell(self, index: int, score: float | None) -> None:
        """Learn the score of configuration number `index`; None: nothing is known of it."""


def most_trials(config: SweepConfig, num_configurations: int) -> int:
    """Count the trials of a whole sweep over all models; where a scheduler decides, the most there can be."""
    if config.scheduler == "none":
        return num_configurations * config.num_seeds
    per_model = math.ceil(num_configurations / len(config.models))
    return num_configurations + _most_survivors(config, per_model) * len(config.models) * (config.num_seeds - 1)


def _most_survivors(config: SweepConfig, num_configurations: int) -> int:
    """Count the configurations of a model that go on to the other seeds, at most."""
    if config.scheduler != "asha":
        return num_configurations
    return min(num_configurations, max(MIN_SURVIVORS, math.ceil(num_configurations / config.reduction_factor)))


class TrialQueue:
    """Trials handed out one by one, and what became of them.

    Args:
        config: The sweep.
        past: Outcomes by trial id from earlier sessions.
        proposer: The search, where configurations are not known beforehand.
    """

    def __init__(
        self, config: SweepConfig, past: Mapping[str, Outcome] | None = None, proposer: Proposer | None = None
    ) -> None:
        self.config, self.proposer = config, proposer
        self.past = {trial_id: outcome for trial_id, outcome in (past or {}).items() if outcome.is_over}
        self.outcomes: dict[str, Outcome] = {}
        self.configurations: list[Configuration] = [] if proposer else planned_configurations(config)
        self.running: dict[str, TrialSpec] = {}
        self._planned: dict[str, TrialSpec] = {}
        self._waiting: deque[TrialSpec] = deque()
        self._index_of: dict[str, int] = {}
        self._opened_other_seeds = False
        if not proposer:
            self._enqueue(trials_of(config, one)[0] for one in self.configurations)
            if config.scheduler == "none":
                self._open_other_seeds(self.configurations)

    # ---- asked by Tune's searcher

    def peek(self) -> TrialSpec | Literal["finished"] | None:
        """Return the next trial without handing it out; None: wait until one that runs has ended."""
        while not self._waiting:
            if self.proposer and len(self.configurations) < self.config.sample_count:
                self._propose(self.proposer)
            elif self._opened_other_seeds:
                return None if self.running else FINISHED
            elif self.running:
                return None
            else:
                self._open_other_seeds(self.survivors())
        return self._waiting[0]

    def take(self) -> TrialSpec:
        """Hand out the trial that `peek` returned."""
        spec = self._waiting.popleft()
        self.running[spec.trial_id] = spec
        return spec

    def close(self, trial_id: str, outcome: Outcome) -> None:
        """Record the end of a running trial."""
        self.running.pop(trial_id)
        self._close(trial_id, outcome)

    # ---- what is known

    @property
    def planned(self) -> list[TrialSpec]:
        """Every trial that was planned so far, whatever became of it."""
        return list(self._planned.values())

    @property
    def waiting(self) -> list[TrialSpec]:
        """Planned trials that have not started, in order."""
        return list(self._waiting)

    @property
    def num_expected(self) -> int:
        """Trials of the whole sweep; where a scheduler decides, the most there can be."""
        if self._opened_other_seeds:
            return len(self._planned)
        return most_trials(self.config, most_configurations(self.config))

    def survivors(self) -> list[Configuration]:
        """Return the configurations that go on to the other seeds, in their order.

        Without a scheduler all of them; with one, of each model those that were not stopped, and for asha at most one in
        `reduction_factor`.
        """
        distinct = list(dict.fromkeys(self.configurations))
        if self.config.scheduler == "none":
            return distinct
        kept: set[Configuration] = set()
        for model in self.config.models:
            mine = [one for one in distinct if one.model == model]
            finished = [one for one in mine if self._first_outcome(one).status == Status.SUCCEEDED]
            finished.sort(key=lambda one: -self._first_score(one))
            kept.update(finished[: _most_survivors(self.config, len(mine))])
        return [one for one in distinct if one in kept]

    def _first_score(self, configuration: Configuration) -> float:
        score = self._first_outcome(configuration).score
        return worst(self.config.base.metric) if score is None else score

    def _first_outcome(self, configuration: Configuration) -> Outcome:
        first = trials_of(self.config, configuration)[0]
        return self.outcomes.get(first.trial_id, Outcome(status=Status.LOST, score=None))

    # ---- the queue

    def _propose(self, proposer: Proposer) -> None:
        index = len(self.configurations)
        configuration = proposer.ask(index)
        self.configurations.append(configuration)
        first = trials_of(self.config, configuration)[0]
        if first.trial_id in self._planned:  # drawn before: nothing new to run, but the search learns the same again
            known = self.outcomes.get(first.trial_id)
            proposer.tell(index, self._worth(known) if known else None)
            return
        self._index_of[first.trial_id] = index
        self._enqueue([first])

    def _open_other_seeds(self, chosen: Iterable[Configuration]) -> None:
        self._opened_other_seeds = True
        chosen = list(chosen)
        for position in range(1, self.config.num_seeds):
            self._enqueue(trials_of(self.config, one)[position] for one in chosen)

    def _enqueue(self, specs: Iterable[TrialSpec]) -> None:
        for spec in specs:
            if spec.trial_id in self._planned:
                continue
            self._planned[spec.trial_id] = spec
            done = self.past.get(spec.trial_id)
            if done is None:
                self._waiting.append(spec)
            else:
                self._close(spec.trial_id, done)

    def _close(self, trial_id: str, outcome: Outcome) -> None:
        self.outcomes[trial_id] = outcome
        index = self._index_of.get(trial_id)
        if index is not None and self.proposer:
            self.proposer.tell(index, self._worth(outcome))

    def _worth(self, outcome: Outcome) -> float | None:
        """Return the score that a search learns: the worst where a configuration failed for good, None where it is not known."""
        return worst(self.config.base.metric) if outcome.is_worst else outcome.score
