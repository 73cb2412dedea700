"""Keyed dropout: masks depend on the seed, the optimizer step and the row alone.

A run therefore draws the same masks on 1 worker or 64, with any micro-batching, and after any resume: no random state
has to be saved. The masks are a counter-based hash in plain int32 tensor operations, which all cores of a CPU compute,
where torch's `bernoulli_` uses one. One hash of 32 bits decides about two neighbors on the last axis.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sst2_ray.modeling.layout.packing import Packing
from sst2_ray.modeling.layout.varlen import Varlen

# Odd 32-bit constants with well-spread bits, as two's-complement int32: the golden ratio, and murmur3's finalizer.
_GOLDEN = -1640531535  # 0x9E3779B1
_MIX1 = -2048144789  # 0x85EBCA6B
_MIX2 = -1028477387  # 0xC2B2AE35

_AXIS_STRIDE = 1 << 13
"""Distance of two heads' places: 8,192 query positions, the longest context of an encoder here."""


def row_keys(*, seed: int, global_step: int, row_ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """Hash (seed, step, row) to one key a row, int32 [rows], by SplitMix64's finalizer."""
    with np.errstate(over="ignore"):
        z = row_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(global_step) * np.uint64(0xD1B54A32D192ED03) + np.uint64(seed) * np.uint64(0x8CB92BA72F3D8DD7)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(32)).astype(np.uint32).view(np.int32)


class DropoutKeys:
    """Keys of the micro-batch being computed, shared by all dropout sites of a model."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # int32 [rows]
        self.layout: Packing | Varlen | None = None

    def set(self, keys: Tensor | None) -> None:
        """Take int32 [rows] for the batch that follows; None: torch's own dropout."""
        self.keys = keys

    @contextmanager
    def packed(self, layout: Packing | Varlen) -> Iterator[None]:
        """Declare that tensors inside are [1, tokens, features], laid out as `layout` says."""
        self.layout = layout
        try:
            yield
        finally:
            self.layout = None


def _mix(x: Tensor) -> Tensor:
    """Mix bits after murmur3's finalizer; the high bits are the well-mixed ones."""
    x = (x ^ (x >> 15)) * _MIX1
    return (x ^ (x >> 13)) * _MIX2


@functools.lru_cache(maxsize=64)
def _pairs(size: int, device: torch.device) -> Tensor:
    """Return well-mixed constants, one for every two places of the last axis, int32 [ceil(size / 2)]."""
    return _mix(torch.arange(1, (size + 1) // 2 + 1, dtype=torch.int32, device=device) * _GOLDEN)


def _site_keys(keys: Tensor, site: Tensor) -> Tensor:
    """Derive the keys of one dropout site, int32 [rows]."""
    keys = (keys ^ (site * 0x632BE5AB + 0x5F356495)) * _MIX2
    return keys ^ (keys >> 15)


def _drops(probability: float) -> int:
    """Return how many of 65,536 equally likely draws drop."""
    return min(65535, round(probability * 65536))


def _draw(places: Tensor, size: int, probability: float) -> Tensor:
    """Draw bool [*places.shape, size] from one key for each place of all axes but the last."""
    x = _mix(places).unsqueeze(-1) ^ _pairs(size, places.device)
    x *= _MIX1
    x ^= x >> 15
    x *= _MIX2
    # Both halves are uniform over [-2^15, 2^15).
    return (x.view(torch.int16) >= _drops(probability) - 32768)[..., :size]


def keep_mask(keys: Tensor, site: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """Draw bool [rows, *shape], True with probability 1 - `probability`, in steps of 2^-16.

    shape: [position, feature], [head, query, key] or [feature]; a mask does not depend on the padded width. `site`,
    int32 [], tells the dropout modules of a model apart.
    """
    places = _site_keys(keys, site).view(-1, *([1] * (len(shape) - 1)))
    for axis, size in enumerate(shape[:-1]):
        stride = _wrap32(_GOLDEN * _AXIS_STRIDE ** (len(shape) - 2 - axis))
        offsets = torch.arange(size, dtype=torch.int32, device=keys.device) * stride
        places = places + offsets.view(-1, *([1] * (len(shape) - 2 - axis)))
    return _draw(places, shape[-1], probability)


def _packed_mask(keys: Tensor, layout: Packing | Varlen, site: Tensor, size: int, probability: float) -> Tensor:
    """Draw bool [1, tokens, size], equal to what `keep_mask` gives the same rows in a padded batch."""
    places = _site_keys(keys, site)[layout.row] + layout.position.to(torch.int32) * _GOLDEN
    return _draw(places[None], size, probability)


def _wrap32(value: int) -> int:
    """Wrap a Python integer to int32."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def keyed_dropout(x: Tensor, keys: DropoutKeys, site: Tensor, probability: float) -> Tensor:
    """Apply inverted dropout to x [rows, ...].

    Without keys (a caller outside the training loop), or where x does not hold the batch's rows (a table of positions),
    torch's own dropout is used.
    """
    if keys.keys is None or (keys.layout is None and x.size(0) != len(keys.keys)):
        return nn.functional.dropout(x, probability, True)
    if keys.layout is not None:
        mask = _packed_mask(keys.keys, keys.layout, site, x.size(-1), probability)
    else:
        mask = keep_mask(keys.keys, site, tuple(x.shape[1:]), probability)
    return apply_mask(x, mask, probability)


def apply_mask(x: Tensor, mask: Tensor, probability: float) -> Tensor:
    # On a CPU a mask viewed as bytes converts several times as fast; a GPU's compiler does not allow the view.
    kept = mask.view(torch.uint8) if x.device.type == "cpu" else mask
    return x * kept.to(x.dtype).mul_(65536 / (65536 - _drops(probability)))


class KeyedDropout(nn.Module):
    """Replacement of an nn.Dropout; `p` is its probability."""

    site: Tensor

    def __init__(self, p: float, site: int, keys: DropoutKeys) -> None:
        super().__init__()
        self.p, self.keys = p, keys
        # A tensor, because torch.compile would make a graph for each Python number.
        self.register_buffer("site", torch.tensor(site, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return keyed_dropout(x, self.keys, self.site, self.p) if self.training and self.p > 0 else x
