"""Which trials a sweep has: configurations times seeds, named, in the order in which they start. Arithmetic alone."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sst2_ray import formatting
from sst2_ray.config.sweep import AXES, SweepConfig
from sst2_ray.config.train import TrainConfig, hash_of

Point = dict[str, Any]
"""A value for each varied field of TrainConfig: a configuration without its seed."""

CENTRE = 8e-5
"""The learning rate that sweeps are centred on: the ModernBERT paper's choice for SST-2, the top edge of its grid."""

_SHORT = {"batch_size": "bs", "weight_decay": "wd", "warmup_fraction": "wu", "epochs": "ep"}
_LOG_SCALE = ("learning_rate", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One trial: a configuration under one seed."""

    trial_id: str
    """Name of the trial's folder: deterministic, so that a resumed sweep finds it again."""
    configuration: str
    """The trial id without its seed."""
    point: Point
    config: TrainConfig
    is_first_seed: bool

    @property
    def model(self) -> str:
        return self.config.model


def units_of(config: SweepConfig, point: Point) -> tuple[Unit, ...]:
    """The trials of one configuration, by seed."""
    name = configuration_name(config, point)
    return tuple(
        Unit(
            trial_id=f"{name}-seed{seed}",
            configuration=name,
            point=point,
            config=config.trial_config(point, seed),
            is_first_seed=seed == config.seeds[0],
        )
        for seed in config.seeds
    )


def planned_points(config: SweepConfig) -> list[Point]:
    """The configurations of a grid or a random search, in the order in which they start; optuna's are not known yet."""
    if config.search == "random":
        return [random_point(config, index) for index in range(config.sample_count)]
    axes = [axis for axis in AXES if axis != "models"]
    settings = [
        dict(zip((AXES[axis] for axis in axes), values, strict=True))
        for values in itertools.product(*(config.values(axis) for axis in axes))
    ]
    settings.sort(key=lambda setting: _distance(config, setting))
    return [{"model": model, **setting} for setting in settings for model in config.models]


def _distance(config: SweepConfig, setting: Point) -> tuple[Any, ...]:
    """From the middle outwards: early stopping soon has something good to compare with, and a sweep that runs out of
    budget has the middle of its grid."""
    steps = [abs(math.log2(setting["learning_rate"] / CENTRE))]
    for axis, single in AXES.items():
        values = sorted(config.values(axis)) if single not in ("model", "learning_rate") else []
        if len(values) > 1:
            steps.append(abs(values.index(setting[single]) - (len(values) - 1) / 2) / len(values))
    return (round(sum(steps), 9), setting["learning_rate"])


def random_point(config: SweepConfig, index: int) -> Point:
    """Draw number `index`: models in turn, everything else by chance; the same for the same seed whatever else is drawn."""
    draw = random.Random(f"{config.base.seed} {index}")  # nosec B311: repeatable, not secret
    point: Point = {"model": config.models[index % len(config.models)]}
    for axis, single in AXES.items():
        if axis != "models":
            low, high = bounds(config.values(axis))
            if single in _LOG_SCALE and 0 < low < high:
                point[single] = rounded(math.exp(draw.uniform(math.log(low), math.log(high))))
            else:
                point[single] = draw.choice(config.values(axis))
    return point


def bounds(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def is_continuous(single: str, values: Sequence[Any]) -> bool:
    """Whether random and optuna draw between the values of an axis instead of from them."""
    return single in _LOG_SCALE and 0 < min(values) < max(values)


def rounded(value: float) -> float:
    """Three significant digits: what a trial is called is exactly what it ran with."""
    return float(f"{value:.2e}")


def configuration_name(config: SweepConfig, point: Point) -> str:
    """model-lr8e-5-bs64, and the other axes that have several values; safe as the name of a folder."""
    parts = [model_name(config, point["model"]), f"lr{formatting.learning_rate(point['learning_rate'])}"]
    for axis, single in AXES.items():
        if single in _SHORT and (single == "batch_size" or len(config.values(axis)) > 1):
            value = point[single]
            shown = formatting.learning_rate(value) if isinstance(value, float) else str(value)
            parts.append(f"{_SHORT[single]}{shown}")
    return "-".join(parts)


def model_name(config: SweepConfig, model: str) -> str:
    """The last part of a model's name; with a hash where two models of the sweep share it."""
    short = _safe(model)
    twins = [other for other in config.models if _safe(other) == short]
    return short if len(twins) == 1 else f"{short}-{hash_of({'model': model})[:4]}"


def _safe(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", model.rstrip("/").split("/")[-1]).strip("-.") or "model"
