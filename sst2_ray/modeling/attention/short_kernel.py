"""Attention of short sentences laid end to end, in Triton, which torch brings for CUDA. Imported where one is used.

FlashAttention computes a sentence in tiles of 128 by 128 places, and one of SST-2 has 13 tokens. Here a program computes one
head of a tile of 64 tokens, which are as many whole sentences as fit (layout.varlen.tiles_of). ModernBERT's query and key are
turned on the way, so that they are neither read nor written once more. Every number is computed in one order: results repeat
bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sst2_ray.modeling.layout.varlen import TILE

_WARPS = 4
"""Of a program."""


@triton.jit
def _halves(x, token, inside, stride, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read both halves of the features of some tokens, [BLOCK, HALF] each."""
    at = x + token[:, None] * stride + tl.arange(0, HALF)[None, :]
    return tl.load(at, inside[:, None], 0.0), tl.load(at + HALF, inside[:, None], 0.0)


@triton.jit
def _angles(cos, sin, token, inside, HALF: tl.constexpr, TURNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read cosines and sines of the angles of some tokens' positions, fp32 [BLOCK, HALF] each."""
    if TURNED:
        at = token[:, None] * (2 * HALF) + tl.arange(0, HALF)[None, :]
        c, s = tl.load(cos + at, inside[:, None], 0.0), tl.load(sin + at, inside[:, None], 0.0)
    else:
        c, s = 1.0, 0.0
    return c, s


@triton.jit
def _turn(first, second, c, s, TURNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Turn pairs of features, in fp32; of an angle's negative sine: back."""
    if TURNED:
        one, two = first.to(tl.float32), second.to(tl.float32)
        turned, other = one * c - two * s, two * c + one * s
    else:
        turned, other = first, second
    return turned.to(first.dtype), other.to(first.dtype)


@triton.jit
def _read_turned(x, c, s, token, inside, stride, HALF: tl.constexpr, TURNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read queries or keys, turned by these angles."""
    first, second = _halves(x, token, inside, stride, HALF)
    return _turn(first, second, c, s, TURNED)


@triton.jit
def _read(x, cos, sin, token, inside, stride, HALF: tl.constexpr, TURNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read queries or keys, turned."""
    c, s = _angles(cos, sin, token, inside, HALF, TURNED)
    return _read_turned(x, c, s, token, inside, stride, HALF, TURNED)


@triton.jit
def _write(x, first, second, c, s, token, inside, stride, HALF: tl.constexpr, TURNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the gradient of queries or keys, turned back."""
    first, second = _turn(first, second, c, -s, TURNED)
    at = x + token[:, None] * stride + tl.arange(0, HALF)[None, :]
    tl.store(at, first.to(x.dtype.element_ty), inside[:, None])
    tl.store(at + HALF, second.to(x.dtype.element_ty), inside[:, None])


@triton.jit
def _whole(x, token, inside, stride, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read all features of some tokens, [BLOCK, 2 * HALF]."""
    return tl.load(x + token[:, None] * stride + tl.arange(0, 2 * HALF)[None, :], inside[:, None], 0.0)


@triton.jit
def _write_whole(x, found, token, inside, stride, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write all features of some tokens, [BLOCK, 2 * HALF]."""
    at = x + token[:, None] * stride + tl.arange(0, 2 * HALF)[None, :]
    tl.store(at, found.to(x.dtype.element_ty), inside[:, None])


@triton.jit
def _sees(mine, my_row, other, its_row, window):  # type: ignore[no-untyped-def]
    """Tell which token sees which, [BLOCK, BLOCK]: those of its sentence, at most `window` away."""
    away = mine[:, None] - other[None, :]
    return (my_row[:, None] == its_row[None, :]) & (away <= window) & (away >= -window)


@triton.jit
def _tile(ends, rows, tiles, tile):  # type: ignore[no-untyped-def]
    """Read a tile's first token and the one after its last, and the same of the sentences that these are of."""
    start, end = tl.load(tiles + tile), tl.load(tiles + tile + 1)
    filled = start < end  # a table filled up for a graph ends with tiles of no token
    first = tl.load(rows + start, filled, 0)
    last = tl.load(rows + end - 1, filled, 0)
    return start, end, tl.load(ends + first), tl.load(ends + last + 1)


@triton.jit
def _attend(query, key, value, cos, sin, ends, rows, tiles, output, log_sum, tokens, heads, stride, scale, window,  # type: ignore[no-untyped-def]
            HALF: tl.constexpr, TURNED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    head = tl.program_id(0) % heads
    start, end, first, last = _tile(ends, rows, tiles, tl.program_id(0) // heads)
    query, key, value = query + head * 2 * HALF, key + head * 2 * HALF, value + head * 2 * HALF
    if start < end:
        mine = start + tl.arange(0, BLOCK)
        my_row = tl.load(rows + mine, mine < end, -1)
        q1, q2 = _read(query, cos, sin, mine, mine < end, stride, HALF, TURNED)
        highest = tl.full([BLOCK], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        weighted = tl.zeros([BLOCK, 2 * HALF], tl.float32)
        for at in range(tl.maximum(first, start - window), tl.minimum(last, end + window), BLOCK):
            other = at + tl.arange(0, BLOCK)
            its_row = tl.load(rows + other, other < last, -2)
            k1, k2 = _read(key, cos, sin, other, other < last, stride, HALF, TURNED)
            v = _whole(value, other, other < last, stride, HALF)
            scores = (tl.dot(q1, tl.trans(k1)) + tl.dot(q2, tl.trans(k2))) * scale
            scores = tl.where(_sees(mine, my_row, other, its_row, window), scores, float("-inf"))
            higher = tl.maximum(highest, tl.max(scores, 1))
            least = tl.where(higher == float("-inf"), 0.0, higher)  # nothing seen yet
            p = tl.exp(scores - least[:, None])
            shrunk = tl.exp(highest - least)
            total = total * shrunk + tl.sum(p, 1)
            weighted = weighted * shrunk[:, None] + tl.dot(p.to(v.dtype), v)
            highest = higher
        _write_whole(output + head * 2 * HALF, weighted / total[:, None], mine, mine < end, heads * 2 * HALF, HALF)
        tl.store(log_sum + head * tokens + mine, highest + tl.log(total), mine < end)


@triton.jit
def _own(given, output, token, inside, stride, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """Compute the sum over keys of probabilities times their gradients, fp32 [BLOCK]."""
    return tl.sum(given.to(tl.float32) * _whole(output, token, inside, stride, HALF).to(tl.float32), 1)


@triton.jit
def _probabilities(q1, q2, k1, k2, sums, seen, scale):  # type: ignore[no-untyped-def]
    scores = (tl.dot(q1, tl.trans(k1)) + tl.dot(q2, tl.trans(k2))) * scale
    return tl.where(seen, tl.exp(scores - sums[:, None]), 0.0)


@triton.jit
def _of_scores(given, v, p, own, scale):  # type: ignore[no-untyped-def]
    """Compute the gradient of scores, in 16 bits [BLOCK, BLOCK]."""
    return (p * (tl.dot(given, tl.trans(v)) - own[:, None]) * scale).to(v.dtype)


@triton.jit
def _differentiate(gradient, query, key, value, cos, sin, ends, rows, tiles, output, log_sum, of_query, of_key, of_value,  # type: ignore[no-untyped-def]
                   tokens, heads, stride, of_stride, scale, window, HALF: tl.constexpr, TURNED: tl.constexpr,
                   BLOCK: tl.constexpr):  # fmt: skip
    head = tl.program_id(0) % heads
    start, end, first, last = _tile(ends, rows, tiles, tl.program_id(0) // heads)
    shift, dense = head * 2 * HALF, heads * 2 * HALF
    query, key, value, gradient, output = query + shift, key + shift, value + shift, gradient + shift, output + shift
    of_query, of_key, of_value = of_query + shift, of_key + shift, of_value + shift
    log_sum += head * tokens
    mine = start + tl.arange(0, BLOCK)
    inside = mine < end
    if start < end:
        my_row = tl.load(rows + mine, inside, -1)
        c, s = _angles(cos, sin, mine, inside, HALF, TURNED)
        k1, k2 = _read_turned(key, c, s, mine, inside, stride, HALF, TURNED)
        q1, q2 = _read_turned(query, c, s, mine, inside, stride, HALF, TURNED)
        v = _whole(value, mine, inside, stride, HALF)
        given = _whole(gradient, mine, inside, dense, HALF)
        sums = tl.load(log_sum + mine, inside, 0.0)
        if last - first <= BLOCK:  # whole sentences
            p = _probabilities(q1, q2, k1, k2, sums, _sees(mine, my_row, mine, my_row, window) & inside[None, :], scale)
            own = tl.sum(p * tl.dot(given, tl.trans(v)), 1)
            of_scores = _of_scores(given, v, p, own, scale)
            dq1, dq2 = tl.dot(of_scores, k1), tl.dot(of_scores, k2)
            dk1, dk2 = tl.dot(tl.trans(of_scores), q1), tl.dot(tl.trans(of_scores), q2)
            dv = tl.dot(tl.trans(p.to(v.dtype)), given)
        else:  # a part of one, whose tokens see others and are seen by others
            own = _own(given, output, mine, inside, dense, HALF)
            zero = tl.zeros([BLOCK, HALF], tl.float32)
            dq1, dq2, dk1, dk2 = zero, zero, zero, zero
            dv = tl.zeros([BLOCK, 2 * HALF], tl.float32)
            for at in range(tl.maximum(first, start - window), tl.minimum(last, end + window), BLOCK):
                other = at + tl.arange(0, BLOCK)
                seen = _sees(mine, my_row, other, tl.load(rows + other, other < last, -2), window)
                ok1, ok2 = _read(key, cos, sin, other, other < last, stride, HALF, TURNED)
                p = _probabilities(q1, q2, ok1, ok2, sums, seen, scale)
                of_scores = _of_scores(given, _whole(value, other, other < last, stride, HALF), p, own, scale)
                dq1 += tl.dot(of_scores, ok1)
                dq2 += tl.dot(of_scores, ok2)
                oq1, oq2 = _read(query, cos, sin, other, other < last, stride, HALF, TURNED)
                its_given = _whole(gradient, other, other < last, dense, HALF)
                its_own = _own(its_given, output, other, other < last, dense, HALF)
                p = _probabilities(oq1, oq2, k1, k2, tl.load(log_sum + other, other < last, 0.0), tl.trans(seen), scale)
                of_scores = _of_scores(its_given, v, p, its_own, scale)
                dk1 += tl.dot(tl.trans(of_scores), oq1)
                dk2 += tl.dot(tl.trans(of_scores), oq2)
                dv += tl.dot(tl.trans(p.to(v.dtype)), its_given)
        _write(of_query, dq1, dq2, c, s, mine, inside, of_stride, HALF, TURNED)
        _write(of_key, dk1, dk2, c, s, mine, inside, of_stride, HALF, TURNED)
        _write_whole(of_value, dv, mine, inside, of_stride, HALF)


Places = tuple[Tensor, Tensor, Tensor]
"""Ends, rows and tiles of a Varlen layout."""

Turns = tuple[Tensor, Tensor] | None
"""cos and sin, fp32 [T, head_dim], both halves alike; None: nothing is turned."""


def attend(
    inputs: Sequence[Tensor], turns: Turns, places: Places, *, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    """Compute attention inside each sentence: the output [T, heads, head_dim] and the log-sums [heads, T] of varlen_attention.

    inputs: query, key and value [T, heads, head_dim] on a GPU, with the same strides, heads and features contiguous.
    """
    query, tiles = inputs[0], places[2]
    tokens, heads, size = query.shape
    output = query.new_empty(query.shape)
    log_sum = query.new_empty((heads, tokens), dtype=torch.float32)
    with torch.cuda.device_of(query):
        _attend[(heads * (len(tiles) - 1),)](
            *inputs, *(turns or (query, query)), *places, output, log_sum, tokens, heads, _stride(inputs), scale,
            _reach(window, tokens), HALF=size // 2, TURNED=turns is not None, BLOCK=TILE, num_warps=_WARPS, num_stages=1,
        )  # fmt: skip
    return output, log_sum


def differentiate(
    gradient: Tensor, inputs: Sequence[Tensor], turns: Turns, places: Places, output: Tensor, log_sum: Tensor, *,
    into: Sequence[Tensor], scale: float, window: int,
) -> None:  # fmt: skip
    """Write the gradients of query, key and value `into` memory laid out as theirs, from that of the output [T, heads, head_dim]."""
    tokens, heads, size = output.shape
    with torch.cuda.device_of(output):
        _differentiate[(heads * (len(places[2]) - 1),)](
            gradient.contiguous(), *inputs, *(turns or (output, output)), *places, output, log_sum, *into, tokens, heads,
            _stride(inputs), _stride(into), scale, _reach(window, tokens), HALF=size // 2, TURNED=turns is not None,
            BLOCK=TILE, num_warps=_WARPS, num_stages=1,
        )  # fmt: skip


def _stride(tensors: Sequence[Tensor]) -> int:
    """Return the distance of tokens, one for all tensors."""
    strides = {tensor.stride() for tensor in tensors}
    (stride, *inner), size = strides.pop(), tensors[0].size(-1)
    assert not strides and inner == [size, 1], "heads and features lie side by side"
    return stride


def _reach(window: int, tokens: int) -> int:
    """Return how far a token sees, in tokens."""
    return window if 0 <= window < tokens else tokens
