"""Curves of single runs: metrics over epochs, steps and time, and the evaluation at a given moment."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray.config.metrics import oriented
from sst2_ray.results.analysis.ranking import Configuration
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics.scores import Array

METRICS = (
    "train_loss",
    "dev_loss",
    "dev_accuracy",
    "dev_f1",
    "dev_precision",
    "dev_recall",
    "dev_macro_f1",
    "dev_weighted_f1",
    "dev_mcc",
    "dev_auroc",
    "dev_pearson",
    "dev_spearman",
)
COLUMNS = ("experiment", "trial_id", "attempt", "split", "global_step", "epoch", "seconds", *METRICS)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Evaluations of a run, by step. Every array is [evaluations]; NaN is a missing value."""

    epoch: Array
    global_step: Array
    seconds: Array
    """Training and evaluation time over all attempts, without work that a restart discarded."""
    metrics: Mapping[str, Array]

    def best_within(
        self, *, epochs: float | None = None, seconds: float | None = None, metric: str = "accuracy"
    ) -> int | None:
        """Return the index of the best evaluation by a metric on dev (the earlier of equals) up to an epoch or a time."""
        scores = oriented(metric, 1.0) * self.metrics[f"dev_{metric}"]
        inside = self._within(epochs, seconds) & np.isfinite(scores)
        return int(np.argmax(np.where(inside, scores, -np.inf))) if inside.any() else None

    def last_within(self, *, epochs: float | None = None, seconds: float | None = None) -> int | None:
        """Return the index of the last evaluation up to an epoch or a time; None when there is none."""
        inside = np.flatnonzero(self._within(epochs, seconds))
        return int(inside[-1]) if len(inside) else None

    def _within(self, epochs: float | None, seconds: float | None) -> Array:
        inside = np.ones(len(self.epoch), dtype=bool)
        if epochs is not None:
            inside &= self.epoch <= epochs + 1e-6
        if seconds is not None:
            inside &= self.seconds <= seconds + 1e-6
        return inside


Curves = Mapping[tuple[str, str], Curve]
"""Curves by experiment and trial."""


def load_curves(table: ResultsTable, trials: Sequence[tuple[str, str]], *, split: str = "dev") -> Curves:
    """Read the curves of trials, given as (experiment, trial id)."""
    if not trials:
        return {}
    rows = table.read(
        "epochs",
        columns=COLUMNS,
        experiment={experiment for experiment, _ in trials},
        trial_ids={trial_id for _, trial_id in trials},
        attempts="latest",
    )
    found = to_curves(rows, split=split)
    return {key: found[key] for key in trials if key in found}


def to_curves(epochs: pa.Table, *, split: str = "dev") -> dict[tuple[str, str], Curve]:
    """Convert rows of `epochs` to one curve per trial."""
    rows = epochs.filter(pc.equal(epochs.column("split"), split))
    rows = rows.sort_by([("experiment", "ascending"), ("trial_id", "ascending"), ("global_step", "ascending")])
    keys = list(zip(rows.column("experiment").to_pylist(), rows.column("trial_id").to_pylist(), strict=True))
    columns = {
        name: np.asarray(rows.column(name).cast(pa.float64()).to_numpy(), dtype=float)
        for name in ("attempt", "epoch", "global_step", "seconds", *METRICS)
    }
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    curves = {}
    for start, end in itertools.pairwise([*starts, len(keys)]):
        part = {name: column[start:end] for name, column in columns.items()}
        curves[keys[start]] = Curve(
            epoch=part["epoch"],
            global_step=part["global_step"],
            seconds=_over_attempts(part["seconds"], part["attempt"]),
            metrics={name: part[name] for name in METRICS},
        )
    return curves


def _over_attempts(seconds: Array, attempt: Array) -> Array:
    """Convert times since the start of each attempt to times since the first start. Both are [evaluations], by step."""
    restarts = np.flatnonzero(np.diff(attempt)) + 1
    spent = np.zeros(len(seconds))
    spent[restarts] = seconds[restarts - 1]
    return np.asarray(seconds + np.cumsum(spent))


@dataclass(frozen=True, kw_only=True)
class Band:
    """A metric over the seeds of a configuration, at the epochs that all of them evaluated."""

    epoch: Array
    mean: Array
    sd: Array | None
    """Sample standard deviation; None for one seed."""
    seeds: tuple[Array, ...]
    """Values of each seed."""


def band(configuration: Configuration, curves: Curves, metric: str) -> Band | None:
    """Compute mean and spread of a metric over seeds; None when it was not recorded."""
    found = [curves[key] for run in configuration.runs if (key := (run.experiment, run.trial_id)) in curves]
    if not found:
        return None
    common = sorted(set.intersection(*({round(float(e), 6) for e in curve.epoch} for curve in found)))
    rows = []
    for curve in found:
        at = {round(float(e), 6): i for i, e in enumerate(curve.epoch)}
        rows.append(curve.metrics[metric][[at[e] for e in common]])
    values = np.array(rows)
    if not common or not np.isfinite(values).any():
        return None
    return Band(
        epoch=np.array(common),
        mean=values.mean(axis=0),
        sd=values.std(axis=0, ddof=1) if len(found) > 1 else None,
        seeds=tuple(values),
    )
