"""Ray Tune's ASHA and median stopping, on the first seed alone, for each model apart.

A decision to stop is passed on through the board and the trial ends itself, with its row, its curve and its process left
in order; Tune sees a trial that completed. Schedulers know trials by their own ids, not Tune's: after a restart they are
told again what the results table holds, and go on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from sst2_ray.config.sweep import SweepConfig

TIME = "evaluation"
"""Evaluations done, counted in whole ones from 1: what schedulers take for time."""

METRIC = "accuracy"


@dataclass(frozen=True)
class _Known:
    """What schedulers need of a trial."""

    trial_id: str


class _NoController:
    """Stands in for Tune's controller while the past is told."""

    def get_live_trials(self) -> list[Any]:
        return []


@dataclass(frozen=True, kw_only=True)
class PastResult:
    """An evaluation that an earlier session saw."""

    trial_id: str
    model: str
    evaluation: int
    accuracy: float


class FirstSeedScheduler(FIFOScheduler):
    """Tune's scheduler of a sweep. stop: called with the id of a trial that is to end after this evaluation."""

    def __init__(self, config: SweepConfig, stop: Callable[[str], None], past: Iterable[PastResult] = ()) -> None:
        super().__init__()
        self._stop = stop
        self._inner = {model: _make(config) for model in config.models} if config.scheduler != "none" else {}
        self._added: set[str] = set()
        for result in past:
            self._tell(_NoController(), result.trial_id, result.model, result.evaluation, result.accuracy)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        values = trial.config
        if values["is_first_seed"] and TIME in result:
            decision = self._tell(tune_controller, values["trial_id"], values["model"], result[TIME], result[METRIC])
            # Median stopping also knows PAUSE: a trial that runs is not paused, nothing would be gained.
            if decision == TrialScheduler.STOP:
                self._stop(values["trial_id"])
        return str(TrialScheduler.CONTINUE)

    def _tell(self, controller: Any, trial_id: str, model: str, evaluation: int, accuracy: float) -> str:
        inner = self._inner.get(model)
        if inner is None:
            return str(TrialScheduler.CONTINUE)
        known = _Known(trial_id)
        if trial_id not in self._added:
            self._added.add(trial_id)
            inner.on_trial_add(controller, known)
        return str(inner.on_trial_result(controller, known, {TIME: evaluation, METRIC: accuracy}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles what it is given into the experiment's folder, and nobody reads it: nothing goes there."""
        return FIFOScheduler, ()

    def debug_string(self) -> str:
        return "; ".join(f"{model}: {inner.debug_string()}" for model, inner in self._inner.items())


def _make(config: SweepConfig) -> TrialScheduler:
    evaluations = max(config.epochs) * config.base.evaluations_per_epoch
    if config.scheduler == "median":
        return MedianStoppingRule(time_attr=TIME, metric=METRIC, mode="max", grace_period=1)
    return AsyncHyperBandScheduler(
        time_attr=TIME,
        metric=METRIC,
        mode="max",
        # One more than there are: at max_t Tune would stop trials that are at their end anyway.
        max_t=evaluations + 1,
        grace_period=1,
        reduction_factor=config.reduction_factor,
    )


def evaluation_number(epoch: float, evaluations_per_epoch: int) -> int:
    """Which evaluation of its run one at this epoch is, from 1; the same after a restart."""
    return max(1, round(epoch * evaluations_per_epoch))
