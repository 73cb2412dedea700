"""Token arrays of the tests' own: sentences of given lengths, every token telling its row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sst2_ray.data.tokens import TokenArrays


def token_arrays(lengths: Sequence[int], *, vocabulary: int = 300) -> TokenArrays:
    """Row i holds `lengths[i]` tokens, drawn from 5 .. vocabulary - 1; its label is i % 2."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    random = np.random.default_rng(len(lengths))
    return TokenArrays(
        input_ids=random.integers(5, vocabulary, size=int(offsets[-1]), dtype=np.int32),
        offsets=offsets,
        labels=(np.arange(len(lengths)) % 2).astype(np.int8),
        row_ids=np.arange(len(lengths), dtype=np.int64),
        num_truncated=0,
    )


def review_lengths(num_rows: int, *, seed: int = 0) -> list[int]:
    """Lengths distributed about as SST-2's training sentences: mean 13, most below 10, few above 50."""
    drawn = np.random.default_rng(seed).gamma(1.6, 7.0, size=num_rows)
    return np.clip(np.rint(drawn) + 3, 3, 66).astype(int).tolist()
