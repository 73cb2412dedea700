"""Attention with keyed dropout and without padding, behind transformers' attention interface, and its installation."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from sst2_ray.modeling.attention.windows import local_attention
from sst2_ray.modeling.dropout import DropoutKeys, KeyedDropout, apply_mask, keep_mask
from sst2_ray.modeling.layout.packing import Packing, Segment, attend_packed

KEYED_ATTENTION = "sst2_ray_keyed"
"""Name of `_attention` in transformers' interface."""

KEYED_TYPES = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "modernbert", "nomic_bert"}
)
"""Architectures whose attention goes through transformers' interface and is equal to `_attention`."""

_POSITION_DROPOUTS = ("pos_dropout",)
"""Modules that drop a table of relative positions, which has no rows: DeBERTa's and DeBERTa-v2's."""

_BLOCKS_FROM = 6
"""Width, in halves of a window, from which on blocks of a window are faster on CPU than a mask over all places."""

_SHORT = 128
"""Width up to which plain matrix products are faster on CPU than torch's blockwise attention."""

_ATTENTION_SITES = ("keyed_site", "attention_dropout", "dropout")
"""Names under which attention modules hold their dropout; the first that is keyed counts."""


def install_keyed_dropout(model: nn.Module, backbone: PreTrainedModel) -> DropoutKeys:
    """Replace every nn.Dropout of `model` but those of position tables, and number the sites in module order.

    Dropout of attention probabilities happens inside torch's sdpa, which takes no mask (and uses its slow path on CPU):
    where there is any, the attention of `backbone`, the transformers model inside, is replaced as well. FlashAttention
    keeps its own generator, so with it only the masks outside attention are keyed.
    """
    keys = DropoutKeys()
    sites = itertools.count()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout) and name not in _POSITION_DROPOUTS:
                keyed = KeyedDropout(child.p, next(sites), keys)
                setattr(module, name, keyed.train(child.training))
        probability = getattr(module, "attention_dropout", None)
        if isinstance(probability, float) and probability > 0:  # ModernBERT and NomicBERT keep a number, not a module
            module.keyed_site = KeyedDropout(probability, next(sites), keys)
    model.to(next(model.parameters()).device)
    config = backbone.config
    drops = any(getattr(config, name, 0.0) for name in ("attention_probs_dropout_prob", "attention_dropout"))
    if drops and config.model_type in KEYED_TYPES and config._attn_implementation in ("sdpa", "eager"):
        backbone.set_attn_implementation(KEYED_ATTENTION)
    return keys


def _site_of(module: nn.Module) -> KeyedDropout | None:
    """Return the dropout of an attention module's probabilities."""
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
    """Compute attention over [rows, heads, width, head_dim], or, packed, over [1, heads, tokens, head_dim].

    Dropout of the probabilities is keyed; without dropout torch's sdpa computes. sliding_window: half the window plus 1,
    in tokens; a padded batch brings it in its mask.
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


def attend_segment(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, segment: Segment, packing: Packing, *, bias: Tensor
) -> Tensor:
    """Compute attention over one segment [rows, heads, width, head_dim], with a bias [1, heads, width, width] on the scores.

    module: The attention module, whose dropout is drawn by the keys of the batch's rows in training.
    """
    site = _site_of(module) if module.training else None
    dropout = site.p if site is not None else _plain_dropout(module)
    keys = None
    if site is not None and site.keys.keys is not None:
        keys = site.keys.keys[packing.order[segment.first_row : segment.first_row + segment.rows]]
    return _attend(query, key, value, segment.mask, dropout, None, site, keys, bias)


def _plain_dropout(module: nn.Module) -> float:
    """Return the probability of a dropout that is not keyed; 0 in evaluation."""
    own = getattr(module, "dropout", None)
    return own.p if module.training and isinstance(own, nn.Dropout) else 0.0


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    site: KeyedDropout | None,
    keys: Tensor | None,
    bias: Tensor | None = None,
) -> Tensor:
    """Compute attention over [rows, heads, width, head_dim], with dropout by `keys` int32 [rows] where given."""
    draws = dropout > 0.0 and keys is None
    if draws or (keys is None and (query.device.type != "cpu" or key.size(2) > _SHORT)):
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    scores = torch.matmul(query * (scaling or query.size(-1) ** -0.5), key.transpose(2, 3))
    if bias is not None:
        scores = scores + bias
    if keys is None and _is_inference():
        return _weighted(scores, mask, value)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    if keys is not None and site is not None:
        kept = keep_mask(keys, site.site, tuple(probabilities.shape[1:]), dropout)
        probabilities = apply_mask(probabilities, kept, dropout)
    return torch.matmul(probabilities, value)


def _is_inference() -> bool:
    """Tell whether nothing is recorded: neither gradients nor a graph to export."""
    return not (torch.is_grad_enabled() or torch.jit.is_tracing())


def _weighted(scores: Tensor, mask: Tensor | None, value: Tensor) -> Tensor:
    """Weight values by scores, which are overwritten. Rounds once, from fp32, as with gradients, without copies in fp32."""
    if mask is not None:
        scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return torch.matmul(torch.softmax(scores, dim=-1).to(value.dtype), value)


def _windowed(segment: Segment, sliding_window: int | None) -> Tensor | None:
    """Narrow the mask of a segment to keys that are less than `sliding_window` away."""
    if sliding_window is None or segment.width <= sliding_window:
        return segment.mask
    places = torch.arange(segment.width)
    near = (places[:, None] - places).abs() < sliding_window  # [width, width]
    return near if segment.mask is None else segment.mask & near


AttentionInterface.register(KEYED_ATTENTION, _attention)
AttentionMaskInterface.register(KEYED_ATTENTION, sdpa_mask)
