"""Optuna's TPE through `ray.tune.search.optuna`, one study a model, in a form that a resumed sweep repeats exactly."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from sst2_ray.config.sweep import AXES, SweepConfig
from sst2_ray.errors import InputError
from sst2_ray.sweep.configurations import Configuration, is_continuous, rounded, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

METRIC = "score"
NUM_STEPS = 200
"""Steps of equal ratio that a continuous setting is searched on: a trial's name states exactly what the study knows."""

NUM_STARTUP_TRIALS = 5
"""Random draws before TPE learns; fewer than Optuna's default of 10, as sweeps here are small."""


def check_installed() -> None:
    """Raise InputError where optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError('--search optuna: optuna is not installed; pip install -e ".[optuna]"') from None


class OptunaProposer:
    """A queue.Proposer over Ray's OptunaSearch.

    Args:
        config: The sweep.
        known: Configurations that earlier sessions drew, in order; they are proposed first.
    """

    def __init__(self, config: SweepConfig, known: Sequence[Configuration] = ()) -> None:
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
                points_to_evaluate=[_to_steps(config, one) for one in known if one.model == model],
                sampler=_make_sampler(config.base.seed + position),
            )
            for position, model in enumerate(config.models)
        }

    def ask(self, index: int) -> Configuration:
        """Return the next suggestion of the study of model number `index`, models taking turns."""
        model = self._model(index)
        suggested = self._studies[model].suggest(str(index)) or {}
        return _from_steps(self.config, model, suggested)

    def tell(self, index: int, score: float | None) -> None:
        """Tell the study a score; None: nothing is known of the configuration, and the study learns nothing."""
        result = None if score is None else {METRIC: score}
        self._studies[self._model(index)].on_trial_complete(str(index), result=result, error=score is None)

    def _model(self, index: int) -> str:
        return self.config.models[index % len(self.config.models)]


def _settings(config: SweepConfig) -> dict[str, tuple[float, ...]]:
    """Return the values of each numeric setting, by name."""
    return {single: values_of(config, single) for axis, single in AXES.items() if axis != "models"}


def _space(config: SweepConfig) -> dict[str, BaseDistribution]:
    """Return the distribution of every setting that has several values to choose from, or between."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        name: IntDistribution(0, NUM_STEPS) if is_continuous(name, values) else CategoricalDistribution(values)
        for name, values in _settings(config).items()
        if len(values) > 1
    }


def _from_steps(config: SweepConfig, model: str, suggested: Mapping[str, float]) -> Configuration:
    settings = {}
    for name, values in _settings(config).items():
        settings[name] = suggested.get(name, values[0])
        if is_continuous(name, values):
            low, high = min(values), max(values)
            settings[name] = rounded(low * (high / low) ** (settings[name] / NUM_STEPS))
    return Configuration.of(model, settings)


def _to_steps(config: SweepConfig, configuration: Configuration) -> dict[str, float]:
    steps = {}
    for name in _space(config):
        values, steps[name] = values_of(config, name), configuration.setting(name)
        if is_continuous(name, values):
            low, high = min(values), max(values)
            share = math.log(steps[name] / low) / math.log(high / low)
            steps[name] = min(NUM_STEPS, max(0, round(NUM_STEPS * share)))
    return steps


def _make_sampler(seed: int) -> BaseSampler:
    """Make a TPE sampler whose random numbers depend on the trial's number alone.

    A study that is told again what it knew goes on to the same suggestions.
    """
    from optuna.samplers import BaseSampler, TPESampler

    class NumberedTpe(BaseSampler):
        def __init__(self) -> None:
            self._tpe = TPESampler(seed=seed)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            self._tpe = TPESampler(seed=seed * 100_003 + trial.number, n_startup_trials=NUM_STARTUP_TRIALS)
            self._tpe.before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            return self._tpe.infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, object]:
            return self._tpe.sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> object:
            return self._tpe.sample_independent(study, trial, param_name, param_distribution)

        def after_trial(
            self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
        ) -> None:
            self._tpe.after_trial(study, trial, state, values)

    return cast(BaseSampler, NumberedTpe())
