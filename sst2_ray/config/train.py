"""The configuration of one run: a frozen dataclass, checked before torch or ray is imported.

Every field is a flag of `sst2-ray train`, a key of a `--config` file and a part of the results table's `config_json`.
The fields are declared in `settings`; here are the rules that take more than one of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sst2_ray.config.fields import check_fields, coerce_fields, kinds_of, readable
from sst2_ray.config.frames import stored
from sst2_ray.config.habits import say_what_was_meant
from sst2_ray.config.metrics import REGRESSION_METRICS, Metric, task_metric
from sst2_ray.config.python_words import python_words
from sst2_ray.config.registry import MODELS, REGRESSION_DATA, model_hint
from sst2_ray.config.settings import (
    CheckpointSettings,
    DataSettings,
    LimitSettings,
    ModelSettings,
    OptimizationSettings,
    PlacementSettings,
    StorageSettings,
    TrackingSettings,
)
from sst2_ray.errors import InputError
from sst2_ray.formatting import without_secret, without_secrets

_FIRST_FIELDS = frozenset(
    {
        "model", "model_revision", "random_weights", "tokenizer", "attention", "dropout", "encoder_dropout",
        "data", "dev_data", "text_column", "label_column", "split_column", "delimiter", "encoding", "quoting",
        "header", "train_rows", "dev_rows", "holdout_fraction", "selection_fraction", "max_length",
        "pad_to_max_length", "drop_leaks", "allow_leak", "learning_rate", "batch_size", "epochs", "max_steps",
        "weight_decay", "weight_decay_form", "adam_beta1", "adam_beta2", "adam_eps", "warmup_fraction",
        "max_grad_norm", "evaluations_per_epoch", "patience", "seed", "precision",
    }
)  # fmt: skip
"""Fields of version 0.1.0 that affect the numbers. They count in hashes whatever their value; fields that came later count
where they differ from their default, so that a run of an older version keeps its hash and can be resumed."""


@say_what_was_meant()
@dataclass(frozen=True, kw_only=True, repr=False)
class TrainConfig(
    # dataclasses takes the fields of the last base first: read from the bottom, this is the order of config.json
    LimitSettings,
    CheckpointSettings,
    TrackingSettings,
    StorageSettings,
    PlacementSettings,
    OptimizationSettings,
    DataSettings,
    ModelSettings,
):
    """Configuration of a fine-tuning run. Raises InputError with one line."""

    def __post_init__(self) -> None:
        with python_words(lambda: kinds_of(TrainConfig)):
            for name in ("data", "dev_data"):
                object.__setattr__(self, name, stored(getattr(self, name), f"--{name.replace('_', '-')}"))
            check_train_config(self)

    def __repr__(self) -> str:
        return readable(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, in the order of the fields."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def config_hash(self) -> str:
        """Hash every field that affects the numbers: equal hashes, equal results."""
        return hash_of(hashed_values(self))

    @property
    def metric(self) -> Metric:
        """Return the metric that evaluations and configurations are compared by."""
        return self.choose_by or task_metric(self.data, is_regression=self.is_regression)

    @property
    def is_regression(self) -> bool:
        """Tell whether labels are numbers that the model's one output is to meet."""
        return self.task == "regression" or (self.task is None and self.data in REGRESSION_DATA)

    @property
    def run_name(self) -> str:
        """Return `name`, or one made of the model, the data and the config's hash."""
        if self.name:
            return self.name
        stem = "-".join(
            re.sub(r"[^A-Za-z0-9]+", "-", part.rstrip("/").split("/")[-1]).strip("-")
            for part in (self.model, without_secret(self.data))
        )
        return f"{stem}-{self.config_hash}"


def numeric_fields() -> tuple[str, ...]:
    """Name the fields that affect what a run computes, as opposed to where and how it runs."""
    return tuple(f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("affects_numbers", True))


def hashed_values(config: TrainConfig, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields that affect what a run computes and their values, for a hash; see `_FIRST_FIELDS`.

    Credentials of a URI are left out: config.json does not hold them either, and they may be changed between two sessions.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    values = without_secrets({name: getattr(config, name) for name in numeric_fields() if name not in without})
    return {name: v for name, v in values.items() if name in _FIRST_FIELDS or v != defaults[name]}


def hash_of(values: dict[str, Any]) -> str:
    """Return 12 hex digits of SHA-256 over the canonical JSON of `values`."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def check_train_config(config: TrainConfig) -> None:
    """Check everything that the values alone can tell. Raises InputError with one line."""
    if not isinstance(config.data, str):
        raise InputError(
            f"--data: a {type(config.data).__name__} is not taken; give a DataFrame, a Dataset, or the path of a file (CSV, JSON "
            "Lines or Parquet) with a text and a label column"
        )
    check_fields(config, TrainConfig)
    _check_task(config)
    check_columns(config.text_column, config.text_columns)
    _check_placement(config)
    # A bare word that is neither a named model nor a path is most likely a typo.
    if config.model not in MODELS and "/" not in config.model and not config.model.startswith("."):
        raise InputError(
            f"--model {config.model}: no such model; {model_hint(config.model)} (or owner/name on the hub, or ./folder)"
        )


def _check_placement(config: TrainConfig) -> None:
    """Check workers, engine and attention against each other. Raises InputError."""
    if config.max_workers is not None and config.max_workers < (config.num_workers or 1):
        raise InputError(
            f"--num-workers {config.num_workers or 1}:{config.max_workers}: the second number must be at least the first"
        )
    if config.engine == "torch" and max(config.num_workers or 1, config.max_workers or 1) > 1:
        raise InputError(
            f"--engine torch --num-workers {config.num_workers}: plain torch runs on one worker; use --engine zero2"
        )
    if config.attention in ("varlen", "flash_attention_2") and config.precision == "fp32":
        raise InputError(
            f"--attention {config.attention} --precision fp32: flash attention computes in 16 bits only; use --precision bf16"
        )


def check_columns(text_column: str | None, text_columns: tuple[str, ...]) -> None:
    """Check the flags that name columns of texts. Raises InputError: not two for a pair, or both flags."""
    given = " ".join(text_columns)
    if text_columns and (len(text_columns) != 2 or len({name.strip().casefold() for name in text_columns}) != 2):
        raise InputError(
            f"--text-columns {given}: takes two columns, those of a pair; name one text with --text-column"
        )
    if text_columns and text_column is not None:
        raise InputError(f"--text-column {text_column} --text-columns {given}: give one of the two flags")


def _check_task(config: TrainConfig) -> None:
    """Check what a run starts from and is judged by."""
    if config.start_from is not None and config.random_weights:
        raise InputError(f"--start-from {config.start_from} --random-weights: give one of the two")
    if config.is_regression:
        if config.choose_by not in (None, *REGRESSION_METRICS):
            raise InputError(
                f"--choose-by {config.choose_by}: a regression has {', '.join(sorted(REGRESSION_METRICS))}"
            )
        if config.calibrate_head:
            raise InputError("--calibrate-head: is for classes; a regression has no probabilities")
        if config.labels or config.drop_label:
            raise InputError("--labels, --drop-label: are for classes; a regression has none")
        if config.class_weights is not None or config.label_smoothing:
            raise InputError("--class-weights, --label-smoothing: are for classes; a regression has none")
    elif config.choose_by in ("pearson", "spearman"):
        raise InputError(
            f"--choose-by {config.choose_by}: is a metric of regression (--task regression); classes have accuracy, f1, mcc, ..."
        )


def config_from_dict(values: dict[str, Any], *, source: str = "config") -> TrainConfig:
    """Build a TrainConfig from plain values, e.g. of a YAML file.

    Raises InputError for an unknown key, with the nearest valid ones, and for a value of another type.
    """
    return TrainConfig(**coerce_fields(TrainConfig, values, source))  # type: ignore[arg-type]
