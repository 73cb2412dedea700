"""Optuna's TPE through `ray.tune.search.optuna`, one study a model, in a form that a resumed sweep repeats exactly."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from sst2_ray.config.sweep import AXES, SweepConfig
from sst2_ray.errors import InputError
from sst2_ray.sweep.configurations import Point, bounds, is_continuous, rounded

METRIC = "score"
NUM_STEPS = 200
"""Continuous axes are searched on this many steps of equal ratio: what a trial is called is exactly what the study knows."""


def check_installed() -> None:
    """Raises InputError where optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError('--search optuna: optuna is not installed; pip install -e ".[optuna]"') from None


class OptunaProposer:
    """planner.Proposer: asks and tells Ray's OptunaSearch.

    known: configurations that earlier sessions have drawn, in their order: they are asked for first.
    """

    def __init__(self, config: SweepConfig, known: Sequence[Point] = ()) -> None:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
        self.config = config
        self._studies = {
            model: OptunaSearch(
                space=_space(config),
                metric=METRIC,
                mode="max",
                points_to_evaluate=[_to_steps(config, point) for point in known if point["model"] == model],
                sampler=_make_sampler(config.base.seed + position),
            )
            for position, model in enumerate(config.models)
        }

    def ask(self, index: int) -> Point:
        model = self._model(index)
        suggested = self._studies[model].suggest(str(index)) or {}
        return {**self._fixed(), **_from_steps(self.config, suggested), "model": model}

    def tell(self, index: int, score: float | None) -> None:
        """None: nothing is known of it; the study learns nothing."""
        result: dict[str, Any] | None = None if score is None else {METRIC: score}
        self._studies[self._model(index)].on_trial_complete(str(index), result=result, error=score is None)

    def _model(self, index: int) -> str:
        return self.config.models[index % len(self.config.models)]

    def _fixed(self) -> Point:
        return {
            single: self.config.values(axis)[0]
            for axis, single in AXES.items()
            if axis != "models" and len(self.config.values(axis)) == 1
        }


def _searched(config: SweepConfig) -> dict[str, tuple[Any, ...]]:
    """Fields of TrainConfig that have several values to choose from, or between."""
    return {
        single: config.values(axis)
        for axis, single in AXES.items()
        if axis != "models" and len(config.values(axis)) > 1
    }


def _space(config: SweepConfig) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        single: IntDistribution(0, NUM_STEPS) if is_continuous(single, values) else CategoricalDistribution(values)
        for single, values in _searched(config).items()
    }


def _from_steps(config: SweepConfig, suggested: Point) -> Point:
    point = {}
    for single, values in _searched(config).items():
        point[single] = suggested[single]
        if is_continuous(single, values):
            low, high = bounds(values)
            point[single] = rounded(low * (high / low) ** (suggested[single] / NUM_STEPS))
    return point


def _to_steps(config: SweepConfig, point: Point) -> Point:
    steps = {}
    for single, values in _searched(config).items():
        steps[single] = point[single]
        if is_continuous(single, values):
            low, high = bounds(values)
            steps[single] = min(
                NUM_STEPS, max(0, round(NUM_STEPS * math.log(point[single] / low) / math.log(high / low)))
            )
    return steps


def _make_sampler(seed: int) -> Any:
    """TPE with random numbers that depend on the trial's number alone: a sweep that was interrupted, and whose study is told
    again what it knew, goes on to the same suggestions."""
    from optuna.samplers import BaseSampler, TPESampler

    class NumberedTpe(BaseSampler):
        def __init__(self) -> None:
            self._tpe = TPESampler(seed=seed)

        def before_trial(self, study: Any, trial: Any) -> None:
            # Fewer random draws than the default of 10 before it learns: sweeps here are small.
            self._tpe = TPESampler(seed=seed * 100_003 + trial.number, n_startup_trials=5)
            self._tpe.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return self._tpe.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return self._tpe.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self._tpe.sample_independent(study, trial, param_name, param_distribution)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            self._tpe.after_trial(study, trial, state, values)

    return NumberedTpe()
