"""Planning: the smallest difference that a design shows, and how many seeds or sentences a difference needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy

from sst2_ray.statistics.crossed import Estimate
from sst2_ray.statistics.scores import Interval

POWER = 0.8
"""Share of studies in which a detectable difference is seen: four of five."""

_MAX_PLANNED = 1_000_000


def knows_noise(estimate: Estimate) -> bool:
    """Tell whether its answers differ at all; where none does, its variance says nothing of other designs."""
    return estimate.sentence_variance + estimate.seed_variance + estimate.residual_variance > 0


def detectable(estimate: Estimate) -> float:
    """Return the smallest true difference that the design of an estimated difference shows in four of five studies."""
    return estimate.standard_error * _factor(estimate.interval.level, estimate.degrees_of_freedom)


def planned_error(estimate: Estimate, num_seeds: float, num_sentences: int) -> float:
    """Return the standard error of a difference with other numbers of seeds and sentences, from its variance components."""
    sentence = (estimate.sentence_variance + estimate.residual_variance / num_seeds) / num_sentences
    return math.sqrt(sentence + estimate.seed_variance / num_seeds)


def variance_shares(estimate: Estimate) -> tuple[float, float, float]:
    """Return the shares of sentences, of seeds and of both together in the variance of a difference, as it was measured."""
    seeds = _harmonic_mean(estimate.num_seeds)
    parts = (
        estimate.sentence_variance / estimate.num_sentences,
        estimate.seed_variance / seeds,
        estimate.residual_variance / (seeds * estimate.num_sentences),
    )
    total = sum(parts)
    return (parts[0] / total, parts[1] / total, parts[2] / total) if total else (1.0, 0.0, 0.0)


def planned_difference(estimate: Estimate, num_seeds: float, num_sentences: int) -> float:
    """Return the smallest difference that a design shows in four of five studies; of the design that was run, `detectable`."""
    own_seeds = _harmonic_mean(estimate.num_seeds)
    own, error = (
        planned_error(estimate, n, num) for n, num in ((own_seeds, estimate.num_sentences), (num_seeds, num_sentences))
    )
    if own > 0 and estimate.standard_error > 0:  # the measured error, which is bounded below, may exceed its components
        error *= estimate.standard_error / own
    df = _planned_degrees(estimate, num_seeds, num_sentences)
    return _factor(estimate.interval.level, df) * error


def seeds_needed(estimate: Estimate, difference: float) -> int | None:
    """Return how many seeds of each show a difference in four of five studies; None: its sentences are too few."""
    return smallest(lambda n: planned_difference(estimate, n, estimate.num_sentences), difference)


def sentences_needed(estimate: Estimate, difference: float) -> int | None:
    """Return how many sentences show a difference in four of five studies; None: its seeds are too few."""
    seeds = round(_harmonic_mean(estimate.num_seeds))
    return smallest(lambda n: planned_difference(estimate, seeds, n), difference)


def typical_difference(*, of_models: bool) -> Estimate:
    """Return an estimate of no difference with variance components that fine-tuned encoders typically have, to plan from.

    Two seeds of a configuration answer 3 % of the sentences differently, two configurations of a model 3.5 %, two models
    5.5 %, at an accuracy of 94 %; little of it is a run that is better as a whole (Jordan, ICLR 2024).

    Args:
        of_models: Two models; False: two configurations of one.
    """
    by_seed, between = 0.03, 0.055 if of_models else 0.035
    return Estimate(
        value=0.0,
        standard_error=0.0,
        degrees_of_freedom=math.inf,
        interval=Interval(low=0.0, high=0.0),
        p_value=None,
        num_seeds=(3, 3),
        num_sentences=872,
        covers_seeds=True,
        sentence_variance=between - by_seed,
        seed_variance=0.0,
        residual_variance=by_seed,
    )


def bias_of_best(estimate: Estimate, num_configurations: int, num_seeds: int, num_sentences: int) -> float:
    """Return by how much the best of equally good configurations looks better than it is: the expected largest error.

    `estimate`: of the difference of two of them.
    """
    if num_configurations < 2:
        return 0.0
    grid, step = np.linspace(-8.0, 8.0, 4001, retstep=True)
    # The expected value is 8 less the integral of the distribution of the largest from -8 to 8.
    expected = 8.0 - float((scipy.special.ndtr(grid) ** num_configurations).sum() * step)
    return expected * planned_error(estimate, num_seeds, num_sentences) / math.sqrt(2)


def _factor(level: float, df: float) -> float:
    """Return the detectable difference in standard errors."""
    return float(scipy.special.stdtrit(df, (1 + level) / 2) + scipy.special.stdtrit(df, POWER))


def _harmonic_mean(num_seeds: Sequence[int]) -> float:
    return len(num_seeds) / sum(1 / n for n in num_seeds)


def _planned_degrees(estimate: Estimate, num_seeds: float, num_sentences: int) -> float:
    """Return the degrees of freedom of another design, by Satterthwaite as those of the one that was run.

    What the seeds have of them follows from those of the whole, and grows with their number.
    """
    if math.isinf(estimate.degrees_of_freedom):
        return math.inf
    own_seeds, own_sentences = _harmonic_mean(estimate.num_seeds), estimate.num_sentences
    sentence, seed = _terms(estimate, own_seeds, own_sentences)
    rest = (sentence + seed) ** 2 / estimate.degrees_of_freedom - sentence**2 / (own_sentences - 1)
    seed_df = seed**2 / rest if rest > 0 else math.inf

    def satterthwaite(n: float, num: int) -> float:
        sentence, seed = _terms(estimate, n, num)
        grown = seed_df * max(n - 1, 1.0) / max(own_seeds - 1, 1.0)
        terms = sentence**2 / max(num - 1, 1) + (seed**2 / grown if grown else 0.0)
        return (sentence + seed) ** 2 / terms if terms else float(num - 1)

    ratio = satterthwaite(num_seeds, num_sentences) / satterthwaite(own_seeds, own_sentences)
    return estimate.degrees_of_freedom * ratio


def _terms(estimate: Estimate, num_seeds: float, num_sentences: int) -> tuple[float, float]:
    """Return the mean squares over sentences and over seeds, each of which holds what both do together (crossed.py)."""
    both = estimate.residual_variance / (num_seeds * num_sentences)
    return estimate.sentence_variance / num_sentences + both, estimate.seed_variance / num_seeds + both


def smallest(shown: Callable[[int], float], difference: float) -> int | None:
    """Return the smallest number whose design shows the difference, by bisection."""
    if difference <= 0 or shown(_MAX_PLANNED) > difference:
        return None
    low, high = 0, _MAX_PLANNED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) <= difference else (middle, high)
    return high
