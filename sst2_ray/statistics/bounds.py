"""Bounds on estimates: the least standard error that answers allow, and the range in which a metric lies."""

from __future__ import annotations

import dataclasses

import scipy

from sst2_ray.config.metrics import SHARES
from sst2_ray.statistics.crossed import Estimate


def at_least(estimate: Estimate, least_error: float) -> Estimate:
    """Raise a standard error to that of one sentence: runs that never differ on so few sentences do not prove equality.

    Args:
        estimate: A score other than accuracy, whose interval is value -+ t times the standard error, or a difference.
        least_error: What one sentence that is answered otherwise changes (`metrics.least_error`).
    """
    if estimate.standard_error >= least_error:
        return estimate
    df, level = estimate.degrees_of_freedom, estimate.interval.level
    half = float(scipy.special.stdtrit(df, (1 + level) / 2)) * least_error
    p_value = estimate.p_value
    if p_value is not None:
        p_value = min(1.0, 2 * float(scipy.special.stdtr(df, -abs(estimate.value) / least_error)))
    between = dataclasses.replace(estimate.interval, low=estimate.value - half, high=estimate.value + half)
    return dataclasses.replace(estimate, standard_error=least_error, interval=between, p_value=p_value)


def in_range(estimate: Estimate, metric: str) -> Estimate:
    """Cut the interval of a score, or of a difference of two (an estimate with a p value), to what the metric can be."""
    low, high = (0.0, 1.0) if metric in SHARES or metric == "auroc" else (-1.0, 1.0)
    if metric == "loss":
        low, high = 0.0, float("inf")
    if estimate.p_value is not None:
        low, high = low - high, high - low
    cut = dataclasses.replace(
        estimate.interval, low=max(low, estimate.interval.low), high=min(high, estimate.interval.high)
    )
    return dataclasses.replace(estimate, interval=cut)
