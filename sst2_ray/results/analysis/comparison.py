"""Whether one configuration is better than another, or the difference is noise: a win, a tie, or not decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray import formatting
from sst2_ray.results.analysis import statistics
from sst2_ray.results.analysis.ranking import SHARES, Configuration, Run
from sst2_ray.results.analysis.statistics import Interval, TestResult

Verdict = Literal["win", "tie", "unknown"]
Values = Mapping[Any, float]
"""One figure a run, by what pairs the runs (see `pairing`)."""

FEW_SEEDS = 3
"""Below this many, a t test over seeds alone decides nothing: with two it rejects from |t| = 12.7 on, and also wherever two
small differences happen to be alike."""

_LOWER_IS_BETTER = ("loss", "seconds", "cost")
_OF_PREDICTIONS = ("best_dev_accuracy", "dev_accuracy")
"""What the stored predictions, those of the best epochs on dev, are answers to."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Whether configuration a is better than b, in one metric."""

    a: Configuration
    b: Configuration
    metric: str
    mean_a: float
    """Over the seeds that both have, if there are any."""
    mean_b: float
    verdict: Verdict
    """win: the test over seeds rejects chance, and the one over sentences, which from `FEW_SEEDS` seeds on may be missing.
    tie: one of them does not reject. unknown: there is no test over seeds, and the one over sentences does not say that it
    is a tie; or one over fewer than `FEW_SEEDS` seeds, which says nothing alone."""
    over_seeds: TestResult | None
    """Paired t over the common seeds; None with fewer than two of them."""
    over_sentences: TestResult | None
    """McNemar on the stored predictions (of the best epochs); None where there are none for the same sentences."""
    interval: Interval | None
    """95 % interval of the difference: over sentences (bootstrap) where predictions are stored, else over seeds (t)."""
    reason: str
    """What the verdict rests on, in words."""

    @property
    def difference(self) -> float:
        """a minus b."""
        return self.mean_a - self.mean_b

    @property
    def winner(self) -> Configuration | None:
        """None unless the verdict is a win."""
        if self.verdict != "win":
            return None
        lower = any(word in self.metric for word in _LOWER_IS_BETTER)
        return self.a if (self.difference < 0) == lower else self.b


def compare(
    a: Configuration,
    b: Configuration,
    *,
    predictions: pa.Table | None = None,
    metric: str = "best_dev_accuracy",
    values: tuple[Values, Values] | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Whether two configurations differ by more than chance.

    predictions: rows of that data set for the runs of both; used for `_OF_PREDICTIONS` only. metric: a column of
    `trials` that all seeds have, or a name for `values`.

    Two sources of chance are tested apart: seeds (paired t) and sentences (McNemar). A win needs every test that can be
    made to reject at `alpha`; one alone would call a configuration better that only had lucky seeds, or easy sentences.
    Raises ValueError for a metric that a seed lacks.
    """
    by_run_a, by_run_b = values or (_by_run(a, metric), _by_run(b, metric))
    common = sorted(by_run_a.keys() & by_run_b.keys(), key=str)
    over_seeds = None
    if len(common) >= 2:
        over_seeds = statistics.paired_t_test([by_run_a[s] for s in common], [by_run_b[s] for s in common])
    over_sentences, interval = None, over_seeds.interval if over_seeds else None
    correct = _correct(a, b, predictions) if predictions is not None and metric in _OF_PREDICTIONS else None
    if correct is not None:
        over_sentences = statistics.mcnemar_over_seeds(*correct)
        interval = statistics.bootstrap_difference(*correct)
    verdict, reason = _judge(over_seeds, over_sentences, alpha)
    if verdict == "unknown" and metric in _OF_PREDICTIONS and correct is None:
        reason = f"{reason}, and no predictions of these evaluations are stored"
    return Comparison(
        a=a,
        b=b,
        metric=metric,
        mean_a=_mean(by_run_a, common),
        mean_b=_mean(by_run_b, common),
        verdict=verdict,
        reason=reason,
        over_seeds=over_seeds,
        over_sentences=over_sentences,
        interval=interval.within(-1, 1) if interval and metric.endswith(SHARES) else interval,
    )


def _mean(by_run: Values, common: list[Any]) -> float:
    """Over the runs that the tests are about; over all where no two have a seed in common."""
    return float(np.mean([by_run[key] for key in common or by_run]))


def pairing(run: Run) -> Any:
    """What pairs the runs of two configurations: the seed; a run without one has no partner."""
    return run.seed if run.seed is not None else (run.experiment, run.trial_id)


def _by_run(configuration: Configuration, metric: str) -> dict[Any, float]:
    values = configuration.metric(metric)
    if values is None:
        raise ValueError(f"{configuration.label}: not every seed has {metric}")
    return {pairing(run): value for run, value in zip(configuration.runs, values, strict=True)}


def _correct(a: Configuration, b: Configuration, predictions: pa.Table) -> tuple[Any, Any] | None:
    """Right or wrong as bool [seeds, sentences] for both, over common seeds; None unless all of them stored predictions
    for exactly the same sentences."""
    rows_a, rows_b = ({pairing(run): answers(run, predictions) for run in c.runs} for c in (a, b))
    pairs = [(rows_a[seed], rows_b[seed]) for seed in rows_a if seed in rows_b]
    # Without a common seed the runs are paired as they come: here it is the sentences that are matched.
    pairs = pairs or list(zip(rows_a.values(), rows_b.values(), strict=False))
    found = [(x, y) for x, y in pairs if x is not None and y is not None]
    if not found or len(found) < len(pairs):
        return None
    reference = found[0][0]
    for one in (one for pair in found for one in pair):
        if not np.array_equal(one.row_id, reference.row_id) or not np.array_equal(one.label, reference.label):
            return None
    return np.stack([x.correct for x, _ in found]), np.stack([y.correct for _, y in found])


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one run's best model said of each sentence, by row id; every array is [sentences]."""

    row_id: statistics.Array
    label: statistics.Array
    predicted: statistics.Array
    probability: statistics.Array
    """Of class 1; not a number where it was not stored."""

    @property
    def correct(self) -> statistics.Array:
        return np.asarray(self.label == self.predicted)


def answers(run: Run, predictions: pa.Table) -> Answers | None:
    """The stored predictions of a run; None without any."""
    mine = predictions.filter((pc.field("experiment") == run.experiment) & (pc.field("trial_id") == run.trial_id))
    if not mine.num_rows or mine.column("label").null_count or mine.column("predicted").null_count:
        return None
    mine = mine.sort_by("row_id")
    columns = {name: mine.column(name).to_numpy() for name in ("row_id", "label", "predicted", "probability")}
    return Answers(**columns)


def _judge(over_seeds: TestResult | None, over_sentences: TestResult | None, alpha: float) -> tuple[Verdict, str]:
    said = []
    if over_seeds is not None:
        said.append(f"paired t over {over_seeds.num} seeds: {formatting.p_value(over_seeds.p_value)}")
    else:
        said.append("fewer than two seeds in common, so the noise between seeds is not known")
    if over_sentences is not None:
        discordant = formatting.count(over_sentences.num, "sentence")
        said.append(f"{over_sentences.name}, {discordant} that differ: {formatting.p_value(over_sentences.p_value)}")
    if over_sentences is not None and over_sentences.p_value >= alpha:
        return "tie", "; ".join(said)
    if over_seeds is None:
        return "unknown", "; ".join(said)
    few = over_seeds.num < FEW_SEEDS
    if over_seeds.p_value < alpha and not (few and over_sentences is None):
        return "win", "; ".join(said)
    return ("unknown", "; ".join([*said, "too few seeds to tell"])) if few else ("tie", "; ".join(said))
