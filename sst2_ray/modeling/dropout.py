"""Dropout whose masks depend on the seed, the optimizer step and the row, not on who computes the row or beside which rows.

A run therefore draws the same masks on 1 worker or 64, with any micro-batching, and after any resume: nothing about
random state has to be saved. The masks are a counter-based hash in plain int32 tensor operations, which all cores of a
CPU compute, where torch's `bernoulli_` draws on one. One hash of 32 bits decides about two neighbours on the last axis.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from sst2_ray.modeling.local import local_attention
from sst2_ray.modeling.packing import Packing, Segment, attend_packed
from sst2_ray.modeling.varlen import Varlen

if TYPE_CHECKING:
    from sst2_ray.modeling.classifier import SentenceClassifier

KEYED_ATTENTION = "sst2_ray_keyed"

# Odd 32-bit constants with well-spread bits, as two's-complement int32: the golden ratio, and murmur3's finalizer.
_GOLDEN = -1640531535  # 0x9E3779B1
_MIX1 = -2048144789  # 0x85EBCA6B
_MIX2 = -1028477387  # 0xC2B2AE35

_AXIS_STRIDE = 1 << 13  # of the heads before the query positions: 8,192 of them, the longest context of an encoder here


def row_keys(*, seed: int, global_step: int, row_ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """One key a row, int32 [rows]: SplitMix64's finalizer over (seed, step, row)."""
    with np.errstate(over="ignore"):
        z = row_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(global_step) * np.uint64(0xD1B54A32D192ED03) + np.uint64(seed) * np.uint64(0x8CB92BA72F3D8DD7)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(32)).astype(np.uint32).view(np.int32)


class DropoutKeys:
    """The keys of the micro-batch that is being computed; shared by all dropout sites of one model."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # int32 [rows]
        self.layout: Packing | Varlen | None = None

    def set(self, keys: Tensor | None) -> None:
        self.keys = keys

    @contextmanager
    def packed(self, layout: Packing | Varlen) -> Iterator[None]:
        """Inside, tensors are [1, tokens, features]."""
        self.layout = layout
        try:
            yield
        finally:
            self.layout = None


def _mix(x: Tensor) -> Tensor:
    """After murmur3's finalizer; the high bits are the well-mixed ones."""
    x = (x ^ (x >> 15)) * _MIX1
    return (x ^ (x >> 13)) * _MIX2


@functools.lru_cache(maxsize=64)
def _pairs(size: int, device: torch.device) -> Tensor:
    """Well-mixed constants, one for every two places of the last axis, int32 [ceil(size / 2)]."""
    return _mix(torch.arange(1, (size + 1) // 2 + 1, dtype=torch.int32, device=device) * _GOLDEN)


def _site_keys(keys: Tensor, site: Tensor) -> Tensor:
    keys = (keys ^ (site * 0x632BE5AB + 0x5F356495)) * _MIX2
    return keys ^ (keys >> 15)


def _drops(probability: float) -> int:
    """Of 65,536 equally likely draws, those that drop."""
    return min(65535, round(probability * 65536))


def _draw(places: Tensor, size: int, probability: float) -> Tensor:
    """bool [*places.shape, size] from one key a place of all axes but the last."""
    x = _mix(places).unsqueeze(-1) ^ _pairs(size, places.device)
    x *= _MIX1
    x ^= x >> 15
    x *= _MIX2
    # Both halves are uniform over [-2^15, 2^15).
    return (x.view(torch.int16) >= _drops(probability) - 32768)[..., :size]


def keep_mask(keys: Tensor, site: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """bool [rows, *shape], True with probability 1 - `probability`, in steps of 2^-16.

    shape: [position, feature], [head, query, key] or [feature]; a mask does not depend on the padded width. `site`, int32
    [], tells the dropout modules of a model apart.
    """
    places = _site_keys(keys, site).view(-1, *([1] * (len(shape) - 1)))
    for axis, size in enumerate(shape[:-1]):
        stride = _wrap32(_GOLDEN * _AXIS_STRIDE ** (len(shape) - 2 - axis))
        offsets = torch.arange(size, dtype=torch.int32, device=keys.device) * stride
        places = places + offsets.view(-1, *([1] * (len(shape) - 2 - axis)))
    return _draw(places, shape[-1], probability)


def _packed_mask(keys: Tensor, layout: Packing | Varlen, site: Tensor, size: int, probability: float) -> Tensor:
    """bool [1, tokens, size]: what `keep_mask` gives the same rows in a padded batch."""
    places = _site_keys(keys, site)[layout.row] + layout.position.to(torch.int32) * _GOLDEN
    return _draw(places[None], size, probability)


def _wrap32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def keyed_dropout(x: Tensor, keys: DropoutKeys, site: Tensor, probability: float) -> Tensor:
    """Inverted dropout of x [rows, ...]. Without keys (a caller outside the training loop), or where x does not hold the
    batch's rows (a table of positions): torch's own."""
    if keys.keys is None or (keys.layout is None and x.size(0) != len(keys.keys)):
        return nn.functional.dropout(x, probability, True)
    if keys.layout is not None:
        mask = _packed_mask(keys.keys, keys.layout, site, x.size(-1), probability)
    else:
        mask = keep_mask(keys.keys, site, tuple(x.shape[1:]), probability)
    return _apply(x, mask, probability)


def _apply(x: Tensor, mask: Tensor, probability: float) -> Tensor:
    # Seen as bytes, a mask is converted several times as fast on a CPU; a GPU's compiler does not let bits be seen as bytes.
    kept = mask.view(torch.uint8) if x.device.type == "cpu" else mask
    return x * kept.to(x.dtype).mul_(65536 / (65536 - _drops(probability)))


class KeyedDropout(nn.Module):
    """Stands where an nn.Dropout stood; `p` is its probability."""

    site: Tensor

    def __init__(self, p: float, site: int, keys: DropoutKeys) -> None:
        super().__init__()
        self.p, self.keys = p, keys
        # No number of Python's: a compiler would make a graph for each of them.
        self.register_buffer("site", torch.tensor(site, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return keyed_dropout(x, self.keys, self.site, self.p) if self.training and self.p > 0 else x


# Architectures whose attention goes through transformers' interface, and is computed by `_attention` just as well.
_KEYED_TYPES = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "modernbert", "nomic_bert"}
)


_OF_POSITIONS = ("pos_dropout",)
"""Names of modules that drop a table of relative positions, which has no rows: DeBERTa's and DeBERTa-v2's."""


def install(model: SentenceClassifier) -> DropoutKeys:
    """Replace every nn.Dropout of `model`, but for those of position tables, and number the sites in the order of its
    modules.

    Dropout of attention probabilities happens inside torch's sdpa, where no mask can be handed in (and which on CPU then
    takes its slow path): where there is any, attention is replaced as well. FlashAttention keeps its own generator, so
    with it only the masks outside attention are keyed.
    """
    keys = DropoutKeys()
    model.dropout_keys = keys
    sites = itertools.count()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout) and name not in _OF_POSITIONS:
                keyed = KeyedDropout(child.p, next(sites), keys)
                setattr(module, name, keyed.train(child.training))
        probability = getattr(module, "attention_dropout", None)
        if isinstance(probability, float) and probability > 0:  # ModernBERT and NomicBERT keep a number, not a module
            module.keyed_site = KeyedDropout(probability, next(sites), keys)
    model.to(next(model.parameters()).device)
    config = model.backbone.config
    drops = any(getattr(config, name, 0.0) for name in ("attention_probs_dropout_prob", "attention_dropout"))
    if drops and config.model_type in _KEYED_TYPES and config._attn_implementation in ("sdpa", "eager"):
        model.backbone.set_attn_implementation(KEYED_ATTENTION)
    return keys


_ATTENTION_SITES = ("keyed_site", "attention_dropout", "dropout")
"""Where an attention module holds its dropout; the first that is keyed counts."""


def _site_of(module: nn.Module) -> KeyedDropout | None:
    held = (getattr(module, name, None) for name in _ATTENTION_SITES)
    return next((site for site in held if isinstance(site, KeyedDropout)), None)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention over [rows, heads, width, head_dim], or, packed, over [1, heads, tokens, head_dim].

    With keyed dropout of the probabilities where there is any; torch's sdpa without it. sliding_window: half the window
    and 1, in tokens; a padded batch brings it in its mask.
    """
    site = _site_of(module) if dropout > 0.0 else None
    if packing is None:
        keys = site.keys.keys if site is not None else None
        output = _attend(query, key, value, attention_mask, dropout, scaling, site, keys)
        return output.transpose(1, 2).contiguous(), None

    def attend(q: Tensor, k: Tensor, v: Tensor, segment: Segment) -> Tensor:
        rows = packing.order[segment.first_row : segment.first_row + segment.rows]
        keys = site.keys.keys[rows] if site is not None and site.keys.keys is not None else None
        if sliding_window is not None and dropout == 0.0 and segment.width >= _BLOCKS_FROM * sliding_window:
            return local_attention(q, k, v, segment.mask, reach=sliding_window - 1, scale=scaling)
        return _attend(q, k, v, _windowed(segment, sliding_window), dropout, scaling, site, keys)

    return attend_packed(query, key, value, packing, attend), None


_BLOCKS_FROM = 6
"""Windows' halves in a width from which on blocks of a window are faster on CPU than all places under a mask."""

_SHORT = 128
"""Widths up to which plain matrix products are faster on CPU than torch's blockwise attention."""


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    site: KeyedDropout | None,
    keys: Tensor | None,
) -> Tensor:
    """[rows, heads, width, head_dim]; dropout by `keys` int32 [rows], where they are given."""
    draws = dropout > 0.0 and keys is None
    if draws or (keys is None and (query.device.type != "cpu" or key.size(2) > _SHORT)):
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    scores = torch.matmul(query * (scaling or query.size(-1) ** -0.5), key.transpose(2, 3))
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    if keys is not None and site is not None:
        kept = keep_mask(keys, site.site, tuple(probabilities.shape[1:]), dropout)
        probabilities = _apply(probabilities, kept, dropout)
    return torch.matmul(probabilities, value)


def _windowed(segment: Segment, sliding_window: int | None) -> Tensor | None:
    """The mask of a segment, narrowed to keys that are less than `sliding_window` away."""
    if sliding_window is None or segment.width <= sliding_window:
        return segment.mask
    places = torch.arange(segment.width)
    near = (places[:, None] - places).abs() < sliding_window  # [width, width]
    return near if segment.mask is None else segment.mask & near


AttentionInterface.register(KEYED_ATTENTION, _attention)
AttentionMaskInterface.register(KEYED_ATTENTION, sdpa_mask)
