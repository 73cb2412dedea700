"""The configurations of a sweep and its trials (configuration x seed), named, in the order in which they start."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.config.sweep import AXES, SweepConfig
from sst2_ray.config.train import TrainConfig, hash_of

CENTER = 8e-5
"""Learning rate that sweeps are centered on: the ModernBERT paper's choice for SST-2, the top edge of its grid."""

_SHORT = {"batch_size": "bs", "weight_decay": "wd", "warmup_fraction": "wu", "epochs": "ep"}
_LOG_SCALE = ("learning_rate", "weight_decay")
_SETTINGS = {single: axis for axis, single in AXES.items() if axis != "models"}
"""Numeric setting of a configuration -> the field of SweepConfig with its values."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The settings of a trial without its seed: a value for each axis of a sweep."""

    model: str
    learning_rate: float
    batch_size: int
    weight_decay: float
    warmup_fraction: float
    epochs: int

    @classmethod
    def of(cls, model: str, settings: Mapping[str, float]) -> Configuration:
        """Build a configuration from a value for each numeric setting, by name."""
        return cls(
            model=model,
            learning_rate=settings["learning_rate"],
            batch_size=int(settings["batch_size"]),
            weight_decay=settings["weight_decay"],
            warmup_fraction=settings["warmup_fraction"],
            epochs=int(settings["epochs"]),
        )

    def setting(self, name: str) -> float:
        """Return a numeric setting by its name in TrainConfig."""
        value: float = getattr(self, name)
        return value


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """A trial before it runs: a configuration under one seed."""

    trial_id: str
    """Name of the trial's folder; deterministic, so that a resumed sweep finds it again."""
    configuration: Configuration
    config: TrainConfig
    is_first_seed: bool
    """Schedulers decide on the first seed alone."""

    @property
    def configuration_name(self) -> str:
        """The trial id without its seed."""
        return self.trial_id.rpartition("-seed")[0]


def trials_of(config: SweepConfig, configuration: Configuration) -> tuple[TrialSpec, ...]:
    """Return the trials of one configuration, by seed."""
    name = configuration_name(config, configuration)
    return tuple(
        TrialSpec(
            trial_id=f"{name}-seed{seed}",
            configuration=configuration,
            config=config.trial_config(dataclasses.asdict(configuration), seed),
            is_first_seed=seed == config.seeds[0],
        )
        for seed in config.seeds
    )


def planned_configurations(config: SweepConfig) -> list[Configuration]:
    """List the configurations of a grid or a random search in the order in which they start, each once.

    Those of optuna are not known beforehand; random draws stand in for them where a plan needs some.
    """
    if config.search == "random":
        return list(dict.fromkeys(random_configuration(config, index) for index in range(config.sample_count)))
    if config.search == "optuna":
        draws = (random_configuration(config, index) for index in range(20 * config.sample_count))
        return list(dict.fromkeys(draws))[: most_configurations(config)]
    settings = [
        dict(zip(_SETTINGS, values, strict=True))
        for values in itertools.product(*(values_of(config, name) for name in _SETTINGS))
    ]
    settings.sort(key=lambda setting: _distance(config, setting))
    return [Configuration.of(model, setting) for setting in settings for model in config.models]


def values_of(config: SweepConfig, setting: str) -> tuple[float, ...]:
    """Return the values that a numeric setting is tried with; the base's own where it does not vary."""
    return config.values(_SETTINGS[setting])


def most_configurations(config: SweepConfig) -> int:
    """Count the configurations that a sweep can have: no search draws more different ones than there are."""
    if config.search != "optuna":
        return len(planned_configurations(config))
    if any(is_continuous(name, values_of(config, name)) for name in _SETTINGS):
        return config.sample_count
    possible = len(config.models) * math.prod(len(values_of(config, name)) for name in _SETTINGS)
    return min(config.sample_count, possible)


def random_configuration(config: SweepConfig, index: int) -> Configuration:
    """Draw configuration number `index`: models in turn, every other setting at random from the base's seed."""
    draw = random.Random(f"{config.base.seed} {index}")  # nosec B311: repeatable, not secret
    settings = {}
    for name in _SETTINGS:
        values = values_of(config, name)
        if is_continuous(name, values):
            settings[name] = rounded(math.exp(draw.uniform(math.log(min(values)), math.log(max(values)))))
        else:
            settings[name] = draw.choice(values)
    return Configuration.of(config.models[index % len(config.models)], settings)


def is_continuous(setting: str, values: Sequence[float]) -> bool:
    """Tell whether random and optuna draw between the values of a setting instead of from them."""
    return setting in _LOG_SCALE and 0 < min(values) < max(values)


def rounded(value: float) -> float:
    """Round to three significant digits, so that a trial's name states exactly what it runs with."""
    return float(f"{value:.2e}")


def configuration_name(config: SweepConfig, configuration: Configuration) -> str:
    """Name a configuration for folders: model-lr8e-5-bs64, and the other settings that have several values."""
    parts = [_model_name(config, configuration.model), f"lr{formatting.learning_rate(configuration.learning_rate)}"]
    for name, short in _SHORT.items():
        if name == "batch_size" or len(values_of(config, name)) > 1:
            value = configuration.setting(name)
            parts.append(f"{short}{formatting.learning_rate(value) if isinstance(value, float) else value}")
    return "-".join(parts)


def _distance(config: SweepConfig, settings: Mapping[str, float]) -> tuple[float, float]:
    """Measure how far settings lie from the middle of the grid, which starts there.

    Early stopping soon has something good to compare with, and a sweep that runs out of budget has its middle.
    """
    steps = [abs(math.log2(settings["learning_rate"] / CENTER))]
    for name in _SHORT:
        values = sorted(values_of(config, name))
        if len(values) > 1:
            steps.append(abs(values.index(settings[name]) - (len(values) - 1) / 2) / len(values))
    return round(sum(steps), 9), settings["learning_rate"]


def _model_name(config: SweepConfig, model: str) -> str:
    """Return the last part of a model's name, with a hash where two models of the sweep share it."""
    short = _safe(model)
    namesakes = [other for other in config.models if _safe(other) == short]
    return short if len(namesakes) == 1 else f"{short}-{hash_of({'model': model})[:4]}"


def _safe(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", model.rstrip("/").split("/")[-1]).strip("-.") or "model"
