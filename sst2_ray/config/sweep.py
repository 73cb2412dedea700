"""The configuration of a sweep: what varies, what stays, and when it ends; checked before torch or ray is imported."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sst2_ray.config.fields import (
    AtLeastOne,
    Fraction,
    Name,
    NotNegative,
    Positive,
    check_fields,
    check_is,
    coerce_fields,
    flag,
    group,
    kinds_of,
    readable,
)
from sst2_ray.config.habits import say_what_was_meant
from sst2_ray.config.python_words import python_words
from sst2_ray.config.train import TrainConfig, config_from_dict, hash_of, hashed_values
from sst2_ray.errors import InputError
from sst2_ray.formatting import without_secrets

DEFAULT_NUM_SAMPLES = 16
DEFAULT_SELECTION_FRACTION = 0.1
DEFAULT_MARGIN = 0.5
"""Points of accuracy."""

AXES: dict[str, str] = {
    "models": "model",
    "learning_rates": "learning_rate",
    "batch_sizes": "batch_size",
    "weight_decays": "weight_decay",
    "warmup_fractions": "warmup_fraction",
    "epochs": "epochs",
}
"""Field of SweepFlags -> field of TrainConfig that it varies, in the order in which settings are named."""

ALWAYS_VARIED = frozenset({"model", "learning_rate", "batch_size"})
"""Fields of TrainConfig that a sweep takes in the plural only."""


@dataclass(frozen=True, kw_only=True)
@group("What varies")
class AxisSettings:
    """Values that the trials of a sweep are made of."""

    models: tuple[Name, ...] = ("sbert-minilm",)
    """Models to compare, as --model of a single run names them."""
    learning_rates: tuple[float, ...] = (2e-5, 4e-5, 8e-5, 1.6e-4, 3.2e-4)
    """Peak learning rates. grid: each of them. random, optuna: drawn log-uniformly between the lowest and the highest."""
    batch_sizes: tuple[int, ...] = (64,)
    """Global batch sizes in examples, whatever the number of workers."""
    weight_decays: tuple[float, ...] = ()
    """Weight decays; random and optuna draw between them as for the learning rate. Empty: --weight-decay for all."""
    warmup_fractions: tuple[float, ...] = ()
    """Shares of the steps with a rising learning rate. Empty: --warmup-fraction for all."""
    epochs: tuple[int, ...] = (2,)
    """Passes over the training split."""
    num_seeds: AtLeastOne = 3
    """Seeds that every configuration runs under: --seed and the integers after it. Rankings are by the mean over them."""


@dataclass(frozen=True, kw_only=True)
@group("How it is searched")
class SearchSettings:
    """Settings of the search and of the early stopping of configurations."""

    search: Literal["grid", "random", "optuna"] = "grid"
    """grid: every combination. random: log-uniform draws. optuna: its TPE sampler, which learns from finished trials."""
    num_samples: AtLeastOne | None = None
    """Configurations that random and optuna try, over all models together; None: 16."""
    scheduler: Literal["none", "asha", "median"] = "none"
    """Early stopping of configurations, decided on the first seed among those of the same model; survivors run all seeds.
    asha: successive halving. median: stops what is worse than the median of the others so far."""
    reduction_factor: AtLeastOne = 3
    """asha: one in this many goes on from each rung, and to the other seeds."""
    selection_fraction: Fraction | None = None
    """Share of the training split held out for choosing epoch and configuration; dev is then scored once, for the chosen.
    None: 0.1 if more than one configuration is tried, else 0. 0: choose on dev, whose best score is then too good."""


@dataclass(frozen=True, kw_only=True)
@group("Budget, concurrency and models kept", affects_trials=False)
class BudgetSettings:
    """Settings of when and where trials run; they do not change which trials there are."""

    budget_usd: Positive[float] | None = None
    """No trial starts that would bring the sweep's cost above this many US dollars; needs --price-per-hour."""
    budget_hours: Positive[float] | None = None
    """No trial starts that would make the sweep take longer than this many hours of wall-clock, over all its sessions."""
    max_concurrent: AtLeastOne | None = None
    """Most trials at the same time; None: as many as the cluster has room for. More than fit are never started."""
    keep_models: NotNegative[int] = 3
    """Exported models that are kept when the sweep ends: the best run of each of this many best configurations."""


@dataclass(frozen=True, kw_only=True)
@group("Verdict", affects_trials=False)
class VerdictSettings:
    """Settings of what is said of the results; they do not change which trials there are."""

    margin: Positive[float] = DEFAULT_MARGIN
    """Points of accuracy that count as no difference: a difference that is surely smaller is a tie. `report` and `compare`
    use the margin of the sweep unless they are given another."""


@dataclass(frozen=True, kw_only=True)
class SweepFlags(
    VerdictSettings, BudgetSettings, SearchSettings, AxisSettings
):  # the fields of the last base come first
    """Settings that a sweep adds to those of a single run."""


@say_what_was_meant(within={"base": TrainConfig}, hidden=ALWAYS_VARIED)
@dataclass(frozen=True, kw_only=True, repr=False)
class SweepConfig(SweepFlags):
    """Configuration of a sweep: its flags, and the settings that all its runs share. Raises InputError with one line."""

    base: TrainConfig = field(default_factory=TrainConfig)
    """Settings that do not vary; those of the axes above (model, learning rate, ...) are not used."""

    def __post_init__(self) -> None:
        with python_words(lambda: {**kinds_of(SweepFlags), **kinds_of(TrainConfig)}):
            check_sweep_config(self)

    @property
    def tries_several(self) -> bool:
        """Tell whether there is more than one configuration to choose from."""
        if self.search != "grid":
            return self.sample_count > 1
        return len(self.models) * _count(self) > 1

    @property
    def held_out_fraction(self) -> float:
        """Return the share of the training split that epochs and configurations are chosen on; 0: dev."""
        if self.selection_fraction is not None:
            return self.selection_fraction
        return self.base.selection_fraction or (DEFAULT_SELECTION_FRACTION if self.tries_several else 0.0)

    def __repr__(self) -> str:
        return readable(self)

    @property
    def name(self) -> str:
        """Return `base.name`, or one made of what decides the trials."""
        return self.base.name or f"sweep-{self.trials_hash}"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds that every configuration runs under."""
        return tuple(self.base.seed + i for i in range(self.num_seeds))

    @property
    def sample_count(self) -> int:
        """Count the configurations that random and optuna try."""
        return self.num_samples or DEFAULT_NUM_SAMPLES

    def values(self, axis: str) -> tuple[Any, ...]:
        """Return the values of an axis (a field of SweepFlags); the base's own if none are given."""
        given: tuple[Any, ...] = getattr(self, axis)
        return given or (getattr(self.base, AXES[axis]),)

    @property
    def base_hash(self) -> str:
        """Hash what all trials share and affects their numbers: trials of equal base hashes may be compared."""
        varied = {AXES[axis] for axis in AXES if getattr(self, axis)} | {"seed"}
        shared = dataclasses.replace(self.base, selection_fraction=self.held_out_fraction)
        return hash_of(hashed_values(shared, without=varied))

    @property
    def trials_hash(self) -> str:
        """Hash everything that decides which trials there are and what they compute."""
        flags = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(SweepFlags)
            if f.metadata.get("affects_trials", True) and f.name != "selection_fraction"  # the base's hash has it
        }
        return hash_of({**flags, "base": self.base_hash, "seed": self.base.seed})

    def trial_config(self, point: dict[str, Any], seed: int) -> TrainConfig:
        """Build the config of one trial; `point` holds a value for each varied field of TrainConfig."""
        return dataclasses.replace(self.base, **point, seed=seed, name=None, selection_fraction=self.held_out_fraction)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: `sweep` (the flags) and `config` (the base)."""
        flags = {f.name: getattr(self, f.name) for f in dataclasses.fields(SweepFlags)}
        return {
            "sweep": {k: list(v) if isinstance(v, tuple) else v for k, v in flags.items()},
            "config": self.base.to_dict(),
        }

    def to_public_dict(self) -> dict[str, object]:
        """Return what `to_dict` does, without the credentials of URIs, for what others read."""
        return {**self.to_dict(), "config": without_secrets(self.base.to_dict())}


def sweep_from_dict(values: dict[str, Any], *, source: str = "config") -> SweepConfig:
    """Build a SweepConfig from what `to_dict` returns. Raises InputError, also for unknown keys."""
    for part in ("sweep", "config"):
        if not isinstance(values.get(part, {}), dict):
            raise InputError(f"{source}: {part!r} must hold keys and values")
    flags = coerce_fields(SweepFlags, values.get("sweep", {}), source)
    base = config_from_dict(values.get("config", {}), source=source)
    return SweepConfig(**flags, base=base)  # type: ignore[arg-type]


def check_sweep_config(config: SweepConfig) -> None:
    """Check everything that the values alone can tell. Raises InputError with one line."""
    check_is(config.base, TrainConfig)
    check_fields(config, SweepFlags)
    for axis, single in AXES.items():
        _check_axis(config, axis, single)
    if config.budget_usd is not None and config.base.price_per_hour is None:
        raise InputError(
            f"--budget-usd {config.budget_usd:g}: needs --price-per-hour, the price of a node of workers in US dollars an hour"
        )
    _check_search(config)


def _check_search(config: SweepConfig) -> None:
    if config.num_samples is not None and config.search == "grid":
        raise InputError(
            f"--num-samples {config.num_samples}: a grid runs every combination; use --search random or optuna"
        )
    if config.search == "optuna" and _count(config) == 1:
        raise InputError("--search optuna: every axis has one value only; give at least two --learning-rates")
    if config.scheduler == "asha" and config.reduction_factor < 2:
        raise InputError(f"--reduction-factor {config.reduction_factor}: must be at least 2 for asha")
    evaluations = max(config.epochs) * config.base.evaluations_per_epoch
    if config.scheduler != "none" and evaluations < 2 and config.base.max_steps is None:
        raise InputError(
            f"--scheduler {config.scheduler}: one evaluation a trial leaves nothing to stop; "
            "use --evaluations-per-epoch 2 or more, or more epochs"
        )
    if config.scheduler != "none" and config.search == "grid" and _count(config) == 1:
        raise InputError(
            f"--scheduler {config.scheduler}: the grid has one configuration a model; use --scheduler none"
        )


def _count(config: SweepConfig) -> int:
    """Count the grid configurations of one model."""
    return math.prod(len(config.values(axis)) for axis in AXES if axis != "models")


def _check_axis(config: SweepConfig, axis: str, single: str) -> None:
    values = getattr(config, axis)
    if not values and axis in ("models", "learning_rates", "batch_sizes", "epochs"):
        raise InputError(f"{flag(axis)}: needs at least one value")
    for position, value in enumerate(values):
        if value in values[:position]:
            raise InputError(f"{flag(axis)}: {value} is there twice; every trial runs once")
        if axis == "models" and "," in value and "://" not in value and not Path(value).expanduser().exists():
            raise InputError(f"{flag(axis)} {value}: give each by itself: {value.replace(',', ' ')}")
        try:
            dataclasses.replace(config.base, **{single: value})
        except InputError as error:
            # the check of a single run names its own flag, which has another name here
            raise InputError(re.sub(rf"^{flag(single)}\b", flag(axis), str(error))) from None
