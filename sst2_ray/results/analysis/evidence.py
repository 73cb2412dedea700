"""Stored answers of configurations: what every run said of every sentence, which all intervals and verdicts rest on."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray.results.analysis.lacks import Lack, lack_of
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.analysis.sample import Sample
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics import crossed
from sst2_ray.statistics.bounds import at_least, in_range
from sst2_ray.statistics.crossed import Estimate, SeedVariance
from sst2_ray.statistics.pools import pooled, too_large
from sst2_ray.statistics.scores import Array, matthews
from sst2_ray.statistics.selection import Search

MAX_CONFIGURATIONS = 200
"""Configurations of a study whose answers are read, the best first."""

COLUMNS = (
    "experiment", "trial_id", "split", "global_step", "row_id", "label", "predicted", "probability", "label_value",
    "predicted_value",
)  # fmt: skip
METRICS = ("accuracy", "f1", "mcc", "loss")
"""Metrics that two sides are compared in, after the one that both were chosen by."""
VALUE_METRICS = ("spearman", "pearson")
"""Metrics of regressions."""
_SCORES = {
    ("dev", "accuracy"): "best_dev_accuracy",
    ("dev", "f1"): "best_dev_f1",
    ("dev", "loss"): "best_dev_loss",
    ("selection", "accuracy"): "selection_accuracy",
}
"""Columns of `trials` that hold a run's score, with or without stored answers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The configurations of one study with their stored answers to the sentences of one split."""

    configurations: tuple[Configuration, ...]
    samples: Mapping[str, Sample]
    """Samples by configuration id; a configuration with a run whose answers were not stored is missing."""
    split: str
    chosen_by: str = "accuracy"
    """Metric that the configurations are chosen by."""
    lacks: Mapping[str, Lack] = field(default_factory=dict)
    """Reason why a sample is missing, by configuration id; else its predictions were not stored."""
    _pools: dict[str, dict[str, SeedVariance]] = field(default_factory=dict, init=False, repr=False)

    def sample(self, configuration: Configuration) -> Sample | None:
        """Return the stored answers; None when those of a run are missing."""
        return self.samples.get(configuration.configuration_id)

    def values(self, configuration: Configuration, metric: str) -> Array | None:
        """Return per-sentence values (`Sample.values`); None when not stored."""
        sample = self.sample(configuration)
        return None if sample is None else sample.values(metric)

    def lack(self, configuration: Configuration, metric: str = "accuracy") -> Lack | None:
        """Return why there are no values of a configuration; None when there are."""
        sample = self.sample(configuration)
        if sample is None:
            return self.lacks.get(configuration.configuration_id, Lack.NOT_STORED)
        if sample.values(metric) is not None:
            return None
        if metric == "loss" and sample.is_multiclass:
            return Lack.LOSS_OF_CLASSES
        no_probabilities = metric in ("loss", "auroc") and not np.isfinite(sample.probability).all()
        return Lack.NO_PROBABILITIES if no_probabilities else Lack.NOT_DEFINED

    def estimate(self, configuration: Configuration, metric: str = "accuracy") -> Estimate | None:
        """Estimate a score over new seeds and new sentences; None when its sentences were not stored."""
        values = self.values(configuration, metric)
        if values is None:
            return None
        estimate = crossed.interval(values, seed_variance=self.variance(configuration, metric))
        if metric != "accuracy":
            estimate = at_least(estimate, self.least_error([configuration], metric))
        return in_range(estimate, metric)

    def least_error(self, configurations: Sequence[Configuration], metric: str) -> float:
        """Return the least standard error that configurations with stored answers can have."""
        return max(self.samples[c.configuration_id].least_error(metric) for c in configurations)

    def variance(self, configuration: Configuration, metric: str = "accuracy") -> SeedVariance | None:
        """Return the seed variance pooled over the configurations of a model; None when none has two seeds."""
        return self._variances(metric).get(configuration.configuration_id)

    def is_known(self, configuration: Configuration) -> bool:
        """Return whether there are answers in the metric that configurations are chosen by, and a seed variance."""
        known = self.lack(configuration, self.chosen_by) is None
        return known and self.variance(configuration, self.chosen_by) is not None

    def search(self, configurations: Sequence[Configuration], metric: str | None = None) -> Search | None:
        """Return means (more is better) and covariance of configurations in a metric; None: that they are chosen by.

        None when one has no stored answers, or answered other sentences, or its seed variance is not known.
        """
        metric = metric or self.chosen_by
        variances = [self.variance(c, metric) for c in configurations]
        if not self._are_on_the_same(configurations) or any(v is None for v in variances):
            return None
        values = [v for c in configurations if (v := self.values(c, metric)) is not None]
        if len(values) < len(configurations):
            return None
        least = self.least_error(configurations, metric)
        return Search.of([-v for v in values] if metric == "loss" else values, variances, least)

    def _are_on_the_same(self, configurations: Sequence[Configuration]) -> bool:
        """Return whether all have stored answers, to the same sentences; False for none."""
        samples = [self.sample(c) for c in configurations]
        first = samples[0] if samples else None
        return first is not None and all(one is not None and one.is_on_sentences_of(first) for one in samples)

    @functools.cached_property
    def majority_share(self) -> float | None:
        """Accuracy of always answering the more frequent class; None without stored answers."""
        for sample in self.samples.values():
            if sample.is_values:
                return None
            return float(np.unique(sample.label, return_counts=True)[1].max() / len(sample.label))
        return None

    def num_collapsed(self, configuration: Configuration) -> int:
        """Count the seeds that did not learn: no better than the majority share, their answers unrelated to the labels.

        Accuracy within two standard errors of the majority share, or below it, and Matthews' coefficient, where the answers
        are stored, within two of 0 (Dodge et al. 2020, arXiv 2002.06305; Mosbach et al. 2021, arXiv 2006.04884).
        """
        near, sample = self._near_majority(configuration), self.sample(configuration)
        if sample is None or not any(near):
            return sum(near)
        bound = 2 / len(sample.label) ** 0.5
        return sum(matthews(sample.label, one) <= bound for one, at in zip(sample.predicted, near, strict=True) if at)

    def _near_majority(self, configuration: Configuration) -> list[bool]:
        share, scores = self.majority_share, configuration.metric(_SCORES[self.split, "accuracy"])
        if share is None or share == 1 or scores is None:
            return []
        num = len(next(iter(self.samples.values())).label)
        bound = share + 2 * (share * (1 - share) / num) ** 0.5
        if bound >= 1:  # so few sentences tell no model from the majority share
            bound = share
        return [score <= bound for score in scores]

    def _column(self, metric: str) -> str:
        """Return the column of `trials` that holds a run's score, with or without stored answers; empty: there is none."""
        if metric == self.chosen_by != "accuracy":
            return "best_score" if self.split == "dev" else "selection_score"
        return _SCORES.get((self.split, metric), "")

    def _variances(self, metric: str) -> dict[str, SeedVariance]:
        """Pool the seed variance by model.

        A configuration whose own variance is too large for its model's pool (chi-square test at 1 %) keeps its own and stays
        out of the pool, as do those with a collapsed seed. A configuration without stored answers counts by the scores of
        its trials; its residual is taken for 0, which only widens intervals. Without such scores nothing is pooled: a pool
        of those that happen to be stored could be narrower than that of all.
        """
        if metric not in self._pools:
            members: dict[str, list[Configuration]] = {}
            for c in self.configurations:
                members.setdefault(model_label(c.setting), []).append(c)
            self._pools[metric] = {i: v for found in members.values() for i, v in self._pool(found, metric).items()}
        return self._pools[metric]

    def _pool(self, members: Sequence[Configuration], metric: str) -> dict[str, SeedVariance]:
        own = {c.configuration_id: v for c in members if (v := self._own_variance(c, metric)) is not None}
        column = self._column(metric)
        if any(c.metric(column) is None for c in members):
            return own
        collapsed = {c.configuration_id for c in members if any(self._near_majority(c))}
        odd = collapsed | too_large({i: v for i, v in own.items() if i not in collapsed})
        shared = pooled([v for i, v in own.items() if i not in odd])
        usual = {c.configuration_id for c in members} - odd
        return {i: v for i, v in own.items() if i in odd} | (dict.fromkeys(usual, shared) if shared else {})

    def _own_variance(self, configuration: Configuration, metric: str) -> SeedVariance | None:
        values = self.values(configuration, metric)
        if values is not None:
            return crossed.pool([values])
        scores = configuration.metric(self._column(metric))
        if scores is None or len(scores) < 2:
            return None
        return SeedVariance(mean_square=float(np.var(scores, ddof=1)), residual=0.0, degrees_of_freedom=len(scores) - 1)


def load(
    table: ResultsTable, configurations: Sequence[Configuration], split: str, chosen_by: str = "accuracy"
) -> Evidence:
    """Read the answers of the configurations of one study to the sentences of a split, up to `MAX_CONFIGURATIONS`."""
    runs = [run for configuration in configurations[:MAX_CONFIGURATIONS] for run in configuration.runs]
    rows = table.read(
        "predictions",
        columns=COLUMNS,
        experiment={run.experiment for run in runs},
        trial_ids={run.trial_id for run in runs},
        filter=pc.field("split") == split,
        attempts="latest",
    )
    return collect(rows, configurations, split, chosen_by)


def collect(
    predictions: pa.Table, configurations: Sequence[Configuration], split: str = "dev", chosen_by: str = "accuracy"
) -> Evidence:
    """Group rows of `predictions` by configuration, as far as every run answered the same sentences.

    Answers count only if they are those of the run's best evaluation, which its scores are of.
    """
    by_run = _by_run(predictions)
    is_values = predictions.num_rows > 0 and predictions.column("label").null_count == predictions.num_rows
    kind = float if is_values else int
    found: dict[str, Sample] = {}
    lacks: dict[str, Lack] = {}
    for number, configuration in enumerate(configurations):
        stored = [by_run.get((run.experiment, run.trial_id)) for run in configuration.runs]
        lack = Lack.NOT_READ if number >= MAX_CONFIGURATIONS else lack_of(configuration.runs, stored)
        if lack is not None:
            lacks[configuration.configuration_id] = lack
            continue
        answers = [a for a in stored if a is not None]
        found[configuration.configuration_id] = Sample(
            row_id=answers[0][0].astype(int),
            label=answers[0][1].astype(kind),
            predicted=np.array([a[2] for a in answers]).astype(kind),
            is_values=is_values,
            probability=np.array([a[3] for a in answers]),
        )
    return Evidence(configurations=tuple(configurations), samples=found, split=split, chosen_by=chosen_by, lacks=lacks)


def _by_run(predictions: pa.Table) -> dict[tuple[str, str], Array]:
    """Return row id, label, predicted, probability and step, [5, sentences], by experiment and trial."""
    order = [(name, "ascending") for name in ("experiment", "trial_id", "row_id")]
    there = [name for name in COLUMNS if name in predictions.column_names]
    rows = predictions.select(there).sort_by(order).combine_chunks()
    names = ("row_id", "label", "predicted", "probability", "global_step")
    numbers = np.stack([_numbers(rows, name) for name in names])
    keys = [rows.column(name).to_pylist() for name in ("experiment", "trial_id")]
    runs = list(zip(*keys, strict=True))
    starts = [i for i in range(len(runs)) if i == 0 or runs[i] != runs[i - 1]]
    return {runs[a]: numbers[:, a:b] for a, b in itertools.pairwise([*starts, len(runs)])}


def _numbers(rows: pa.Table, name: str) -> Array:
    """Return a column as floats, NaN where it is null; of a regression the value that stands in its place."""
    found = np.asarray(rows.column(name).cast(pa.float64()).to_numpy(), dtype=float)
    if f"{name}_value" not in rows.column_names:
        return found
    return np.where(np.isnan(found), np.asarray(rows.column(f"{name}_value").to_numpy(), dtype=float), found)
