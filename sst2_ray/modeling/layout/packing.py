"""Packing for CPUs: sentences of a batch laid end to end, padding computed inside attention only.

Everything in an encoder but attention treats tokens one by one. On a CPU, where time is arithmetic and not launches, the
batch [rows, width] therefore runs as [1, tokens]; attention alone sees rectangles, cut by length so that little of them
is padding. The numbers equal those of the padded batch but for the order of summation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_WIDEST_TO_SHORTEST = 1.5
"""Largest ratio of lengths in a rectangle: more rectangles cost more calls, fewer cost more padding."""

_LEAST_WIDTH = 16
"""Least width of a rectangle: torch's softmax is slow over fewer numbers than fit into a vector register."""

_WIDTHS, _ROWS, _TOKENS = 8, 8, 16
"""A rectangle's width, its rows and T are multiples of these: oneDNN compiles a kernel for every shape that it has not
seen lately. The filler's rectangle and the one before may have any number of rows, and so may one wider than `_SHORT`,
where padding costs more than a kernel."""

_SHORT = 64


@dataclass(frozen=True)
class Segment:
    """Consecutive rows of a packing that attention computes as one rectangle."""

    first_row: int
    rows: int
    width: int
    mask: Tensor | None
    """bool [rows, 1, 1, width], True at tokens; None where all rows are that long."""


@dataclass(frozen=True)
class Packing:
    """Layout of a padded batch [rows, width] as T tokens, longest rows first, a filler last.

    The filler is one more row of 1 to 16 tokens, which make T a multiple of 16; its outputs are never read. P: places of
    all segments together, rows * width each.
    """

    num_tokens: int
    """Tokens of the batch, before the filler's."""
    lengths: Tensor
    """int64 [rows]: tokens of each row of the batch."""
    order: Tensor
    """int64 [rows + 1]: the batch's row at each place of the packing."""
    source: Tensor
    """int64 [T]: each token's place in the flattened batch."""
    row: Tensor
    """int64 [T]: each token's row in the batch."""
    position: Tensor
    """int64 [T]: each token's position in its row; the filler's are all 0, which every model has."""
    segments: tuple[Segment, ...]
    places: Tensor
    """int64 [P]: the token at each place; places beyond the end of a row repeat its last token."""
    filled: Tensor
    """bool [P, 1]: whether a place holds a token of its own."""
    tokens: Tensor
    """int64 [T]: the place of each token."""

    @property
    def for_attention(self) -> dict[str, Packing]:
        """Return the keyword arguments of keyed attention."""
        return {"packing": self}


def pack(attention_mask: Tensor) -> Packing:
    """Lay out a batch padded on the right, given its mask [rows, width]; every row has a token."""
    width = attention_mask.size(1)
    of_rows = attention_mask.sum(dim=1)
    num_tokens = int(of_rows.sum())
    lengths, order = of_rows.sort(descending=True, stable=True)
    lengths = torch.cat([lengths, lengths.new_tensor([_TOKENS - num_tokens % _TOKENS])])
    order = torch.cat([order, order[-1:]])
    ends = lengths.cumsum(0)
    row = torch.repeat_interleave(lengths)  # [T], among the sorted rows
    position = torch.arange(len(row)) - (ends - lengths)[row]
    segments, places, filled, tokens, start = [], [], [], [], 0
    for first, last in itertools.pairwise(_cuts(lengths.tolist())):
        size = lengths[first:last, None]  # [rows, 1]
        columns = torch.arange(max(_LEAST_WIDTH, -int(size[0]) // _WIDTHS * -_WIDTHS))
        real = columns < size
        places.append(((ends - lengths)[first:last, None] + torch.minimum(columns, size - 1)).view(-1))
        filled.append(real.view(-1, 1))
        tokens.append(start + real.view(-1).nonzero().view(-1))
        mask = None if bool(real.all()) else real[:, None, None, :]
        segments.append(Segment(first, last - first, len(columns), mask))
        start += real.numel()
    source = order[row] * width + position
    source[num_tokens:] = 0
    position[num_tokens:] = 0
    return Packing(
        num_tokens=num_tokens,
        lengths=of_rows,
        order=order,
        source=source,
        row=order[row],
        position=position,
        segments=tuple(segments),
        places=torch.cat(places),
        filled=torch.cat(filled),
        tokens=torch.cat(tokens),
    )


def _cuts(lengths: list[int]) -> list[int]:
    """Return the first rows of the segments, then the number of rows. The last row is the filler."""
    cuts, filler = [0], len(lengths) - 1
    for row, length in enumerate(lengths):
        widest = lengths[cuts[-1]]
        allowed = (row - cuts[-1]) % _ROWS == 0 or row == filler or widest > _SHORT
        if allowed and widest > _LEAST_WIDTH and length * _WIDEST_TO_SHORTEST < widest:
            cuts.append(row)
    return [*cuts, len(lengths)]


class _ToPlaces(torch.autograd.Function):
    """Gather [T, ...] -> [P, ...], and back in the backward pass: autograd's scatter is slow on CPU.

    Correct where places beyond a row's end have no gradient, as in masked attention whose output goes through _ToTokens.
    """

    @staticmethod
    def forward(ctx, x: Tensor, packing: Packing) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.packing = packing
        return x.index_select(0, packing.places)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        return gradient.index_select(0, ctx.packing.tokens), None


class _ToTokens(torch.autograd.Function):
    """Gather [P, ...] -> [T, ...]."""

    @staticmethod
    def forward(ctx, x: Tensor, packing: Packing) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.packing = packing
        return x.index_select(0, packing.tokens)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        packing = ctx.packing
        return gradient.contiguous().index_select(0, packing.places).mul_(packing.filled), None


Attend = Callable[[Tensor, Tensor, Tensor, Segment], Tensor]


def attend_packed(query: Tensor, key: Tensor, value: Tensor, packing: Packing, attend: Attend) -> Tensor:
    """Compute attention over [1, heads, T, head_dim]; returns [1, T, heads, head_dim].

    `attend` computes one segment: from query, key and value [rows, heads, width, head_dim] to the same shape.
    """
    heads, size = query.size(1), query.size(3)
    padded = [
        _ToPlaces.apply(x[0].transpose(0, 1).reshape(-1, heads * size), packing) for x in (query, key, value)
    ]  # [P, heads * head_dim]
    sizes = [segment.rows * segment.width for segment in packing.segments]
    outputs = []
    for segment, *parts in zip(packing.segments, *(x.split(sizes) for x in padded), strict=True):
        q, k, v = (x.view(segment.rows, segment.width, heads, size).transpose(1, 2) for x in parts)
        outputs.append(attend(q, k, v, segment).transpose(1, 2).reshape(-1, heads * size))
    joined = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return _ToTokens.apply(joined, packing).view(1, -1, heads, size)


def to_rows(hidden: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
    """Unpack token vectors [T, size] to [rows, width, size], 0 at padding, and return the mask [rows, width] with them."""
    num_rows, width = len(packing.lengths), packing.segments[0].width
    places = (packing.row * width + packing.position)[: packing.num_tokens]
    hidden = hidden[: packing.num_tokens]
    token = torch.zeros(num_rows * width, dtype=torch.int64)
    token[places] = torch.arange(len(places))
    mask = torch.zeros(num_rows * width, dtype=torch.bool)
    mask[places] = True
    padded = _ToRows.apply(hidden, token, mask, places)
    return padded.view(num_rows, width, -1), mask.view(num_rows, width)


class _ToRows(torch.autograd.Function):
    """Gather [T, size] -> [rows * width, size], 0 at padding."""

    @staticmethod
    def forward(ctx, x: Tensor, token: Tensor, mask: Tensor, places: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.places = places
        return x.index_select(0, token).mul_(mask[:, None])

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        return gradient.contiguous().index_select(0, ctx.places), None, None, None
