"""Which configuration is best: means over seeds, rankings of what may be compared, the edge of the grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from sst2_ray import formatting
from sst2_ray.errors import FailureClass
from sst2_ray.records import Status
from sst2_ray.results.analysis.statistics import Summary, summarize
from sst2_ray.results.store.query import counted_runs

Metric = Literal["best_dev_accuracy", "last_dev_accuracy", "selection_accuracy"]

SHARES = ("accuracy", "f1")
"""How the names of metrics end that lie between 0 and 1."""

_AXES = ("learning_rate", "batch_size", "weight_decay", "warmup_fraction", "epochs")
"""Settings that a sweep may search, in the order in which they are named."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One counted run: the row of `trials` that ended it."""

    experiment: str
    trial_id: str
    seed: int | None
    values: Mapping[str, Any]
    """The whole row, by column."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Runs that differ in nothing but their seed."""

    configuration_id: str
    runs: tuple[Run, ...]
    """By seed."""

    @property
    def seeds(self) -> tuple[int | None, ...]:
        return tuple(run.seed for run in self.runs)

    def under(self, seeds: Collection[int | None]) -> Configuration:
        """With the runs of these seeds alone."""
        return dataclasses.replace(self, runs=tuple(run for run in self.runs if run.seed in seeds))

    @property
    def label(self) -> str:
        """The model (and that it began with random weights, where it did), its learning rate and batch size."""
        learning_rate = formatting.learning_rate(self.setting("learning_rate"))
        return f"{model_label(self.setting)}, lr {learning_rate}, batch {self.setting('batch_size') or formatting.NONE}"

    def setting(self, name: str) -> Any:
        """A column of `trials` that all seeds share, e.g. learning_rate."""
        return self.runs[0].values.get(name)

    def metric(self, name: str) -> list[float] | None:
        """A column over the seeds; None unless every seed has it."""
        values = [run.values.get(name) for run in self.runs]
        return None if any(value is None for value in values) else [float(v) for v in values if v is not None]

    def summary(self, name: str) -> Summary | None:
        """Mean, standard deviation and interval of a column over the seeds; None unless every seed has it."""
        values = self.metric(name)
        if values is None or not np.isfinite(values).all():
            return None
        found = summarize(values)
        if found.interval is None or not name.endswith(SHARES):
            return found
        return dataclasses.replace(found, interval=found.interval.within(0, 1))


@dataclass(frozen=True, kw_only=True)
class RankedGroup:
    """Configurations that may be ranked together: same evaluation data, same number of seeds, same metric."""

    eval_split: str | None
    data_fingerprint: str | None
    num_seeds: int
    metric: Metric
    """What the mean over seeds is taken of."""
    configurations: tuple[Configuration, ...]
    """Best first."""

    @property
    def best(self) -> Configuration:
        return self.configurations[0]

    def score(self, configuration: Configuration) -> float:
        """The mean that it is ranked by."""
        return float(np.mean(configuration.metric(self.metric) or [float("nan")]))

    def reported(self, *chosen: Configuration) -> Metric:
        """What chosen configurations are compared by in the end: dev, where they were chosen on a held-out part of
        train and have been scored on dev since."""
        scored = all(c.summary("best_dev_accuracy") is not None for c in chosen)
        return "best_dev_accuracy" if scored else self.metric

    def best_per_model(self) -> list[Configuration]:
        """The best configuration of each model, best first."""
        first: dict[str, Configuration] = {}
        for configuration in self.configurations:
            first.setdefault(model_label(configuration.setting), configuration)
        return list(first.values())


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The best value of an axis is the last that was tried."""

    axis: str
    side: Literal["highest", "lowest", "only"]
    value: float
    proposed: tuple[float, ...]
    """The next values to try."""


def model_label(setting: Callable[[str], Any]) -> str:
    """The model's name, with '(random weights)' where it did not start from pretrained ones.

    setting: gives the value of a column of `trials`.
    """
    name = str(setting("model") or "unknown model")
    return f"{name} (random weights)" if setting("random_weights") else name


def configurations(trials: pa.Table) -> list[Configuration]:
    """The configurations that have a counted run. The same configuration on other evaluation data is another one.

    trials: rows of the latest attempts, with all columns that are asked for later.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for row in counted_runs(trials).to_pylist():
        key = (row["configuration"], row["data_fingerprint"], row["eval_split"])
        run = Run(experiment=row["experiment"], trial_id=row["trial_id"], seed=row["seed"], values=row)
        groups.setdefault(key, []).append(run)
    return [Configuration(configuration_id=key[0], runs=tuple(runs)) for key, runs in groups.items()]


def rank(trials: pa.Table, *, metric: Metric | None = None) -> list[RankedGroup]:
    """Configurations by their mean over seeds, those with unequal numbers of seeds or other data apart.

    metric: None: the accuracy on the held-out part of train where a run chose by that, else the best dev accuracy.
    The group with the most seeds comes first, of those the one with the most configurations; empty where nothing succeeded.
    Where a sweep ended before most configurations had their seeds, and one of those that lack some is better on the seeds
    that it has, all are ranked on these: the one that had more would otherwise be the best whatever it scored. One that
    diverged under a seed lacks it for good, and does not gain by it.
    """
    diverged = _diverged(trials)
    comparable: dict[tuple[Any, ...], list[Configuration]] = {}
    for configuration in configurations(trials):
        chosen = metric or ("selection_accuracy" if configuration.metric("selection_accuracy") else "best_dev_accuracy")
        if configuration.summary(chosen) is None:
            continue
        first = configuration.runs[0].values
        comparable.setdefault((first["eval_split"], first["data_fingerprint"], chosen), []).append(configuration)
    groups = [
        RankedGroup(
            eval_split=split,
            data_fingerprint=fingerprint,
            num_seeds=len(members[0].runs),
            metric=chosen,
            configurations=_sorted(members, chosen),
        )
        for (split, fingerprint, chosen), found in comparable.items()
        for members in _of_equal_seeds(found, chosen, diverged)
    ]
    return sorted(groups, key=lambda g: (-g.num_seeds, -len(g.configurations), g.eval_split or "", g.metric))


def without_unranked_runs(trials: pa.Table, groups: Sequence[RankedGroup]) -> pa.Table:
    """The trials without the runs under seeds that `rank` left out: a leaderboard of them agrees with it."""
    ranked: dict[str, set[tuple[str, str]]] = {}
    for configuration in (c for group in groups for c in group.configurations):
        runs = {(run.experiment, run.trial_id) for run in configuration.runs}
        ranked.setdefault(configuration.configuration_id, set()).update(runs)

    def is_left_out(row: Mapping[str, Any]) -> bool:
        runs = ranked.get(row["configuration_id"])
        return (
            runs is not None and row["status"] == Status.SUCCEEDED and (row["experiment"], row["trial_id"]) not in runs
        )

    rows = trials.select(["configuration_id", "status", "experiment", "trial_id"]).to_pylist()
    return trials.filter(pa.array([not is_left_out(row) for row in rows], pa.bool_()))


def _diverged(trials: pa.Table) -> set[str]:
    """Configurations whose loss was not a number under some seed."""
    rows = trials.select(["configuration_id", "failure_class"]).to_pylist()
    return {row["configuration_id"] for row in rows if row["failure_class"] == FailureClass.NON_FINITE}


def _of_equal_seeds(found: list[Configuration], metric: Metric, diverged: Collection[str]) -> list[list[Configuration]]:
    """Of configurations on the same data: those with as many seeds together, those with the most first."""
    most = max(len(c.runs) for c in found)
    leaders = [c for c in found if len(c.runs) == most]
    fewer = [c for c in found if len(c.runs) < most and c.configuration_id not in diverged]
    overtaking = [c for c in fewer if _overtakes(c, leaders, metric)]
    if overtaking and 2 * len(leaders) <= len(found):
        seeds = max(overtaking, key=lambda c: (len(c.runs), _score(c, metric))).seeds
        found = [c.under(seeds) if set(seeds) <= set(c.seeds) else c for c in found]
        return _of_equal_seeds(found, metric, diverged)
    rest = [c for c in found if len(c.runs) < most]
    return [leaders, *(_of_equal_seeds(rest, metric, diverged) if rest else [])]


def _overtakes(one: Configuration, leaders: list[Configuration], metric: Metric) -> bool:
    """Whether it is better, on the seeds that it has, than all of the same sweep that have more."""
    experiments = {run.experiment for run in one.runs}
    rivals = [c for c in leaders if set(one.seeds) <= set(c.seeds) and experiments & {run.experiment for run in c.runs}]
    return (
        None not in one.seeds
        and bool(rivals)
        and all(_score(one, metric) > _score(c.under(one.seeds), metric) for c in rivals)
    )


def _score(configuration: Configuration, metric: Metric) -> float:
    return round(float(np.mean(configuration.metric(metric) or [0.0])), 12)


def _sorted(members: list[Configuration], metric: Metric) -> tuple[Configuration, ...]:
    def order(c: Configuration) -> tuple[Any, ...]:
        last, loss = c.summary("last_dev_accuracy"), c.summary("best_dev_loss")
        return (-_score(c, metric), -last.mean if last else 0.0, loss.mean if loss else 0.0, c.configuration_id)

    return tuple(sorted(members, key=order))


def grid_edge(tried: Iterable[float], best: Configuration, axis: str = "learning_rate") -> Edge | None:
    """Whether the best value of an axis is the highest or lowest that its model was tried with; None: it lies inside.

    tried: the values of all trials of the model, whatever became of them.
    Proposed are two more steps in the same ratio as the last one (whole numbers: doubled or halved).
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
    if value == values[0]:
        return Edge(axis=axis, side="lowest", value=value, proposed=_next(axis, value, values[0] / values[1]))
    return None


def _next(axis: str, value: float, ratio: float) -> tuple[float, ...]:
    if axis in ("batch_size", "epochs"):
        steps = (value * 2, value * 4) if ratio > 1 else (value // 2, value // 4)
        return tuple(step for step in steps if step >= 1)
    # A finely sampled axis (random search) would propose hardly anything new, one with a far outlier something absurd.
    ratio = min(max(ratio, 1.25), 4.0) if ratio > 1 else max(min(ratio, 0.8), 0.25)
    return tuple(float(f"{value * ratio**power:.1e}") for power in (1, 2))


def searched_axes(members: Sequence[Configuration]) -> list[str]:
    """The settings that have more than one value."""
    return [axis for axis in _AXES if len({c.setting(axis) for c in members}) > 1]
