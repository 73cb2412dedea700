"""Batch planning without torch: the rows that every rank computes at every optimizer step.

Epoch e of seed s is a permutation of the rows. A global batch is its next `batch_size` rows, whatever the number of
workers; the last batch of an epoch holds the remainder. The rows of a global batch are sorted by length, cut into
micro-batches of similar length, and dealt so that all ranks get equally many micro-batches and about equally many padded
tokens. Each row weighs 1 / (size of its global batch), so the summed gradient is the exact mean over the global batch:
the cut changes only the order of summation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.tokens import TokenArrays

Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """A padded batch that one worker computes at once."""

    rows: Int64  # [rows] positions in the TokenArrays
    weights: NDArray[np.float32]  # [rows] share of the global batch's mean; 0 for a filler row
    width: int  # tokens each row is padded to


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The share of one rank in one optimizer step, with the totals over all ranks."""

    epoch: int
    step_in_epoch: int  # from 0
    global_step: int  # from 0
    global_rows: Int64  # [batch] the whole global batch, in the order of the permutation
    micro_batches: tuple[MicroBatch, ...]
    num_tokens: int  # real tokens of the global batch
    num_padded_tokens: int  # computed tokens of the global batch, padding and filler rows included


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Count the optimizer steps of an epoch, a smaller last batch included."""
    return -(-num_rows // batch_size)


def epoch_permutation(num_rows: int, *, seed: int, epoch: int) -> Int64:
    """Return the order of the rows in an epoch, [num_rows]; it depends on (seed, epoch) alone."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_rows)


def cut_by_length(
    lengths: Int64, *, world_size: int, max_tokens: int, pad_to: int | None = None, packed: bool = False
) -> list[Int64]:
    """Cut a global batch into micro-batches for all ranks together.

    A micro-batch holds at most `max_tokens` padded tokens (`packed`: real tokens, since padding is not computed); a longer
    row gets one of its own. Their number is rounded up to a multiple of the ranks, and the bound is then lowered as far as
    that number allows: micro-batches cost about the same, and no small remainder is left.

    Args:
        lengths: Tokens of each row, [batch].
        world_size: Number of ranks.
        max_tokens: Tokens of a micro-batch.
        pad_to: Fixed width of all rows; None: the longest of the micro-batch.
        packed: Count real tokens only.

    Returns:
        Positions in the batch for each micro-batch, longest rows first.
    """
    order = np.argsort(-lengths, kind="stable")
    widths = np.full(len(lengths), pad_to, dtype=np.int64) if pad_to else lengths[order]

    ends = np.cumsum(widths)

    def starts(bound: int) -> list[int]:
        cuts, position = [], 0
        while position < len(order):
            cuts.append(position)
            width = int(widths[position])
            fit = int(np.searchsorted(ends, ends[position] - width + bound, side="right")) - position
            position += max(1, fit if packed else bound // width)
        return cuts

    low, high = 1, max_tokens
    target = -(-len(starts(high)) // world_size) * world_size
    while low < high:
        middle = (low + high) // 2
        if len(starts(middle)) <= target:
            high = middle
        else:
            low = middle + 1
    cuts = [*starts(high), len(order)]
    return [order[a:b] for a, b in itertools.pairwise(cuts)]


def deal(costs: Sequence[int], *, world_size: int) -> list[list[int]]:
    """Assign pieces to ranks by greedy longest-processing-time: the costliest next piece goes to the least loaded rank.

    Returns:
        The numbers of each rank's pieces, ascending; no rank gets more than ceil(pieces / world_size).
    """
    most = -(-len(costs) // world_size)
    shares: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for piece in sorted(range(len(costs)), key=lambda i: -costs[i]):
        rank = min((r for r in range(world_size) if len(shares[r]) < most), key=lambda r: loads[r])
        shares[rank].append(piece)
        loads[rank] += costs[piece]
    return [sorted(share) for share in shares]


def plan_step(
    tokens: TokenArrays,
    global_rows: Int64,
    *,
    rank: int,
    world_size: int,
    max_tokens: int,
    pad_to: int | None = None,
    packed: bool = False,
    computed: Callable[[int, int], int] = lambda tokens, rows: tokens,  # noqa: ARG005
) -> tuple[tuple[MicroBatch, ...], int]:
    """Plan the rank's micro-batches of one global batch.

    `computed`, packed: the tokens that a micro-batch of so many tokens and rows is filled up to.

    A rank that is one piece short computes the shortest row as a filler of weight 0: all ranks have the same number of
    micro-batches, so every rank takes part in every collective.

    Returns:
        The rank's micro-batches, and the computed tokens of all ranks together.
    """
    lengths = tokens.offsets[global_rows + 1] - tokens.offsets[global_rows]
    pieces = cut_by_length(lengths, world_size=world_size, max_tokens=max_tokens, pad_to=pad_to, packed=packed)
    widths = [pad_to or int(lengths[piece[0]]) for piece in pieces]
    costs = [
        computed(int(lengths[piece].sum()), len(piece)) if packed else len(piece) * width
        for piece, width in zip(pieces, widths, strict=True)
    ]
    shares = deal(costs, world_size=world_size)
    num_each = max(map(len, shares))
    num_fillers = world_size * num_each - len(pieces)
    filler = pieces[-1][-1:]
    filler_width = pad_to or int(lengths[filler[0]])

    share = np.float32(1.0 / len(global_rows))
    micro_batches = [
        MicroBatch(
            rows=global_rows[pieces[i]],
            weights=np.full(len(pieces[i]), share, dtype=np.float32),
            width=widths[i],
        )
        for i in shares[rank]
    ]
    while len(micro_batches) < num_each:
        nothing = np.zeros(1, dtype=np.float32)
        micro_batches.append(MicroBatch(rows=global_rows[filler], weights=nothing, width=filler_width))
    return tuple(micro_batches), sum(costs) + num_fillers * filler_width


def plan_epoch(
    tokens: TokenArrays,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    rank: int,
    world_size: int,
    max_tokens: int,
    pad_to: int | None = None,
    packed: bool = False,
    computed: Callable[[int, int], int] = lambda tokens, rows: tokens,  # noqa: ARG005
    first_step: int = 0,
) -> Iterator[StepPlan]:
    """Yield the rank's steps of one epoch; a resumed run starts at `first_step`."""
    order = epoch_permutation(len(tokens), seed=seed, epoch=epoch)
    count = steps_per_epoch(len(tokens), batch_size)
    for step in range(first_step, count):
        global_rows = order[step * batch_size : (step + 1) * batch_size]
        micro_batches, padded = plan_step(
            tokens,
            global_rows,
            rank=rank,
            world_size=world_size,
            max_tokens=max_tokens,
            pad_to=pad_to,
            packed=packed,
            computed=computed,
        )
        yield StepPlan(
            epoch=epoch,
            step_in_epoch=step,
            global_step=epoch * count + step,
            global_rows=global_rows,
            micro_batches=micro_batches,
            num_tokens=int((tokens.offsets[global_rows + 1] - tokens.offsets[global_rows]).sum()),
            num_padded_tokens=padded,
        )


def largest_micro_batch(
    tokens: TokenArrays,
    *,
    seed: int,
    batch_size: int,
    world_size: int,
    max_tokens: int,
    pad_to: int | None = None,
    packed: bool = False,
) -> int:
    """Count the tokens, as `cut_by_length` does, of the largest micro-batch in the heaviest step of the first epoch.

    At most `max_tokens`: half of it then cuts at least that step into more micro-batches, unless a row is longer.
    """
    order = epoch_permutation(len(tokens), seed=seed, epoch=0)
    firsts = np.arange(0, len(order), batch_size)
    heaviest = int(firsts[np.argmax(np.add.reduceat(tokens.lengths[order], firsts))])
    lengths = tokens.lengths[order[heaviest : heaviest + batch_size]].astype(np.int64)
    pieces = cut_by_length(lengths, world_size=world_size, max_tokens=max_tokens, pad_to=pad_to, packed=packed)
    sizes = [int(lengths[p].sum()) if packed else len(p) * (pad_to or int(lengths[p[0]])) for p in pieces]
    return min(max_tokens, max(sizes))


def plan_evaluation(tokens: TokenArrays, *, rank: int, world_size: int, max_tokens: int) -> list[MicroBatch]:
    """Plan the rank's share of an evaluation: every row on exactly one rank, in batches of similar length.

    Ranks may differ in their number of batches, since an evaluation exchanges nothing in between.
    """
    longest_first = np.argsort(-tokens.lengths, kind="stable")
    return batches_of_like_length(tokens, longest_first[rank::world_size], max_tokens=max_tokens)


def batches_of_like_length(tokens: TokenArrays, rows: Int64, *, max_tokens: int) -> list[MicroBatch]:
    """Cut `rows` [rows], longest first, into batches of at most `max_tokens` padded tokens; a longer row stands alone."""
    lengths, batches, position = tokens.lengths, [], 0
    while position < len(rows):
        width = int(lengths[rows[position]])
        some = rows[position : position + max(1, max_tokens // width)]
        batches.append(MicroBatch(rows=some, weights=np.ones(len(some), dtype=np.float32), width=width))
        position += len(some)
    return batches


def collate(tokens: TokenArrays, batch: MicroBatch, *, pad_id: int) -> tuple[Int64, ...]:
    """Return `input_ids`, `attention_mask` and, where `tokens` has them, `token_type_ids`.

    Each is int64 [rows, width], padded on the right.
    """
    starts = tokens.offsets[batch.rows]
    lengths = tokens.offsets[batch.rows + 1] - starts
    columns = np.arange(batch.width)
    mask = columns < lengths[:, None]
    flat = np.minimum(starts[:, None] + columns, len(tokens.input_ids) - 1)
    ids, ones = np.where(mask, tokens.input_ids[flat], pad_id).astype(np.int64), mask.astype(np.int64)
    return (ids, ones) if tokens.type_ids is None else (ids, ones, tokens.type_ids[flat] * ones)
