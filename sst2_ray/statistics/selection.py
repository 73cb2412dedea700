"""Statistics of a choice among many configurations: which may be the best, and what having chosen does to a figure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from sst2_ray.statistics import crossed
from sst2_ray.statistics.crossed import SeedVariance
from sst2_ray.statistics.scores import Array, Interval

NUM_DRAWS = 4_000


@dataclass(frozen=True, kw_only=True)
class Search:
    """Mean scores of configurations on the same sentences, with the covariance of their errors."""

    means: Array
    """[configurations]."""
    covariance: Array
    """Covariance of the errors over new sentences and new seeds, [configurations, configurations]."""
    degrees_of_freedom: float
    smallest_error: float
    """Least standard error of a difference: that of one sentence on which two configurations differ."""
    seed_degrees_of_freedom: float

    @staticmethod
    def of(
        samples: Sequence[Array], variances: Sequence[SeedVariance | None], smallest_error: float | None = None
    ) -> Search:
        """Build it from values [seeds, sentences] of every configuration and their seed variances.

        The smallest error of a difference is that of one sentence of a mean of right and wrong unless it is given.

        The covariance is that of the sentence means over the number of sentences, plus each configuration's seed variance
        over its seeds. Degrees of freedom: those of the average comparison of two (Satterthwaite).
        """
        by_sentence = np.array([np.asarray(x, dtype=float).mean(axis=0) for x in samples])
        num = by_sentence.shape[1]
        own = [variance or crossed.pool([x]) for x, variance in zip(samples, variances, strict=True)]
        known = [one for one in own if one is not None]
        seeds = [one.component(num) / len(x) if one else 0.0 for x, one in zip(samples, own, strict=True)]
        covariance = np.atleast_2d(np.cov(by_sentence)) / num + np.diag(seeds)
        df = [
            crossed.compare(x, samples[0], seed_variance=(variance, variances[0])).degrees_of_freedom
            for x, variance in zip(samples[1:], variances[1:], strict=True)
        ]
        return Search(
            means=by_sentence.mean(axis=1),
            covariance=covariance,
            degrees_of_freedom=1 / float(np.mean([1 / one for one in df])) if df else float(num - 1),
            smallest_error=1 / num if smallest_error is None else smallest_error,
            seed_degrees_of_freedom=min([num - 1.0, *(own.degrees_of_freedom for own in known)]),
        )

    def draws(self, seed: int = 0, *, normal: bool = False) -> Array:
        """Draw errors of all configurations: multivariate t, or normal, [draws, configurations]."""
        random = np.random.default_rng(seed)
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        errors = random.standard_normal((NUM_DRAWS, len(self.means))) @ root.T
        if normal:
            return np.asarray(errors)
        chi = random.chisquare(self.degrees_of_freedom, NUM_DRAWS) / self.degrees_of_freedom
        return np.asarray(errors / np.sqrt(chi)[:, None])

    def possible_bests(self, level: float = 0.95, num_missing: int = 0) -> list[int]:
        """Return the configurations that may be the best, best first, by simultaneous two-sided intervals at `level`.

        A configuration is excluded when some other is better by more than the max-T quantile of its comparisons with all
        others, so the truly best is in the set with at least the confidence of the level. With `num_missing` further
        configurations, whose answers are not known, the quantile is Bonferroni's, at the fewest degrees of freedom.

        Source: Hsu, Multiple Comparisons: Theory and Methods (1996), chapter 4 (multiple comparisons with the best).
        """
        num, kept = len(self.means), []
        df = self.seed_degrees_of_freedom if num_missing else self.degrees_of_freedom
        one, all_of_them = (
            float(scipy.special.stdtrit(df, 1 - (1 - level) / 2 / tests))
            for tests in (1, max(1, num - 1 + num_missing))
        )
        draws = self.draws() if num > 2 and not num_missing else None
        for i in np.argsort(-self.means, kind="stable").tolist():
            others = np.arange(num) != i
            variance = np.diag(self.covariance) + self.covariance[i, i] - 2 * self.covariance[i]
            error = np.sqrt(np.maximum(variance, self.smallest_error**2))
            ahead = self.means - self.means[i]
            # Answers of a regression that are all alike have no error: equal ones do not exclude each other.
            statistic = np.divide(ahead, error, out=np.where(ahead > 0, np.inf, ahead), where=error > 0)[others].max(
                initial=-np.inf
            )
            bound = all_of_them
            if draws is not None and one < statistic <= all_of_them:  # the max-T quantile lies between the two
                largest = ((draws - draws[:, [i]]) / np.where(error > 0, error, np.inf))[:, others].max(axis=1)
                bound = float(np.quantile(largest, (1 + level) / 2))
            if statistic <= bound:
                kept.append(i)
        return kept

    def bias_of_best(self) -> float:
        """Estimate by how much the best mean overstates its configuration, for having been chosen by it.

        Parametric bootstrap: draw new means around those measured, choose the best, and average its error. The draws are
        normal: the average of t's tails is no property of the choice, and with two degrees of freedom it is endless.
        """
        errors = self.draws(normal=True)
        chosen = np.argmax(self.means + errors, axis=1)
        return max(0.0, float(errors[np.arange(len(errors)), chosen].mean()))


def after_choice(interval: Interval, bias: float, *, less_is_better: bool = False) -> Interval:
    """Shift the interval of the best score of a search by its bias, to where the truth is expected.

    Args:
        interval: As if the configuration had not been chosen.
        bias: Estimated excess of the score (`Search.bias_of_best`), at least 0.
        less_is_better: The score is a loss.
    """
    shift = bias if less_is_better else -bias
    return dataclasses.replace(interval, low=interval.low + shift, high=interval.high + shift)


def p_of_larger_search(search: Search, num_a: int, difference: float, level: float = 0.95) -> tuple[float, float]:
    """Compute the p value and the half width of best(a) - best(b), when all configurations are equal.

    The best of many equal configurations beats the best of few by chance: the distribution of the difference of the two
    maxima is drawn from the covariance. Configurations of a come first, `num_a` of them.

    Returns:
        The two-sided p value of `difference` > 0, and the quantile of the difference at (1 + level) / 2.
    """
    draws = search.draws()
    maxima = draws[:, :num_a].max(axis=1) - draws[:, num_a:].max(axis=1)
    p_value = min(1.0, 2 * float((maxima >= difference).mean()))
    return p_value, float(np.quantile(maxima, (1 + level) / 2))


def expected_best(scores: Sequence[float]) -> list[float]:
    """Compute the expected best score of k of the configurations drawn without replacement, for k = 1, 2, ...

    Unbiased: the sum over sorted scores x(i) of C(i - 1, k - 1) / C(n, k) x(i).

    Sources: Dodge et al., "Show your work", EMNLP 2019; Tang et al., "Showing your work doesn't always work", ACL 2020.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    num = len(ordered)
    index = np.arange(num)
    found = []
    for k in range(1, num + 1):
        logs = [
            math.lgamma(i + 1) - math.lgamma(k) - math.lgamma(i - k + 2) if i >= k - 1 else -math.inf for i in index
        ]
        total = math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1)
        weights = np.exp(np.array(logs) - total)
        found.append(float(weights / weights.sum() @ ordered))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values of several tests by Holm's step-down method.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted
