"""Statistics of one run or one set of answers, on scipy: intervals, means over seeds, McNemar's test, calibration.

Accuracies are fractions, 0 to 1. What holds for new seeds and new sentences is in crossed.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts on use: scipy.stats takes a second that a leaderboard does not need

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A quantity over the seeds of one configuration."""

    num: int
    """Seeds."""
    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for one seed."""


def wilson_interval(num_correct: int, num_total: int, level: float = 0.95) -> Interval:
    """Compute the interval of one accuracy, the share p of n independent sentences; z is the quantile of (1 + level) / 2:

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Source: E. B. Wilson, JASA 22 (1927) 209-212. Raises ValueError unless 0 <= num_correct <= num_total > 0.
    """
    if not 0 <= num_correct <= num_total or num_total == 0:
        raise ValueError(f"{num_correct} correct of {num_total}")
    found = scipy.stats.binomtest(num_correct, num_total).proportion_ci(confidence_level=level, method="wilson")
    return Interval(low=float(found.low), high=float(found.high), level=level)


def summarize(values: Sequence[float]) -> Summary:
    """Compute mean and sample standard deviation over seeds. Raises ValueError for no value or one that is not finite."""
    data = np.asarray(values, dtype=float)
    if not data.size or not np.isfinite(data).all():
        raise ValueError(f"needs finite values, got {list(values)}")
    sd = float(data.std(ddof=1)) if data.size > 1 else None
    return Summary(num=int(data.size), mean=float(data.mean()), sd=sd)


def mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Compute the two-sided mid-p value of McNemar's test that two runs have the same error rate on the same sentences.

    From the sentences that only a, and only b, gets right; under equality they are split by fair coins. The mid-p value
    counts half of the probability of the split seen, which keeps the level without the exact test's loss of power.

    Sources: McNemar, Psychometrika 12 (1947) 153-157; Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13
    (2013) 91. Raises ValueError for a negative count.
    """
    if num_only_a < 0 or num_only_b < 0:
        raise ValueError(f"counts must not be negative, got {num_only_a} and {num_only_b}")
    num, fewer = num_only_a + num_only_b, min(num_only_a, num_only_b)
    if num_only_a == num_only_b:
        return 1.0
    return float(2 * scipy.stats.binom.cdf(fewer, num, 0.5) - scipy.stats.binom.pmf(fewer, num, 0.5))


def f1(label: Array, predicted: Array) -> float:
    """Compute F1 of class 1 of two, else the mean over the classes that occur; 0 when there are no true positives."""
    numbers = np.unique(np.concatenate([label, predicted]))
    if numbers.size and numbers[-1] > 1:
        return float(np.mean([f1(label == number, predicted == number) for number in numbers]))
    hits = int(np.sum((label == 1) & (predicted == 1)))
    return 2 * hits / (int(np.sum(label == 1)) + int(np.sum(predicted == 1))) if hits else 0.0


def matthews(label: Array, predicted: Array) -> float:
    """Compute Matthews' correlation coefficient of the classes of two arrays (R_K of more than two), 0 for a constant one.

    Source: Gorodkin, Computational Biology and Chemistry 28 (2004) 367-374.
    """
    numbers = np.unique(np.concatenate([label, predicted]))
    a, b = (np.equal.outer(numbers, values).astype(float) for values in (label, predicted))  # [classes, sentences]
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    spread = float((a * a).sum() * (b * b).sum()) ** 0.5
    return float((a * b).sum()) / spread if spread else 0.0


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """The predictions whose confidence lies in (low, high]."""

    low: float
    high: float
    num: int
    confidence: float
    """Mean confidence; 0 for an empty bin."""
    accuracy: float
    """Share that is right; 0 for an empty bin."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Agreement of confidence with accuracy."""

    bins: tuple[CalibrationBin, ...]
    expected_error: float
    """ECE: the gap between confidence and accuracy, a mean over the predictions."""
    floor: float
    """ECE that a perfectly calibrated model shows on average, given so many sentences."""


def calibration(probability: Array, label: Array, *, num_bins: int = 10) -> Calibration:
    """Compute the expected calibration error of a binary classifier: sum over bins of n_b / n * |accuracy_b - confidence_b|.

    The confidence is that of the predicted class, so `num_bins` equal bins cover 0.5 to 1. The floor is the same sum with
    the mean absolute deviation of a binomial share, for as many sentences as the bin holds per run.

    Args:
        probability: of class 1, float [sentences] or [runs, sentences].
        label: 0 or 1, [sentences].

    Source: Guo et al., "On calibration of modern neural networks" (2017, arXiv 1706.04599), equation 3.
    """
    rows = np.atleast_2d(np.asarray(probability, dtype=float))
    label = np.asarray(label)
    if rows.shape[1:] != label.shape or not rows.size:
        raise ValueError(f"needs one probability a label, got {rows.shape} and {label.shape}")
    confidence = np.maximum(rows, 1 - rows).ravel()
    right = ((rows >= 0.5) == (label == 1)).ravel()
    return binned(confidence, right, lowest=0.5, num_runs=len(rows), num_bins=num_bins)


def binned(confidence: Array, right: Array, *, lowest: float, num_runs: int = 1, num_bins: int = 10) -> Calibration:
    """Compare confidence with accuracy in equal bins of confidence from `lowest` to 1.

    Args:
        confidence: Probability of the answer, [predictions].
        right: bool, [predictions].
        lowest: Least confidence that an answer can have: 1 / classes.
        num_runs: Runs that the predictions are of, on the same sentences.
        num_bins: Bins.
    """
    edges = np.linspace(lowest, 1.0, num_bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    bins = []
    for i in range(num_bins):
        inside = index == i
        bins.append(
            CalibrationBin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                num=int(inside.sum()),
                confidence=float(confidence[inside].mean()) if inside.any() else 0.0,
                accuracy=float(right[inside].mean()) if inside.any() else 0.0,
            )
        )
    shares = np.array([b.num for b in bins]) / len(confidence)
    gaps = np.array([abs(b.accuracy - b.confidence) for b in bins])
    chance = np.array([_mean_deviation(-(-b.num // num_runs), b.confidence) for b in bins])
    return Calibration(bins=tuple(bins), expected_error=float(shares @ gaps), floor=float(shares @ chance))


def _mean_deviation(num: int, share: float) -> float:
    """Compute the mean absolute deviation of a binomial share (de Moivre)."""
    if num == 0:
        return 0.0
    above = int(num * share) + 1
    return float(2 * above * (1 - share) * scipy.stats.binom.pmf(above, num, share)) / num
