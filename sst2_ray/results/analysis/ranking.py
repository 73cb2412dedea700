"""Configurations, their means over seeds, and their ranking on the same data; the edge of the grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from sst2_ray import formatting
from sst2_ray.config.metrics import oriented
from sst2_ray.errors import FailureClass
from sst2_ray.results.store.query import counted_runs
from sst2_ray.statistics.scores import Summary, summarize

Metric = Literal["best_dev_accuracy", "last_dev_accuracy", "selection_accuracy", "best_score", "selection_score"]
"""Column of `trials`. best_score, selection_score: of another metric than accuracy, see `chosen_by`."""

_AXES = ("learning_rate", "batch_size", "weight_decay", "warmup_fraction", "epochs")
"""Settings that a sweep may search, in display order."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that counts: the row of `trials` that ended it."""

    experiment: str
    trial_id: str
    seed: int | None
    values: Mapping[str, Any]
    """The whole row, by column."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Runs that differ in their seed only."""

    configuration_id: str
    runs: tuple[Run, ...]
    """By seed."""

    @property
    def label(self) -> str:
        """Name of the model (with a note on random weights), learning rate and batch size."""
        learning_rate = formatting.learning_rate(self.setting("learning_rate"))
        return f"{model_label(self.setting)}, lr {learning_rate}, batch {self.setting('batch_size') or formatting.NONE}"

    def setting(self, name: str) -> Any:
        """Return a column of `trials` that all seeds share, e.g. learning_rate."""
        return self.runs[0].values.get(name)

    def metric(self, name: str) -> list[float] | None:
        """Return a column over the seeds; None unless every seed has it."""
        values = [run.values.get(name) for run in self.runs]
        return None if any(value is None for value in values) else [float(v) for v in values if v is not None]

    def mean(self, name: str) -> float | None:
        """Compute the mean of a column over the seeds; None unless every seed has it, and finite."""
        values = self.metric(name)
        return None if not values or not all(map(math.isfinite, values)) else float(np.mean(values))

    def summary(self, name: str) -> Summary | None:
        """Compute mean and standard deviation of a column over the seeds; None unless every seed has it."""
        values = self.metric(name)
        return None if values is None or not np.isfinite(values).all() else summarize(values)


@dataclass(frozen=True, kw_only=True)
class RankedGroup:
    """Configurations on the same evaluation data, ranked by the same metric."""

    eval_split: str | None
    data_fingerprint: str | None
    metric: Metric
    """Column whose mean over seeds ranks them."""
    chosen_by: str = "accuracy"
    """Metric that the column is of."""
    configurations: tuple[Configuration, ...]
    """Best first."""

    @property
    def num_runs(self) -> int:
        """Number of runs of all configurations."""
        return sum(len(c.runs) for c in self.configurations)

    @property
    def best(self) -> Configuration:
        """The first of the ranking."""
        return self.configurations[0]

    @property
    def chosen_on(self) -> str:
        """The sentences that configurations are chosen by, in words."""
        return "a held-out part of train" if self.on_selection else self.eval_split or "dev"

    @property
    def on_selection(self) -> bool:
        """Tell whether configurations are ranked on the held-out part of train."""
        return self.metric in ("selection_accuracy", "selection_score")

    @property
    def chosen(self) -> str:
        """Disclosure of the choice, e.g. 'best of 8 configurations, 24 runs, chosen on SST-2 dev'."""
        num = formatting.count(len(self.configurations), "configuration")
        return f"best of {num}, {formatting.count(self.num_runs, 'run')}, chosen on {self.chosen_on}"

    def score(self, configuration: Configuration) -> float:
        """Return the mean that ranks a configuration."""
        return float(np.mean(configuration.metric(self.metric) or [float("nan")]))

    def reported(self, *chosen: Configuration) -> Metric:
        """Return the metric to report of chosen configurations: that on dev once all of them are scored on dev."""
        on_dev: Metric = "best_dev_accuracy" if self.chosen_by == "accuracy" else "best_score"
        return on_dev if all(c.summary(on_dev) is not None for c in chosen) else self.metric

    def is_reported_on_dev(self, *chosen: Configuration) -> bool:
        """Tell whether chosen configurations are scored on dev, which had no part in the choice."""
        return self.on_selection and self.reported(*chosen) != self.metric

    def searched_for(self, *chosen: Configuration) -> tuple[list[Configuration], ...] | None:
        """Return what `search_of` does for a comparison on the sentences reported; None when those had no part in the choice."""
        return None if self.is_reported_on_dev(*chosen) else self.search_of(*chosen)

    def search_of(self, *chosen: Configuration) -> tuple[list[Configuration], ...]:
        """Return the configurations of each one's model, from which it was chosen."""
        of_model = {model_label(c.setting): [] for c in chosen}  # type: dict[str, list[Configuration]]
        for c in self.configurations:
            of_model.setdefault(model_label(c.setting), []).append(c)
        return tuple(of_model[model_label(c.setting)] for c in chosen)

    def best_per_model(self) -> list[Configuration]:
        """Return the best configuration of each model, best first."""
        first: dict[str, Configuration] = {}
        for configuration in self.configurations:
            first.setdefault(model_label(configuration.setting), configuration)
        return list(first.values())


@dataclass(frozen=True, kw_only=True)
class Edge:
    """An axis whose best value is the last one tried."""

    axis: str
    side: Literal["highest", "lowest", "only"]
    value: float
    proposed: tuple[float, ...]
    """Next values to try."""


def model_label(setting: Callable[[str], object]) -> str:
    """Return the model's name, with '(random weights)' unless it started from pretrained ones.

    `setting` returns the value of a column of `trials`.
    """
    name = str(setting("model") or "unknown model")
    return f"{name} (random weights)" if setting("random_weights") else name


def configurations(trials: pa.Table) -> list[Configuration]:
    """Group the runs that count by configuration; on other evaluation data it is another configuration.

    `trials` are rows of the latest attempts, with all columns that are asked for later.
    """
    groups: dict[tuple[str, str | None, str | None], list[Run]] = {}
    for row in counted_runs(trials).to_pylist():
        key = (row["configuration"], row["data_fingerprint"], row["eval_split"])
        run = Run(experiment=row["experiment"], trial_id=row["trial_id"], seed=row["seed"], values=row)
        groups.setdefault(key, []).append(run)
    return [Configuration(configuration_id=key[0], runs=tuple(runs)) for key, runs in groups.items()]


def rank(trials: pa.Table, *, metric: Metric | None = None) -> list[RankedGroup]:
    """Rank configurations on the same evaluation data by their mean over seeds, however many seeds each has.

    How far a mean of few seeds can be trusted is the matter of its interval, not of its place. Configurations that diverged
    under a seed come after those that did not: they do not gain by the seeds that are missing.

    Args:
        trials: rows of the latest attempts, with all columns that are asked for later.
        metric: None: the score (see TrialRecord.score) on the held-out part of train when runs chose on that, else on dev.

    Returns:
        One group for each set of evaluation data and metric, the one with the most configurations first; empty when no run
        succeeded.
    """
    diverged = _diverged(trials)
    comparable: dict[tuple[str | None, str | None, Metric, str], list[Configuration]] = {}
    for configuration in configurations(trials):
        first = configuration.runs[0].values
        chosen_by = first.get("chosen_by") or "accuracy"
        chosen = metric or _ranked_by(configuration, chosen_by)
        if configuration.mean(chosen) is None:
            continue
        key = (first["eval_split"], first["data_fingerprint"], chosen, chosen_by)
        comparable.setdefault(key, []).append(configuration)
    groups = [
        RankedGroup(
            eval_split=split,
            data_fingerprint=fingerprint,
            metric=chosen,
            chosen_by=chosen_by,
            configurations=_sorted(
                members, chosen, chosen_by, {name for name, data in diverged if data == (split, fingerprint)}
            ),
        )
        for (split, fingerprint, chosen, chosen_by), members in comparable.items()
    ]
    return sorted(
        groups, key=lambda g: (-len(g.configurations), -g.num_runs, g.eval_split or "", g.metric, g.chosen_by)
    )


def _ranked_by(configuration: Configuration, chosen_by: str) -> Metric:
    """Return the column that holds a configuration's score: on the held-out part of train when it chose on that."""
    if chosen_by == "accuracy":
        return "selection_accuracy" if configuration.metric("selection_accuracy") else "best_dev_accuracy"
    return "selection_score" if configuration.metric("selection_score") else "best_score"


_Data = tuple[str | None, str | None]
"""Evaluation split and fingerprint of the data."""


def _diverged(trials: pa.Table) -> set[tuple[str, _Data]]:
    """Return the configurations whose loss was not finite under some seed, each with its data."""
    rows = trials.select(["configuration_id", "eval_split", "data_fingerprint", "failure_class"]).to_pylist()
    return {
        (row["configuration_id"], (row["eval_split"], row["data_fingerprint"]))
        for row in rows
        if row["failure_class"] == FailureClass.NON_FINITE
    }


def _sorted(
    members: list[Configuration], metric: Metric, chosen_by: str, diverged: Collection[str]
) -> tuple[Configuration, ...]:
    def order(c: Configuration) -> tuple[bool, float, float, float, str]:
        score = round(oriented(chosen_by, float(np.mean(c.metric(metric) or [0.0]))), 12)
        last, loss = c.mean("last_dev_accuracy"), c.mean("best_dev_loss")
        after = c.configuration_id in diverged
        return (after, -score, -(last or 0.0), loss or 0.0, c.configuration_id)

    return tuple(sorted(members, key=order))


def grid_edge(tried: Iterable[float], best: Configuration, axis: str = "learning_rate") -> Edge | None:
    """Find out whether the best value of an axis is the highest or lowest one tried; None: it lies inside.

    `tried` are the values of all trials of the model, whatever their status. The proposal is two more steps in the ratio of
    the last one (whole numbers: doubled or halved).
    """
    values = sorted(set(tried))
    value = best.setting(axis)
    if value is None or not values:
        return None
    value = float(value)
    if len(values) == 1:
        return Edge(
            axis=axis, side="only", value=value, proposed=_next(axis, value, 0.5)[:1] + _next(axis, value, 2)[:1]
        )
    if value == values[-1]:
        return Edge(axis=axis, side="highest", value=value, proposed=_next(axis, value, values[-1] / values[-2]))
    if value == values[0] and (proposed := _next(axis, value, values[0] / values[1])):
        return Edge(axis=axis, side="lowest", value=value, proposed=proposed)
    return None  # it lies inside, or nothing lies below, such as no epoch


def _next(axis: str, value: float, ratio: float) -> tuple[float, ...]:
    if axis in ("batch_size", "epochs"):
        steps = (value * 2, value * 4) if ratio > 1 else (value // 2, value // 4)
        return tuple(step for step in steps if step >= 1)
    # Without bounds, a finely sampled axis (random search) proposes nothing new, and one with a far outlier the absurd.
    ratio = min(max(ratio, 1.25), 4.0) if ratio > 1 else max(min(ratio, 0.8), 0.25)
    return tuple(float(f"{value * ratio**power:.1e}") for power in (1, 2))


def searched_axes(members: Sequence[Configuration]) -> list[str]:
    """Return the settings that have more than one value."""
    return [axis for axis in _AXES if len({c.setting(axis) for c in members}) > 1]
