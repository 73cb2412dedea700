"""ModernBERT's attention for the varlen layout, with few launches: query and key are turned together, in place of 40 operators."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.modernbert.modeling_modernbert import ModernBertAttention

from sst2_ray.modeling.attention.varlen import VARLEN_INTERFACE, attend_varlen


class VarlenModernBertAttention(ModernBertAttention):
    """transformers' attention of ModernBERT, but for batches in varlen layout, which it computes itself."""

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **keywords):  # type: ignore[no-untyped-def,override]
        """Compute [1, T, size] from the same."""
        if self.config._attn_implementation != VARLEN_INTERFACE:
            return super().forward(hidden_states, position_embeddings, **keywords)
        qkv = self.Wqkv(hidden_states[0]).view(len(hidden_states[0]), 3, -1, self.head_dim)
        turned = _turned if torch.compiler.is_compiling() else _Turned.apply
        query, key, value = turned(qkv, *(table[0, :, None, None] for table in position_embeddings))
        output = attend_varlen(
            query,
            key,
            value,
            ends=keywords["cu_seq_lens_q"],
            longest=keywords["max_length_q"],
            scale=self.head_dim**-0.5,
            sliding_window=self.sliding_window,
            dropout=self.attention_dropout if self.training else 0.0,
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
