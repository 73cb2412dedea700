"""Dropout whose masks depend on the seed, the optimizer step and the row, not on who computes the row or beside which rows.

A run therefore draws the same masks on 1 worker or 64, with any micro-batching, and after any resume: nothing about
random state has to be saved. The masks are a counter-based hash in plain int32 tensor operations, which all cores of a
CPU compute, where torch's `bernoulli_` draws on one.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from sst2_ray.modeling.classifier import SentenceClassifier

KEYED_ATTENTION = "sst2_ray_keyed"

# Odd 32-bit constants with well-spread bits, as two's-complement int32: the golden ratio, and murmur3's finalizer.
_GOLDEN = -1640531535  # 0x9E3779B1
_MIX1 = -2048144789  # 0x85EBCA6B
_MIX2 = -1028477387  # 0xC2B2AE35

_AXIS_STRIDE = 1 << 11  # room for 2,048 positions a 4-D axis before indices wrap, which only repeats a mask


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

    def set(self, keys: Tensor | None) -> None:
        self.keys = keys


_counters: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
_MAX_COUNTERS = 256


def _counter(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Element numbers times an odd constant, int32 [1, *shape]; they do not depend on the padded width."""
    key = (shape, device)
    if key not in _counters:
        if len(_counters) >= _MAX_COUNTERS:
            _counters.clear()
        # [position, feature]: the last axis is a fixed width; [head, query, key]: fixed strides instead.
        strides = (
            [shape[-1], 1] if len(shape) == 2 else [_AXIS_STRIDE ** (len(shape) - 1 - i) for i in range(len(shape))]
        )
        index = torch.zeros(shape, dtype=torch.int64, device=device)
        for axis, stride in enumerate(strides):
            view = [1] * len(shape)
            view[axis] = shape[axis]
            index += torch.arange(shape[axis], device=device).view(view) * stride
        wrapped = (index * _GOLDEN) & 0xFFFFFFFF
        _counters[key] = torch.where(wrapped >= 1 << 31, wrapped - (1 << 32), wrapped).to(torch.int32)[None]
    return _counters[key]


def keep_mask(keys: Tensor, site: int, shape: tuple[int, ...], probability: float) -> Tensor:
    """bool [rows, *shape], True with probability 1 - `probability`; `site` tells the dropout modules of a model apart."""
    keys = (keys ^ _wrap32(site * 0x632BE5AB + 0x5F356495)) * _MIX2
    keys = keys ^ (keys >> 15)
    x = _counter(shape, keys.device) + keys.view(-1, *([1] * len(shape)))
    x ^= x >> 15
    x *= _MIX1
    x ^= x >> 13
    x *= _MIX2
    # Signed int32 is uniform over [-2^31, 2^31); its high bits, which the comparison sees, are the well-mixed ones.
    return x >= int(probability * 2.0**32) - 2**31


def _wrap32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def keyed_dropout(x: Tensor, keys: DropoutKeys, site: int, probability: float) -> Tensor:
    """Inverted dropout of x [rows, ...]. Without keys (a caller outside the training loop): torch's own."""
    if keys.keys is None:
        return nn.functional.dropout(x, probability, True)
    mask = keep_mask(keys.keys, site, tuple(x.shape[1:]), probability)
    return x * mask.to(x.dtype).mul_(1.0 / (1.0 - probability))


class KeyedDropout(nn.Module):
    """Stands where an nn.Dropout stood; `p` is its probability."""

    def __init__(self, p: float, site: int, keys: DropoutKeys) -> None:
        super().__init__()
        self.p, self.site, self.keys = p, site, keys

    def forward(self, x: Tensor) -> Tensor:
        return keyed_dropout(x, self.keys, self.site, self.p) if self.training and self.p > 0 else x


# Architectures whose attention goes through transformers' interface, and is computed by `_attention` just as well.
_KEYED_TYPES = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "modernbert", "nomic_bert"}
)


def install(model: SentenceClassifier) -> DropoutKeys:
    """Replace every nn.Dropout of `model` and number the sites in the order of its modules.

    Dropout of attention probabilities happens inside torch's sdpa, where no mask can be handed in (and which on CPU then
    takes its slow path): where there is any, attention is replaced as well. FlashAttention keeps its own generator, so
    with it only the masks outside attention are keyed.
    """
    keys = DropoutKeys()
    sites = itertools.count()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                keyed = KeyedDropout(child.p, next(sites), keys)
                setattr(module, name, keyed.train(child.training))
        probability = getattr(module, "attention_dropout", None)
        if isinstance(probability, float) and probability > 0:  # ModernBERT and NomicBERT keep a number, not a module
            module.keyed_site = KeyedDropout(probability, next(sites), keys)
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
    **_: object,
) -> tuple[Tensor, None]:
    """Attention over [rows, heads, width, head_dim] with keyed dropout of the probabilities; torch's sdpa without it."""
    site = _site_of(module) if dropout > 0.0 else None
    if site is not None:
        scores = torch.matmul(query * (scaling or query.size(-1) ** -0.5), key.transpose(2, 3))
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        output = torch.matmul(keyed_dropout(probabilities, site.keys, site.site, dropout), value)
    else:
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(KEYED_ATTENTION, _attention)
AttentionMaskInterface.register(KEYED_ATTENTION, sdpa_mask)
