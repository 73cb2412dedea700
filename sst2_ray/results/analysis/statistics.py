"""The statistics behind every interval and every verdict, on scipy. Accuracies are fractions, 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are used: scipy.stats takes a second that a leaderboard can do without

FEW_DISCORDANT = 25
"""McNemar's test is exact below this many discordant pairs, the usual rule for its chi-square approximation."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    level: float = 0.95

    def within(self, lowest: float, highest: float) -> Interval:
        """Cut to what is possible: a t interval over few seeds may reach beyond the values that a share can have."""
        return Interval(low=max(lowest, self.low), high=min(highest, self.high), level=self.level)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A quantity over the seeds of one configuration."""

    num: int
    """Seeds."""
    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for one seed."""
    interval: Interval | None
    """t interval of the mean; None for one seed."""


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """A two-sided test."""

    name: str
    statistic: float
    p_value: float
    num: int
    """What was compared: seeds, discordant pairs or sentences."""
    interval: Interval | None = None
    """Of the mean difference, where the test has one."""


def wilson_interval(num_correct: int, num_total: int, level: float = 0.95) -> Interval:
    """Interval of one accuracy: the share p of n independent sentences, z the normal quantile of (1 + level) / 2:

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Source: E. B. Wilson, JASA 22 (1927) 209-212. Raises ValueError unless 0 <= num_correct <= num_total > 0.
    """
    if not 0 <= num_correct <= num_total or num_total == 0:
        raise ValueError(f"{num_correct} correct of {num_total}")
    found = scipy.stats.binomtest(num_correct, num_total).proportion_ci(confidence_level=level, method="wilson")
    return Interval(low=float(found.low), high=float(found.high), level=level)


def summarize(values: Sequence[float], level: float = 0.95) -> Summary:
    """Mean, sample standard deviation and t interval over seeds: mean -+ t(n-1) s / sqrt(n).

    Source: Student, Biometrika 6 (1908) 1-25. Raises ValueError for no value or one that is not finite.
    """
    data = np.asarray(values, dtype=float)
    if not data.size or not np.isfinite(data).all():
        raise ValueError(f"needs finite values, got {list(values)}")
    mean = float(data.mean())
    if data.size == 1:
        return Summary(num=1, mean=mean, sd=None, interval=None)
    sd = float(data.std(ddof=1))
    half = t_quantile(data.size, level) * sd / math.sqrt(data.size)
    return Summary(
        num=int(data.size), mean=mean, sd=sd, interval=Interval(low=mean - half, high=mean + half, level=level)
    )


def t_quantile(num: int, level: float = 0.95) -> float:
    """Two-sided quantile of Student's t with num - 1 degrees of freedom."""
    return float(scipy.special.stdtrit(num - 1, (1 + level) / 2))


def paired_t_test(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> TestResult:
    """Whether the mean of a - b over pairs (runs of two configurations under the same seed) differs from 0:
    t = d / (s_d / sqrt(n)) with n - 1 degrees of freedom; the interval is that of the mean difference.

    Source: Student, Biometrika 6 (1908) 1-25. Where all differences are equal s_d is 0: p is 1 if they are 0, else 0.
    Raises ValueError for unequal lengths or fewer than two pairs.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"needs at least two pairs, got {len(a)} and {len(b)} values")
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    summary = summarize(differences.tolist(), level)
    # Accuracies are ratios of small integers: differences below this are rounding.
    if summary.sd is not None and summary.sd < 1e-12:
        equal = abs(summary.mean) < 1e-12
        statistic, p_value = (0.0, 1.0) if equal else (math.copysign(math.inf, summary.mean), 0.0)
    else:
        found = scipy.stats.ttest_1samp(differences, 0.0)
        statistic, p_value = float(found.statistic), float(found.pvalue)
    return TestResult(
        name="paired t over seeds", statistic=statistic, p_value=p_value, num=len(a), interval=summary.interval
    )


def mcnemar(num_only_a: int, num_only_b: int) -> TestResult:
    """Whether two classifiers have the same error rate on the same sentences, from the two kinds of discordant pairs:
    sentences that only a gets right and sentences that only b gets right.

    Below `FEW_DISCORDANT` of them exact: the smaller count is Binomial(n, 1/2), two-sided. From there on
    chi2 = (|only_a - only_b| - 1)^2 / (only_a + only_b) with one degree of freedom.

    Sources: Q. McNemar, Psychometrika 12 (1947) 153-157; the continuity correction: A. L. Edwards, Psychometrika 13
    (1948) 185-187.
    """
    if num_only_a < 0 or num_only_b < 0:
        raise ValueError(f"counts must not be negative, got {num_only_a} and {num_only_b}")
    num = num_only_a + num_only_b
    if num < FEW_DISCORDANT:
        p_value = float(scipy.stats.binomtest(num_only_a, num, 0.5).pvalue) if num else 1.0
        return TestResult(name="McNemar, exact", statistic=float(min(num_only_a, num_only_b)), p_value=p_value, num=num)
    statistic = max(abs(num_only_a - num_only_b) - 1, 0) ** 2 / num
    return TestResult(name="McNemar", statistic=statistic, p_value=float(scipy.stats.chi2.sf(statistic, 1)), num=num)


def mcnemar_over_seeds(correct_a: Array, correct_b: Array) -> TestResult:
    """McNemar's test for classifiers that were each trained under several seeds.

    correct_a, correct_b: bool [seeds, sentences]; row i of both belongs to the same seed.

    Sentences are the units, as the answers of several seeds to one sentence are not independent. d_k is in how many
    more seeds a is right on sentence k than b. Where neither model is better, the sign of each d_k is a coin toss: p is
    the exact probability of a sum at least as far from 0 as the one seen, over all 2^n assignments of signs (found by
    convolution). For one seed every d_k is -1, 0 or 1 and this is the exact McNemar test; `mcnemar` is used there.

    Source: the randomization test for matched pairs, R. A. Fisher, The Design of Experiments (1935), section 21.
    Raises ValueError unless the shapes are equal and two-dimensional.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"needs two arrays [seeds, sentences] of one shape, got {a.shape} and {b.shape}")
    if a.shape[0] == 1:
        return mcnemar(int((a & ~b).sum()), int((b & ~a).sum()))
    differences = a.sum(axis=0) - b.sum(axis=0)
    return TestResult(
        name="McNemar by permutation",
        statistic=float(differences.sum() / a.size),
        p_value=_sign_flip_p_value(differences),
        num=int(np.count_nonzero(differences)),
    )


def _sign_flip_p_value(differences: Array) -> float:
    """P(|sum of +-d_k| >= |sum of d_k|) for independent fair signs, exactly."""
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    # Distribution of the number of plus signs, spread to steps of 2 * size: sum = -total + 2 * size * plus.
    distribution = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = scipy.stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, spread)
    total = len(distribution) - 1
    sums = 2 * np.arange(total + 1) - total
    return float(min(1.0, distribution[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def bootstrap_difference(
    correct_a: Array, correct_b: Array, *, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of accuracy(a) - accuracy(b), sentences being drawn with replacement.

    correct_a, correct_b: bool [seeds, sentences] or [sentences]. The difference of the shares of seeds that are right
    on a sentence has few distinct values, so a resample of the sentences is one multinomial draw of their counts.

    Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    a, b = np.atleast_2d(correct_a), np.atleast_2d(correct_b)
    if a.shape[1] != b.shape[1] or not a.shape[1]:
        raise ValueError(f"needs the same sentences for both, got {a.shape[1]} and {b.shape[1]}")
    differences = a.mean(axis=0) - b.mean(axis=0)
    values, counts = np.unique(differences, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(differences), counts / len(differences), size=num_resamples)
    means = draws @ values / len(differences)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level)


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
    """How far confidence can be believed."""

    bins: tuple[CalibrationBin, ...]
    expected_error: float
    """ECE: the gap between confidence and accuracy, a mean over the predictions."""


def calibration(probability: Array, label: Array, *, num_bins: int = 10) -> Calibration:
    """Expected calibration error of a binary classifier: sum over bins of n_b / n * |accuracy_b - confidence_b|.

    probability: of class 1, float [n]; label: 0 or 1, [n]. The confidence is that of the predicted class: it starts at
    0.5, and `num_bins` equal bins cover 0.5 to 1.

    Source: C. Guo et al., On Calibration of Modern Neural Networks (2017, arXiv 1706.04599), equation 3.
    """
    probability, label = np.asarray(probability, dtype=float), np.asarray(label)
    if probability.shape != label.shape or not probability.size:
        raise ValueError(f"needs one probability a label, got {probability.shape} and {label.shape}")
    confidence = np.maximum(probability, 1 - probability)
    right = (probability >= 0.5) == (label == 1)
    edges = np.linspace(0.5, 1.0, num_bins + 1)
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
    error = sum(b.num * abs(b.accuracy - b.confidence) for b in bins) / probability.size
    return Calibration(bins=tuple(bins), expected_error=float(error))
