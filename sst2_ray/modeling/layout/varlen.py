"""Varlen layout for GPUs: sentences of a batch laid end to end for FlashAttention's kernels, without any padding.

transformers' own way computes padded batches, and moves query, key and value out of the padding and back in every layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

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
    tiles: Tensor
    """int32 [tiles + 1]: what short sentences are computed in, see tiles_of."""
    longest: int
    """Tokens of the longest row; of a filled batch at least so many."""
    filled: bool = False
    """Whether it is filled up to a Bucket: then its size occurs again."""

    def moved(self, move: Callable[[Tensor], Tensor]) -> Varlen:
        """Return a copy with every tensor as `move` returns it."""
        tensors = {name: move(getattr(self, name)) for name in ("row", "position", "ends", "tiles")}
        return dataclasses.replace(self, **tensors)

    @property
    def for_attention(self) -> dict[str, Tensor | int]:
        """Return the keyword arguments of transformers' FlashAttention (modeling_flash_attention_utils.py, 5.23) and ours."""
        return {
            "rows": self.row,
            "tiles": self.tiles,
            "cu_seq_lens_q": self.ends,
            "cu_seq_lens_k": self.ends,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
        }


TILE = 64
"""Tokens of a tile."""


def tiles_of(ends: Tensor, *, filled: bool = False) -> Tensor:
    """Cut the tokens of a batch into tiles: as many whole rows as fit, or a part of a row that is longer than a tile.

    Args:
        ends: See Varlen.
        filled: Add empty tiles, so that their number depends on the number of tokens alone.

    Returns:
        int32 [tiles + 1]: 0, then the tokens up to the end of each tile.
    """
    bounds = ends.tolist()
    cuts = [0]
    for start, end in pairwise(bounds):
        if end - cuts[-1] > TILE and cuts[-1] < start:
            cuts.append(start)
        if end - start > TILE:
            cuts += [*range(start + TILE, end, TILE), end]
    if cuts[-1] < bounds[-1]:
        cuts.append(bounds[-1])
    if filled:
        # The worst is a row of one token and one of 65 in turn: three tiles for 66.
        cuts += [bounds[-1]] * (3 * bounds[-1] // TILE + 2 - len(cuts))
    return torch.tensor(cuts, dtype=torch.int32)


_FILLER_TOKENS = 64
"""Tokens of a filler row, about; it has at most one more."""


@dataclass(frozen=True)
class Bucket:
    """Size that batches are filled up to, so that few sizes occur: a captured graph replays one."""

    tokens: int
    rows: int
    longest: int

    @classmethod
    def of(cls, tokens: int, rows: int, longest: int) -> Bucket:
        """Return the bucket of a batch: up to an eighth more tokens and a sixteenth more rows, and a filler row at least."""
        step = max(_FILLER_TOKENS, 1 << max(0, tokens.bit_length() - 4))
        rows_step = 1 << max(0, rows.bit_length() - 5)
        filled_rows = -(-(rows + step // _FILLER_TOKENS) // rows_step) * rows_step
        filled = -(-(tokens + filled_rows - rows) // step) * step
        return cls(filled, filled_rows, max(2 * _FILLER_TOKENS, 1 << (longest - 1).bit_length()))

    def fill(self, ids: Tensor, layout: Varlen, *, pad_id: int) -> tuple[Tensor, Varlen]:
        """Add filler rows of `pad_id` to ids [T] and their layout, each with a token at least; all their positions are 0.

        No token of a sentence sees them; whoever reads the rows gives them no weight.
        """
        tokens, rows = len(ids), len(layout.ends) - 1
        fillers = self.rows - rows
        ends = tokens + torch.arange(1, fillers + 1) * (self.tokens - tokens) // fillers
        lengths = torch.diff(ends, prepend=ends.new_tensor([tokens]))
        row = torch.cat([layout.row, torch.repeat_interleave(torch.arange(rows, self.rows), lengths)])
        position = torch.cat([layout.position, layout.position.new_zeros(self.tokens - tokens)])
        filled = torch.cat([ids, ids.new_full((self.tokens - tokens,), pad_id)])
        all_ends = torch.cat([layout.ends, ends.to(torch.int32)])
        tiles = tiles_of(all_ends, filled=True)
        return filled, Varlen(row=row, position=position, ends=all_ends, tiles=tiles, longest=self.longest, filled=True)


ModelInputs = tuple[Tensor, Tensor | Varlen] | tuple[Tensor, Tensor | Varlen, Tensor]
"""Arguments of a classifier: ids, mask or layout and, for pairs of a model that is told which token is whose, type ids."""


def model_inputs(
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None = None,
    *,
    varlen: bool,
    move: Callable[[Tensor], Tensor],
    bucket: Bucket | None = None,
    pad_id: int = 0,
) -> ModelInputs:
    """Make a classifier's arguments from a batch padded on the right, each tensor as `move` returns it.

    The batch is laid out before it is moved, so that nothing waits for a GPU. `bucket`: what a varlen layout is filled up
    to, with `pad_id`.
    """
    if not varlen:
        padded = (input_ids, attention_mask) if token_type_ids is None else (input_ids, attention_mask, token_type_ids)
        return tuple(map(move, padded))  # type: ignore[return-value]
    types = None if token_type_ids is None else token_type_ids[attention_mask.bool()]
    ids, layout = to_varlen(input_ids, attention_mask)
    if bucket is not None:
        ids, layout = bucket.fill(ids, layout, pad_id=pad_id)
        types = None if types is None else torch.cat([types, types.new_zeros(len(ids) - len(types))])
    moved = move(ids), layout.moved(move)
    return moved if types is None else (*moved, move(types))


def to_varlen(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Varlen]:
    """Return the ids [T] and the layout of a batch padded on the right, given its ids and mask [rows, width]."""
    real = attention_mask.bool()
    row, position = real.nonzero(as_tuple=True)
    lengths = real.sum(dim=1)
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32)
    layout = Varlen(row=row, position=position, ends=ends, tiles=tiles_of(ends), longest=int(lengths.max()))
    return input_ids[real], layout
