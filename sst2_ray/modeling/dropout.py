"""Keyed dropout: masks depend on the seed, the optimizer step and the row alone.

A run therefore draws the same masks on 1 worker or 64, with any micro-batching, and after any resume: no random state
has to be saved. The masks are a counter-based hash in plain int32 tensor operations, which all cores of a CPU compute,
where torch's `bernoulli_` uses one. One hash of 32 bits decides about two neighbors on the last axis.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sst2_ray.modeling.compiler import HAS_TRITON
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


def seed_gpu(device: torch.device, *, seed: int, global_step: int, rank: int) -> None:
    """Seed a GPU's own generator, from which FlashAttention draws what it drops: nothing carries over from step to step."""
    if device.type == "cuda":
        key = row_keys(seed=seed, global_step=global_step, row_ids=np.array([-1 - rank]))
        torch.cuda.default_generators[device.index or 0].manual_seed(int(key.view(np.uint32)[0]))


class DropoutKeys:
    """Keys of the micro-batch being computed, shared by all dropout sites of a model."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # int32 [rows]
        self.layout: Packing | Varlen | None = None
        self.of_tokens: tuple[Tensor, Tensor] | None = None
        """Key and position in varlen layout: the key of each token's row and the offset of its position, int32 [T]."""

    def set(self, keys: Tensor | None) -> None:
        """Take int32 [rows] for the batch that follows; None: torch's own dropout."""
        self.keys = keys

    @contextmanager
    def packed(self, layout: Packing | Varlen) -> Iterator[None]:
        """Declare that tensors inside are [1, tokens, features], laid out as `layout` says."""
        self.layout = layout
        if isinstance(layout, Varlen) and self.keys is not None:
            self.of_tokens = self.keys[layout.row], layout.position.to(torch.int32) * _GOLDEN
        try:
            yield
        finally:
            self.layout = self.of_tokens = None


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
    if keys.is_cuda and torch.compiler.is_compiling():
        return _untraced_mask(keys, site, shape, probability)
    places = _site_keys(keys, site).view(-1, *([1] * (len(shape) - 1)))
    for axis, size in enumerate(shape[:-1]):
        stride = _wrap32(_GOLDEN * _AXIS_STRIDE ** (len(shape) - 2 - axis))
        offsets = torch.arange(size, dtype=torch.int32, device=keys.device) * stride
        places = places + offsets.view(-1, *([1] * (len(shape) - 2 - axis)))
    return _draw(places, shape[-1], probability)


@torch.library.custom_op("sst2_ray::keep_mask", mutates_args=())
def _untraced_mask(keys: Tensor, site: Tensor, shape: Sequence[int], probability: float) -> Tensor:
    """Draw what `keep_mask` draws, unseen by torch.compile: in its code for GPUs, places along an axis whose size varies
    have 64 bits, and so has all that is computed from them."""
    return keep_mask(keys, site, tuple(shape), probability)


@_untraced_mask.register_fake
def _(keys: Tensor, site: Tensor, shape: Sequence[int], probability: float) -> Tensor:  # noqa: ARG001
    return keys.new_empty((len(keys), *shape), dtype=torch.bool)


def _packed_mask(keys: Tensor, layout: Packing, site: Tensor, size: int, probability: float) -> Tensor:
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
    if keys.of_tokens is not None:
        # A compiler that traces a whole layer fuses the plain operators with their neighbors; on a GPU see _untraced_mask.
        drop = _drop_tokens if torch.compiler.is_compiling() and not x.is_cuda else drop_tokens
        return drop(x[0], *keys.of_tokens, site, probability)[None]
    if isinstance(keys.layout, Packing):
        mask = _packed_mask(keys.keys, keys.layout, site, x.size(-1), probability)
    else:
        mask = keep_mask(keys.keys, site, tuple(x.shape[1:]), probability)
    return apply_mask(x, mask, probability)


def _drop_tokens(x: Tensor, keys: Tensor, offsets: Tensor, site: Tensor, probability: float) -> Tensor:
    """Apply the masks of `_packed_mask` to token vectors [T, size]. keys and offsets: see DropoutKeys.of_tokens."""
    feature = torch.arange(x.size(-1), dtype=torch.int32, device=x.device)
    bits = _mix(_site_keys(keys, site) + offsets)[:, None] ^ _mix(((feature >> 1) + 1) * _GOLDEN)
    bits = bits * _MIX1
    bits = (bits ^ (bits >> 15)) * _MIX2
    drawn = torch.where((feature & 1) == 1, bits >> 16, (bits << 16) >> 16)  # the halves that `_draw` sees as int16
    drops = _drops(probability)
    return torch.where(drawn >= drops - 32768, x.float() * (65536 / (65536 - drops)), 0.0).to(x.dtype)


@torch.library.custom_op("sst2_ray::drop_tokens", mutates_args=())
def drop_tokens(x: Tensor, keys: Tensor, offsets: Tensor, site: Tensor, probability: float) -> Tensor:
    """Apply dropout as `_drop_tokens` does: on a GPU in one launch, where Triton and the C compiler that it needs are there.

    The backward pass draws the masks again: none is kept.
    """
    if x.is_cuda and HAS_TRITON:
        from sst2_ray.modeling.dropout_kernel import drop

        return drop(x, keys, offsets, site, _drops(probability))
    return _drop_tokens(x, keys, offsets, site, probability)


@drop_tokens.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


def _keep_keys(ctx, inputs, output):  # type: ignore[no-untyped-def]  # noqa: ARG001
    _, *tensors, ctx.probability = inputs
    ctx.save_for_backward(*tensors)


def _drop_gradient(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
    return drop_tokens(gradient, *ctx.saved_tensors, ctx.probability), None, None, None, None


drop_tokens.register_autograd(_drop_gradient, setup_context=_keep_keys)


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
