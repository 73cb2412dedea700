"""ModernBERT's attention for the varlen layout, with few launches: query and key are turned together, in place of 40 operators,
and for short sentences by the kernel that computes attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.modernbert.modeling_modernbert import ModernBertAttention

from sst2_ray.modeling.attention.varlen import (
    VARLEN_INTERFACE,
    attend_varlen,
    is_short,
    varlen_attention,
    varlen_attention_backward,
    window_of,
)


class VarlenModernBertAttention(ModernBertAttention):
    """transformers' attention of ModernBERT, but for batches in varlen layout, which it computes itself."""

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **keywords):  # type: ignore[no-untyped-def,override]
        """Compute [1, T, size] from the same."""
        if self.config._attn_implementation != VARLEN_INTERFACE:
            return super().forward(hidden_states, position_embeddings, **keywords)
        qkv = self.Wqkv(hidden_states[0]).view(len(hidden_states[0]), 3, -1, self.head_dim)
        ends, scale = keywords["cu_seq_lens_q"], self.head_dim**-0.5
        dropout = self.attention_dropout if self.training else 0.0
        if dropout == 0 and is_short(qkv, ends):
            cos, sin = (table[0] for table in position_embeddings)
            places = ends, keywords["rows"], keywords["tiles"]
            output, _ = turned_attention(qkv, cos, sin, *places, scale, window_of(self.sliding_window))
        else:
            turned = _turned if torch.compiler.is_compiling() else _Turned.apply
            query, key, value = turned(qkv, *(table[0, :, None, None] for table in position_embeddings))
            output = attend_varlen(
                query,
                key,
                value,
                ends=ends,
                rows=keywords["rows"],
                tiles=keywords["tiles"],
                longest=keywords["max_length_q"],
                scale=scale,
                sliding_window=self.sliding_window,
                dropout=dropout,
            )
        return self.out_drop(self.Wo(output.reshape(*hidden_states.shape[:-1], -1))), None


def install(backbone: nn.Module) -> None:
    """Give the layers of a ModernBERT model this attention; other models stay as they are."""
    for module in backbone.modules():
        if type(module) is ModernBertAttention:
            module.__class__ = VarlenModernBertAttention


class _Turned(torch.autograd.Function):
    """Split [T, 3, heads, head_dim] into query, key and value, the first two turned by their position's angles.

    cos and sin: fp32 [T, 1, 1, head_dim], both halves alike. As apply_rotary_pos_emb, in fp32.
    """

    @staticmethod
    def forward(ctx, qkv: Tensor, cos: Tensor, sin: Tensor):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cos, sin)
        turned = _turn(qkv[:, :2], cos, sin, 1.0).to(qkv.dtype)
        return turned[:, 0], turned[:, 1], qkv[:, 2].view_as(qkv[:, 2])

    @staticmethod
    def backward(ctx, query: Tensor, key: Tensor, value: Tensor):  # type: ignore[no-untyped-def]
        gradient = torch.stack((query, key, value), dim=1)
        cos, sin = ctx.saved_tensors
        gradient[:, :2] = _turn(gradient[:, :2], cos, sin, -1.0)
        return gradient, None, None


def _turned(qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do as _Turned in operators that a compiler fuses with their neighbors."""
    first, second = qkv[:, :2].float().chunk(2, dim=-1)
    cos, sin = cos[..., : first.size(-1)], sin[..., : first.size(-1)]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(qkv.dtype)
    return turned[:, 0], turned[:, 1], qkv[:, 2]


def _turn(x: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    """Turn the pairs (first half, second half) of the last axis, in fp32; `direction` -1: back."""
    half = x.size(-1) // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-direction)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:], value=direction)
    return turned


# ---- short sentences: one operator from the product to the next


@torch.library.custom_op("sst2_ray::turned_attention", mutates_args=(), device_types="cuda")
def turned_attention(
    qkv: Tensor, cos: Tensor, sin: Tensor, ends: Tensor, rows: Tensor, tiles: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    """Compute attention inside each sentence; queries and keys are turned by their position's angles.

    Args:
        qkv: [T, 3, heads, head_dim] in 16 bits, where `is_short` holds.
        cos, sin: fp32 [T, head_dim], both halves alike.
        ends, rows, tiles, scale, window: See varlen_attention.

    Returns:
        The output [T, heads, head_dim] and, for the backward pass, the scores' log-sum-exp, fp32 [heads, T].
    """
    from sst2_ray.modeling.attention.short_kernel import attend

    turns = cos.contiguous(), sin.contiguous()
    return attend(qkv.unbind(1), turns, (ends, rows, tiles), scale=scale, window=window)


@torch.library.custom_op("sst2_ray::turned_attention_backward", mutates_args=(), device_types="cuda")
def turned_attention_backward(
    gradient: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, output: Tensor, log_sum: Tensor, ends: Tensor, rows: Tensor,
    tiles: Tensor, scale: float, window: int,
) -> Tensor:  # fmt: skip
    """Compute the gradient of `qkv`, given that of the output."""
    from sst2_ray.modeling.attention.short_kernel import differentiate

    found, turns = torch.empty_like(qkv), (cos.contiguous(), sin.contiguous())
    differentiate(
        gradient,
        qkv.unbind(1),
        turns,
        (ends, rows, tiles),
        output,
        log_sum,
        into=found.unbind(1),
        scale=scale,
        window=window,
    )
    return found


@turned_attention.register_kernel("cpu")
def _(qkv: Tensor, cos: Tensor, sin: Tensor, ends: Tensor, rows: Tensor, tiles: Tensor, scale: float, window: int):  # type: ignore[no-untyped-def]
    query, key, value = _turned(qkv, cos[:, None, None], sin[:, None, None])
    output, log_sum, _ = varlen_attention(query, key, value, ends, rows, tiles, len(qkv), scale, window, 0.0)
    return output, log_sum


@turned_attention_backward.register_kernel("cpu")
def _(gradient: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, output: Tensor, log_sum: Tensor, ends: Tensor, rows: Tensor,  # type: ignore[no-untyped-def]
      tiles: Tensor, scale: float, window: int):  # fmt: skip
    query, key, value = _turned(qkv, cos[:, None, None], sin[:, None, None])
    state = torch.empty(2, dtype=torch.uint64)
    found = varlen_attention_backward(
        gradient, query, key, value, output, log_sum, state, ends, rows, tiles, len(qkv), scale, window, 0.0
    )
    return torch.stack(
        (*_turned(torch.stack(found, dim=1), cos[:, None, None], -sin[:, None, None])[:2], found[2]), dim=1
    )


@turned_attention.register_fake
def _(qkv: Tensor, *_: object):  # type: ignore[no-untyped-def]
    tokens, _, heads, size = qkv.shape
    return qkv.new_empty((tokens, heads, size)), qkv.new_empty((heads, tokens), dtype=torch.float32)


@turned_attention_backward.register_fake
def _(gradient: Tensor, qkv: Tensor, *_: object):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return torch.empty_like(qkv)


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    qkv, cos, sin, ends, rows, tiles, *ctx.numbers = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(qkv, cos, sin, *output, ends, rows, tiles)


def _backward(ctx, gradient: Tensor, _: object):  # type: ignore[no-untyped-def]
    return turned_attention_backward(gradient, *ctx.saved_tensors, *ctx.numbers), *[None] * 7


turned_attention.register_autograd(_backward, setup_context=_save)
