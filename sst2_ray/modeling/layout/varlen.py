"""Varlen layout for GPUs: sentences of a batch laid end to end for FlashAttention's kernels, without any padding.

transformers' own way computes padded batches, and moves query, key and value out of the padding and back in every layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Varlen:
    """Layout of a batch as T tokens, row after row."""

    row: Tensor
    """int64 [T]: each token's row in the batch."""
    position: Tensor
    """int64 [T]: each token's position in its row."""
    ends: Tensor
    """int32 [rows + 1]: 0, then the tokens up to the end of each row; the kernels' cu_seqlens."""
    longest: int
    """Tokens of the longest row."""

    def moved(self, move: Callable[[Tensor], Tensor]) -> Varlen:
        """Return a copy with every tensor as `move` returns it."""
        return dataclasses.replace(self, row=move(self.row), position=move(self.position), ends=move(self.ends))

    @property
    def for_attention(self) -> dict[str, Tensor | int]:
        """Return the keyword arguments of transformers' FlashAttention (modeling_flash_attention_utils.py, 5.23)."""
        return {
            "cu_seq_lens_q": self.ends,
            "cu_seq_lens_k": self.ends,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
        }


ModelInputs = tuple[Tensor, Tensor | Varlen] | tuple[Tensor, Tensor | Varlen, Tensor]
"""Arguments of a classifier: ids, mask or layout and, for pairs of a model that is told which token is whose, type ids."""


def model_inputs(
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None = None,
    *,
    varlen: bool,
    move: Callable[[Tensor], Tensor],
) -> ModelInputs:
    """Make a classifier's arguments from a batch padded on the right, each tensor as `move` returns it.

    The batch is laid out before it is moved, so that nothing waits for a GPU.
    """
    ids, layout = to_varlen(input_ids, attention_mask) if varlen else (input_ids, attention_mask)
    moved = move(ids), layout.moved(move) if isinstance(layout, Varlen) else move(layout)
    if token_type_ids is None:
        return moved
    return *moved, move(token_type_ids[attention_mask.bool()] if varlen else token_type_ids)


def to_varlen(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Varlen]:
    """Return the ids [T] and the layout of a batch padded on the right, given its ids and mask [rows, width]."""
    real = attention_mask.bool()
    row, position = real.nonzero(as_tuple=True)
    lengths = real.sum(dim=1)
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32)
    return input_ids[real], Varlen(row=row, position=position, ends=ends, longest=int(lengths.max()))
