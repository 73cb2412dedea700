"""FlashAttention on a CPU: what its varlen function promises, in plain torch, behind transformers' own way to it.

The kernels need a GPU (tests/gpu computes with them).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import modeling_flash_attention_utils as flash

from sst2_ray.modeling.attention.choice import FLASH
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.modeling.layout.varlen import tiles_of


def compute_with_flash(model: SentenceClassifier, patch: pytest.MonkeyPatch) -> None:
    """`model` from now on, in the precision that it has."""
    imports = (
        (None, _varlen_attention, None, flash._pad_input, flash._unpad_input),
        (flash._lazy_define_process_function(_varlen_attention), None),
    )
    patch.setattr(flash, "lazy_import_flash_attention", lambda *_: imports)
    # It warns of fp32, which the kernels do not take.
    patch.setattr(flash, "fa_peft_integration_check", lambda q, k, v, *_: (q, k, v))
    patch.setattr(model.backbone.config, "_attn_implementation", FLASH)
    patch.setattr(model, "supports_packing", False)
    patch.setattr(model, "supports_varlen", True)


def places_of(ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ends, rows and tiles, as varlen_attention takes them."""
    return ends, torch.repeat_interleave(ends.diff()), tiles_of(ends)


def _varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,  # noqa: ARG001
) -> Tensor:
    """flash_attn_varlen_func's arguments and its result [T, heads, head_dim]; a window counts without the token itself."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert max_seqlen_q == max_seqlen_k
    assert not causal
    assert dropout_p == 0.0
    token = torch.arange(len(q))
    row = torch.bucketize(token, cu_seqlens_q[1:], right=True)
    seen = row[:, None] == row
    left, right = window_size
    if left >= 0:
        seen &= (token[:, None] - token <= left) & (token - token[:, None] <= right)
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=softmax_scale)
    return out.transpose(0, 1)
