"""Seed variances of several configurations: their pool, and those that are too large for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy  # loads its parts on use

from sst2_ray.statistics.crossed import SeedVariance

_OUTLIER_LEVEL = 0.01


def pooled(own: Sequence[SeedVariance]) -> SeedVariance | None:
    """Pool the variances of configurations, weighted by their degrees of freedom; None where there are none."""
    if not own:
        return None
    weights = [one.degrees_of_freedom for one in own]
    return SeedVariance(
        mean_square=float(np.average([one.mean_square for one in own], weights=weights)),
        residual=float(np.average([one.residual for one in own], weights=weights)),
        degrees_of_freedom=sum(weights),
    )


def too_large(own: Mapping[str, SeedVariance]) -> set[str]:
    """Return the members whose variance is an outlier for a scaled chi-square, its scale taken from the median."""
    median = float(np.median([one.mean_square for one in own.values()])) if len(own) > 2 else 0.0
    limits = {
        df: median * scipy.special.chdtri(df, _OUTLIER_LEVEL / len(own)) / scipy.special.chdtri(df, 0.5)
        for df in {one.degrees_of_freedom for one in own.values()}
    }
    return {i for i, one in own.items() if 0.0 < limits[one.degrees_of_freedom] < one.mean_square}
