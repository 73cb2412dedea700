"""Keyed dropout of token vectors in one launch of a GPU, in Triton, which torch brings for CUDA. Imported where one is used."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_GOLDEN = tl.constexpr(-1640531535)
_MIX1 = tl.constexpr(-2048144789)
_MIX2 = tl.constexpr(-1028477387)
"""See dropout.py: a compiler takes constants of its own kind alone."""

_WIDEST = 1024
"""Features of a program."""


@triton.jit
def _mix(x):  # type: ignore[no-untyped-def]
    x = (x ^ (x >> 15)) * _MIX1
    return (x ^ (x >> 13)) * _MIX2


@triton.jit
def _drop(x, keys, offsets, site, dropped, size, least, scale, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < size
    key = (tl.load(keys + token) ^ (tl.load(site) * 0x632BE5AB + 0x5F356495)) * _MIX2
    bits = _mix((key ^ (key >> 15)) + tl.load(offsets + token)) ^ _mix(((feature >> 1) + 1) * _GOLDEN)
    bits = bits * _MIX1
    bits = (bits ^ (bits >> 15)) * _MIX2
    drawn = tl.where((feature & 1) == 1, bits >> 16, (bits << 16) >> 16)
    given = tl.load(x + token * size + feature, mask=inside, other=0.0)
    kept = tl.where(drawn >= least, given.to(tl.float32) * scale, 0.0)
    tl.store(dropped + token * size + feature, kept.to(given.dtype), mask=inside)


def drop(x: Tensor, keys: Tensor, offsets: Tensor, site: Tensor, drops: int) -> Tensor:
    """Drop `drops` of 65,536 features of x [T, size], by int32 [T] keys and offsets and int32 [] site, all on one GPU."""
    x = x.contiguous()
    dropped = torch.empty_like(x)
    block = min(_WIDEST, triton.next_power_of_2(x.size(1)))
    grid = (x.size(0), triton.cdiv(x.size(1), block))
    with torch.cuda.device_of(x):
        _drop[grid](x, keys, offsets, site, dropped, x.size(1), drops - 32768, 65536 / (65536 - drops), BLOCK=block)
    return dropped
