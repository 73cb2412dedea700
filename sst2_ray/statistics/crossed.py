"""Intervals and tests for scores of models that were trained under several seeds and scored on the same sentences.

Seeds are crossed with sentences: every run answers every sentence, so a mean accuracy varies with the sentences drawn, with
the seeds drawn and with what a seed does to single sentences. An interval over seeds alone holds for these sentences only,
one over sentences alone for these runs only; readers take both for a statement about new seeds and new sentences, which is
what this module computes. Model: x[s, i] = mean + sentence[i] + seed[s] + residual[s, i], all effects random.

Sources: Obuchowski and Rockette, Communications in Statistics 24 (1995) 285-308, and Hillis, Statistics in Medicine 33 (2014)
330-360 (readers crossed with cases); Satterthwaite, Biometrics Bulletin 2 (1946) 110-114 (degrees of freedom); Bouthillier
et al., "Accounting for variance in machine learning benchmarks", MLSys 2021; Jordan, "On the variance of neural network
training with respect to test sets and distributions", ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from sst2_ray.statistics.scores import Array, Interval


@dataclass(frozen=True, kw_only=True)
class SeedVariance:
    """Variance between the runs of a configuration, its own or pooled over several."""

    mean_square: float
    """S2(a): mean sample variance of the runs' scores. It contains residual / sentences."""
    residual: float
    """R: mean residual square after row and column means."""
    degrees_of_freedom: int

    def component(self, num_sentences: int) -> float:
        """Return the variance of the seed effect alone, at least 0."""
        return max(0.0, self.mean_square - self.residual / num_sentences)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score, or a difference of two, with what it can vary by over new seeds and new sentences."""

    value: float
    standard_error: float
    degrees_of_freedom: float
    interval: Interval
    p_value: float | None
    """Two-sided p value of a difference of 0; None for a single score."""
    num_seeds: tuple[int, ...]
    """Seeds of each configuration."""
    num_sentences: int
    covers_seeds: bool
    """False: single runs without a known seed variance, so the interval is over sentences alone."""
    sentence_variance: float
    """Variance component of sentences."""
    seed_variance: float
    """Variance component of seeds, summed over the configurations."""
    residual_variance: float
    """Variance component of a seed with a sentence, summed over the configurations."""

    def within(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of two one-sided tests at 1 - level: its confidence is 2 level - 1."""
        half = float(scipy.special.stdtrit(self.degrees_of_freedom, level)) * self.standard_error
        return self.value - half, self.value + half

    def is_within(self, margin: float) -> bool:
        """Return whether two one-sided tests show that the value lies inside ±margin (TOST).

        Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987) 657-680.
        """
        low, high = self.within(self.interval.level)
        return -margin < low and high < margin


def interval(correct: Array, *, seed_variance: SeedVariance | None = None, level: float = 0.95) -> Estimate:
    """Estimate the accuracy of a configuration over new seeds and new sentences.

    With n seeds, N sentences, m[i] the mean of sentence i over seeds and a[s] the accuracy of seed s:

        Var(mean) = S2(m) / N + S2(a) / n - R / (n N), at least S2(m) / N

    where S2 is a sample variance and R the residual mean square after row and column means, which the first two terms both
    contain. Degrees of freedom by Satterthwaite, of the sum of the first two terms. Of right and wrong answers the interval
    is Wilson's at the effective sample size (Korn and Graubard, Survey Methodology 24 (1998) 193-201), so for one seed
    Wilson's over the sentences; of other scores it is the value -+ t times the standard error.

    Args:
        correct: bool [seeds, sentences], or float for a score that is a mean over sentences.
        seed_variance: pooled over configurations (`pool`); None: this configuration's own.
    """
    x = _checked(correct)
    parts = _Parts.of(x, seed_variance)
    value, error = float(x.mean()), math.sqrt(parts.variance)
    df = _satterthwaite(parts.sentences, x.shape[1], [parts], same_pool=False)
    t = float(scipy.special.stdtrit(df, (1 + level) / 2))
    low, high = value - t * error, value + t * error
    if np.asarray(correct).dtype == bool:
        low, high = _wilson(value, parts.variance, x.shape[1], t)
    return _estimate([x], [parts], value, error, df, Interval(low=low, high=high, level=level), p_value=None)


def compare(
    correct_a: Array,
    correct_b: Array,
    *,
    seed_variance: SeedVariance | tuple[SeedVariance | None, SeedVariance | None] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate the accuracy of a minus that of b over new seeds and new sentences, with a two-sided t test of 0.

    Both answered the same sentences, in the same order; seeds of two configurations are not pairs. With the terms of
    `interval`, each divided by its own number of seeds:

        Var(difference) = S2(mA - mB) / N + S2(aA) / nA + S2(aB) / nB - RA / (nA N) - RB / (nB N), at least S2(mA - mB) / N

    A standard error of right and wrong answers is at least that of one sentence on which the two differ: no sentence that
    differs among 30 is no proof of equality.

    Args:
        correct_a, correct_b: bool or float, [seeds, sentences] with the same sentences.
        seed_variance: pooled over configurations, one for both or one each; None: each one's own.

    Raises:
        ValueError: the arrays have other numbers of sentences.
    """
    a, b = _checked(correct_a), _checked(correct_b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"needs the same sentences for both, got {a.shape[1]} and {b.shape[1]}")
    pair = seed_variance if isinstance(seed_variance, tuple) else (seed_variance, seed_variance)
    parts = [_Parts.of(x, variance) for x, variance in zip((a, b), pair, strict=True)]
    num = a.shape[1]
    sentence = float((a.mean(axis=0) - b.mean(axis=0)).var(ddof=1)) / num
    if np.asarray(correct_a).dtype == np.asarray(correct_b).dtype == bool:
        sentence = max(sentence, 1 / num**2)
    seeds = sum(p.seeds - p.overlap for p in parts)
    variance = sentence + max(0.0, seeds)
    same_pool = pair[0] is not None and pair[0] is pair[1]
    df = _satterthwaite(sentence, num, parts, same_pool=same_pool)
    value, error = float(a.mean() - b.mean()), math.sqrt(variance)
    t = float(scipy.special.stdtrit(df, (1 + level) / 2))
    p_value = 1.0 if value == 0 else 2 * float(scipy.special.stdtr(df, -abs(value) / error)) if error else 0.0
    between = Interval(low=value - t * error, high=value + t * error, level=level)
    return _estimate([a, b], parts, value, error, df, between, p_value=p_value)


def pool(samples: Sequence[Array]) -> SeedVariance | None:
    """Pool the seed variance over configurations on the same sentences, weighted by their degrees of freedom.

    Configurations of a sweep have few seeds each, together they have many. None when none has two seeds.
    """
    several = [_checked(sample) for sample in samples if len(sample) > 1]
    if not several:
        return None
    weights = [len(x) - 1 for x in several]
    squares = [_mean_squares(x) for x in several]
    return SeedVariance(
        mean_square=float(np.average([a for a, _ in squares], weights=weights)),
        residual=float(np.average([r for _, r in squares], weights=weights)),
        degrees_of_freedom=sum(weights),
    )


def of_score(
    score: Callable[[Array, Array], float],
    labels: Array,
    answers_a: Array,
    answers_b: Array | None = None,
    *,
    seed_variance: SeedVariance | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate any score, or the difference of two configurations in it, by a jackknife over sentences crossed with seeds.

    A run's pseudo-value of sentence i is N score - (N - 1) score without i; `interval` and `compare` treat these as they
    treat right and wrong. For scores that are means, such as accuracy, they are the sentences' own values.

    Args:
        score: takes labels [sentences] and one run's answers [sentences], returns a number.
        labels: [sentences].
        answers_a, answers_b: predictions or probabilities, [seeds, sentences].

    Source: Dorfman, Berbaum and Metz, Investigative Radiology 27 (1992) 723-731 (pseudo-values of readers and cases).
    """
    a = pseudo_values(score, labels, answers_a)
    if answers_b is None:
        return interval(a, seed_variance=seed_variance, level=level)
    return compare(a, pseudo_values(score, labels, answers_b), seed_variance=seed_variance, level=level)


def pseudo_values(score: Callable[[Array, Array], float], labels: Array, answers: Array) -> Array:
    """Compute jackknife pseudo-values, float [seeds, sentences], whose mean over a row is that run's score."""
    num = len(labels)
    rows = []
    for row in np.atleast_2d(answers):
        whole = score(labels, row)
        # Sentences with equal label and answer have equal pseudo-values: of predictions there are four kinds.
        _, first, kind_of = np.unique(np.stack([labels, row]), axis=1, return_index=True, return_inverse=True)
        without = np.array([score(np.delete(labels, i), np.delete(row, i)) for i in first])
        values = (num * whole - (num - 1) * without)[kind_of.reshape(-1)]
        rows.append(values - values.mean() + whole)
    return np.array(rows)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Terms of the variance of one configuration's mean, each already divided by its number of observations."""

    sentences: float
    """S2(m) / N."""
    seeds: float
    """S2(a) / n."""
    overlap: float
    """R / (n N)."""
    seed_df: float
    component: float
    """Variance component of seeds."""
    residual: float
    """R."""

    @staticmethod
    def of(x: Array, pooled: SeedVariance | None) -> _Parts:
        n, num = x.shape
        square, residual, df = 0.0, 0.0, 0.0
        if pooled is not None:
            square, residual, df = pooled.mean_square, pooled.residual, pooled.degrees_of_freedom
        elif n > 1:
            (square, residual), df = _mean_squares(x), n - 1
        return _Parts(
            sentences=float(x.mean(axis=0).var(ddof=1)) / num,
            seeds=square / n,
            overlap=residual / (n * num),
            seed_df=df,
            component=max(0.0, square - residual / num),
            residual=residual,
        )

    @property
    def variance(self) -> float:
        return self.sentences + max(0.0, self.seeds - self.overlap)


def _satterthwaite(sentence: float, num: int, parts: Sequence[_Parts], *, same_pool: bool) -> float:
    terms = sentence**2 / (num - 1)
    known = [p for p in parts if p.seed_df]
    if same_pool and known:
        terms += sum(p.seeds for p in known) ** 2 / known[0].seed_df
    else:
        terms += sum(p.seeds**2 / p.seed_df for p in known)
    return (sentence + sum(p.seeds for p in known)) ** 2 / terms if terms > 0 else float(num - 1)


def _mean_squares(x: Array) -> tuple[float, float]:
    """Return the sample variance of the runs' scores and the residual mean square."""
    by_sentence, by_seed = x.mean(axis=0), x.mean(axis=1)
    residual = x - by_sentence - by_seed[:, None] + x.mean()
    return float(by_seed.var(ddof=1)), float((residual**2).sum()) / ((x.shape[0] - 1) * (x.shape[1] - 1))


def _wilson(share: float, variance: float, num: int, t: float) -> tuple[float, float]:
    """Return Wilson's interval at the number of independent sentences that would have this variance."""
    own = num * (share * (1 - share) / (num - 1))
    # Right everywhere, or nowhere: these answers say nothing of their own variance, and a pooled one would leave no sentences.
    effective = own / variance if variance > 0 and own > 0 else float(num)
    squared = t**2 / effective
    center = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return max(0.0, center - half), min(1.0, center + half)


def _estimate(
    samples: Sequence[Array], parts: Sequence[_Parts], value: float, error: float, df: float, between: Interval, *,
    p_value: float | None,
) -> Estimate:  # fmt: skip
    num = samples[0].shape[1]
    means = samples[0].mean(axis=0) - (samples[1].mean(axis=0) if len(samples) > 1 else 0.0)
    known = all(p.seed_df for p in parts)
    from_residual = sum(p.residual / len(x) for p, x in zip(parts, samples, strict=True)) if known else 0.0
    return Estimate(
        value=value,
        standard_error=error,
        degrees_of_freedom=df,
        interval=between,
        p_value=p_value,
        num_seeds=tuple(len(x) for x in samples),
        num_sentences=num,
        covers_seeds=known,
        sentence_variance=max(0.0, float(means.var(ddof=1)) - from_residual),
        seed_variance=sum(p.component for p in parts) if known else 0.0,
        residual_variance=sum(p.residual for p in parts) if known else 0.0,
    )


def _checked(values: Array) -> Array:
    x = np.atleast_2d(np.asarray(values, dtype=float))
    if x.ndim != 2 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise ValueError(f"needs finite values [seeds, sentences] of at least two sentences, got shape {x.shape}")
    return x
