"""Stored answers of configurations: what every run said of every sentence, which all intervals and verdicts rest on."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import chdtri

from sst2_ray.config.metrics import REGRESSION_METRICS
from sst2_ray.results.analysis.ranking import Configuration, Run, model_label
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics import crossed
from sst2_ray.statistics.crossed import Estimate, SeedVariance
from sst2_ray.statistics.metrics import row_values, value_contributions
from sst2_ray.statistics.scores import Array, f1, matthews
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
"""Those of regressions."""
_SCORES = {
    ("dev", "accuracy"): "best_dev_accuracy",
    ("dev", "f1"): "best_dev_f1",
    ("dev", "loss"): "best_dev_loss",
    ("selection", "accuracy"): "selection_accuracy",
}
"""Columns of `trials` that hold a run's score, with or without stored answers."""
_OUTLIER_LEVEL = 0.01


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Answers of one configuration to the same sentences under every seed."""

    row_id: Array
    """[sentences], ascending."""
    label: Array
    """[sentences]."""
    predicted: Array
    """[seeds, sentences]."""
    probability: Array
    """Probability of class 1 of two, else of the answer, [seeds, sentences]; NaN when it was not stored."""
    is_values: bool = False
    """True: labels and answers are the values of a regression."""

    @property
    def is_multiclass(self) -> bool:
        """Return whether there are more than two classes; probabilities are then those of the answers."""
        return not self.is_values and bool(self.label.max(initial=0) > 1 or self.predicted.max(initial=0) > 1)

    @property
    def correct(self) -> Array:
        """Right answers, bool [seeds, sentences]."""
        return np.asarray(self.predicted == self.label)

    def values(self, metric: str) -> Array | None:
        """Return per-sentence values whose mean over a row is a run's score, [seeds, sentences]; None when not stored.

        metric: accuracy (bool), loss (cross entropy in nats; two classes), scores of classes and auroc (jackknife
        pseudo-values); of a regression pearson and spearman.
        """
        if self.is_values:
            known = metric in REGRESSION_METRICS
            return np.array([value_contributions(metric, self.label, one) for one in self.predicted]) if known else None
        if metric == "accuracy":
            return self.correct
        if metric in ("macro_f1", "weighted_f1", "auroc") or (metric in ("f1", "mcc") and self.is_multiclass):
            return self._row_values(metric)
        if metric not in ("f1", "mcc", "loss"):
            return None
        if metric == "loss":
            if not np.isfinite(self.probability).all() or self.is_multiclass:
                return None
            chosen = np.where(self.label == 1, self.probability, 1 - self.probability)
            return np.asarray(-np.log(np.maximum(chosen, 1e-38)))
        return crossed.pseudo_values({"f1": f1, "mcc": matthews}[metric], self.label, self.predicted)

    def _row_values(self, metric: str) -> Array | None:
        if metric == "auroc" and (self.is_multiclass or not np.isfinite(self.probability).all()):
            return None
        scores = self.probability if metric == "auroc" else [None] * len(self.predicted)
        rows = [row_values(metric, self.label, one, score) for one, score in zip(self.predicted, scores, strict=True)]
        return None if any(row is None for row in rows) else np.array(rows)

    def is_on_sentences_of(self, other: Sample) -> bool:
        """Return whether both hold the same sentences with the same labels."""
        return np.array_equal(self.row_id, other.row_id) and np.array_equal(self.label, other.label)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The configurations of one study with their stored answers to the sentences of one split."""

    configurations: tuple[Configuration, ...]
    samples: Mapping[str, Sample]
    """By configuration id; a configuration with a run whose answers were not stored is missing."""
    split: str
    chosen_by: str = "accuracy"
    """Metric that the configurations are chosen by."""
    _pools: dict[str, dict[str, SeedVariance]] = field(default_factory=dict, init=False, repr=False)

    def sample(self, configuration: Configuration) -> Sample | None:
        """Return the stored answers; None when those of a run are missing."""
        return self.samples.get(configuration.configuration_id)

    def values(self, configuration: Configuration, metric: str) -> Array | None:
        """Return per-sentence values (`Sample.values`); None when not stored."""
        sample = self.sample(configuration)
        return None if sample is None else sample.values(metric)

    def estimate(self, configuration: Configuration, metric: str = "accuracy") -> Estimate | None:
        """Estimate a score over new seeds and new sentences; None when its sentences were not stored."""
        values = self.values(configuration, metric)
        return None if values is None else crossed.interval(values, seed_variance=self.variance(configuration, metric))

    def variance(self, configuration: Configuration, metric: str = "accuracy") -> SeedVariance | None:
        """Return the seed variance pooled over the configurations of a model; None when none has two seeds."""
        return self._variances(metric).get(configuration.configuration_id)

    def search(self, configurations: Sequence[Configuration]) -> Search | None:
        """Return means (more is better) and covariance of configurations in the metric that they are chosen by.

        None when one has no stored answers, or answered other sentences, or its seed variance is not known.
        """
        samples = [self.sample(c) for c in configurations]
        variances = [self.variance(c, self.chosen_by) for c in configurations]
        stored = [s for s in samples if s is not None and samples[0] is not None and s.is_on_sentences_of(samples[0])]
        values = [v for s in stored if (v := s.values(self.chosen_by)) is not None]
        if not values or len(values) < len(samples) or any(v is None for v in variances):
            return None
        return Search.of([-v for v in values] if self.chosen_by == "loss" else values, variances)

    @functools.cached_property
    def majority_share(self) -> float | None:
        """Accuracy of always answering the more frequent class; None without stored answers."""
        for sample in self.samples.values():
            if sample.is_values:
                return None
            return float(np.unique(sample.label, return_counts=True)[1].max() / len(sample.label))
        return None

    def num_collapsed(self, configuration: Configuration) -> int:
        """Count the seeds whose accuracy is within two standard errors of the majority share, or below it.

        Such runs, which often answer one class only, did not learn (Dodge et al. 2020, arXiv 2002.06305; Mosbach et al.
        2021, arXiv 2006.04884).
        """
        share, scores = self.majority_share, configuration.metric(_SCORES[self.split, "accuracy"])
        if share is None or scores is None:
            return 0
        num = len(next(iter(self.samples.values())).label)
        return sum(score <= share + 2 * (share * (1 - share) / num) ** 0.5 for score in scores)

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
        collapsed = {c.configuration_id for c in members if self.num_collapsed(c)}
        odd = collapsed | _too_large({i: v for i, v in own.items() if i not in collapsed})
        pooled = _pooled([v for i, v in own.items() if i not in odd])
        usual = {c.configuration_id for c in members} - odd
        return {i: v for i, v in own.items() if i in odd} | (dict.fromkeys(usual, pooled) if pooled else {})

    def _own_variance(self, configuration: Configuration, metric: str) -> SeedVariance | None:
        values = self.values(configuration, metric)
        if values is not None:
            return crossed.pool([values])
        scores = configuration.metric(self._column(metric))
        if scores is None or len(scores) < 2:
            return None
        return SeedVariance(mean_square=float(np.var(scores, ddof=1)), residual=0.0, degrees_of_freedom=len(scores) - 1)


def _pooled(own: Sequence[SeedVariance]) -> SeedVariance | None:
    if not own:
        return None
    weights = [one.degrees_of_freedom for one in own]
    return SeedVariance(
        mean_square=float(np.average([one.mean_square for one in own], weights=weights)),
        residual=float(np.average([one.residual for one in own], weights=weights)),
        degrees_of_freedom=sum(weights),
    )


def _too_large(own: Mapping[str, SeedVariance]) -> set[str]:
    """Return the members whose variance is an outlier for a scaled chi-square, its scale taken from the median."""
    median = float(np.median([one.mean_square for one in own.values()])) if len(own) > 2 else 0.0
    return {
        i
        for i, one in own.items()
        if 0.0
        < median * chdtri(one.degrees_of_freedom, _OUTLIER_LEVEL / len(own)) / chdtri(one.degrees_of_freedom, 0.5)
        < one.mean_square
    }


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
    found = {}
    for configuration in configurations:
        answers = [_answers(run, by_run) for run in configuration.runs]
        stored = [a for a in answers if a is not None]
        if len(stored) == len(answers) and all(np.array_equal(a[:2], stored[0][:2]) for a in stored):
            found[configuration.configuration_id] = Sample(
                row_id=stored[0][0].astype(int),
                label=stored[0][1].astype(kind),
                predicted=np.array([a[2] for a in stored]).astype(kind),
                is_values=is_values,
                probability=np.array([a[3] for a in stored]),
            )
    return Evidence(configurations=tuple(configurations), samples=found, split=split, chosen_by=chosen_by)


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


def _answers(run: Run, by_run: Mapping[tuple[str, str], Array]) -> Array | None:
    found = by_run.get((run.experiment, run.trial_id))
    if found is None or found.shape[1] < 2 or not np.isfinite(found[:3]).all():
        return None
    step = run.values.get("best_global_step")
    return found if step is None or (found[4] == step).all() else None
