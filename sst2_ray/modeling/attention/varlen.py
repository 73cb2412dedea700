"""Attention over sentences laid end to end: FlashAttention's kernels that are in torch, behind transformers' interface.

The operator `sst2_ray::varlen_attention` has kernels for GPUs, torch's own and one for short sentences (short_kernel.py), and
one for CPUs in plain torch: the contract that tests compare with padded batches, and what a step's launches are counted with
where there is no GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from sst2_ray.modeling.compiler import HAS_TRITON

VARLEN_INTERFACE = "sst2_ray_varlen"
"""Name of `_attention` in transformers' interface."""

_UNLIMITED = -1

_SHORT = 64
"""Tokens of a sentence, of all on average, up to which the kernel for short sentences is the faster one."""

_SHORT_SIZES = (32, 64, 128)
"""Sizes of a head that it computes."""


def is_short(query: Tensor, ends: Tensor) -> bool:
    """Tell whether the kernel for short sentences computes these [T, ..., head_dim]: by shapes alone, as graphs need it.

    On a CPU, which has no such kernel, the contract stands for both: there it decides what is counted and compared.
    """
    there = query.device.type == "cpu" or (query.size(-1) in _SHORT_SIZES and HAS_TRITON)
    return there and query.size(0) <= _SHORT * (ends.size(0) - 1)


@torch.library.custom_op("sst2_ray::varlen_attention", mutates_args=(), device_types="cuda")
def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, rows: Tensor, tiles: Tensor, longest: int, scale: float,
    window: int, dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute attention inside each sentence.

    Args:
        query: [T, heads, head_dim], as key and value, in 16 bits; head_dim is a multiple of 8, of at most 256.
        ends: int32 [rows + 1]: 0, then the tokens up to the end of each sentence.
        rows, tiles: See layout.varlen.Varlen.
        longest: tokens of the longest sentence.
        scale: of the scores.
        window: a token sees those at most so far away; -1: all of its sentence.
        dropout: probability of the probabilities; drawn from the device's generator.

    Returns:
        The output [T, heads, head_dim]; for the backward pass the scores' log-sum-exp, fp32 [heads, T], and the state of
        the generator, uint64 [2].
    """
    if dropout == 0 and is_short(query, ends):
        from sst2_ray.modeling.attention.short_kernel import attend

        return *attend((query, key, value), None, (ends, rows, tiles), scale=scale, window=window), _no_state(query)
    output, log_sum, state, _, _ = torch.ops.aten._flash_attention_forward(
        query, key, value, ends, ends, longest, longest, dropout, False, False,
        scale=scale, window_size_left=window, window_size_right=window,
    )  # fmt: skip
    # Without dropout the kernel leaves no state behind that could be relied on, and its backward pass reads none.
    return output.contiguous(), log_sum, state if dropout > 0 else _no_state(query)


@torch.library.custom_op("sst2_ray::varlen_attention_backward", mutates_args=(), device_types="cuda")
def varlen_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, log_sum: Tensor, state: Tensor,
    ends: Tensor, rows: Tensor, tiles: Tensor, longest: int, scale: float, window: int, dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of query, key and value, given that of the output."""
    if dropout == 0 and is_short(query, ends):
        from sst2_ray.modeling.attention.short_kernel import differentiate

        found = query.new_empty(query.shape), query.new_empty(query.shape), query.new_empty(query.shape)
        differentiate(
            gradient,
            (query, key, value),
            None,
            (ends, rows, tiles),
            output,
            log_sum,
            into=found,
            scale=scale,
            window=window,
        )
        return found
    of_query, of_key, of_value = torch.ops.aten._flash_attention_backward(
        gradient.contiguous(), query, key, value, output, log_sum, ends, ends, longest, longest, dropout, False, state,
        query.new_empty(0), scale=scale, window_size_left=window, window_size_right=window,
    )  # fmt: skip
    return of_query.contiguous(), of_key.contiguous(), of_value.contiguous()


def _no_state(query: Tensor) -> Tensor:
    return torch.empty(2, dtype=torch.uint64, device=query.device)


@varlen_attention.register_fake
def _(query: Tensor, *_: object):  # type: ignore[no-untyped-def]
    log_sum = query.new_empty((query.size(1), query.size(0)), dtype=torch.float32)
    return torch.empty_like(query, memory_format=torch.contiguous_format), log_sum, _no_state(query)


@varlen_attention_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value))


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    query, key, value, ends, rows, tiles, *ctx.numbers = inputs
    ctx.set_materialize_grads(False)  # nothing asks for those of the log-sum and the state: two fills a layer less
    ctx.save_for_backward(query, key, value, *output, ends, rows, tiles)


def _backward(ctx, gradient: Tensor, *_: object):  # type: ignore[no-untyped-def]
    found = varlen_attention_backward(gradient, *ctx.saved_tensors, *ctx.numbers)
    return (*found, *[None] * 7)


varlen_attention.register_autograd(_backward, setup_context=_save)


# ---- the contract in plain torch


@varlen_attention.register_kernel("cpu")
def _(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, rows: Tensor, tiles: Tensor, longest: int, scale: float,  # type: ignore[no-untyped-def]  # noqa: ARG001
      window: int, dropout: float):  # fmt: skip
    state = torch.randint(2**62, (2,)).to(torch.uint64) if dropout > 0 else _no_state(query)
    scores = _scores(query, key, ends, scale, window)
    log_sum = scores.logsumexp(-1)
    kept = _kept(state, scores.shape, dropout) * (scores - log_sum[..., None]).exp()
    output = torch.einsum("hqk,khd->qhd", kept, value.float())
    return output.to(query.dtype).contiguous(), log_sum, state


@varlen_attention_backward.register_kernel("cpu")
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, log_sum: Tensor, state: Tensor,  # type: ignore[no-untyped-def]
      ends: Tensor, rows: Tensor, tiles: Tensor, longest: int, scale: float, window: int, dropout: float):  # noqa: ARG001  # fmt: skip
    probabilities = (_scores(query, key, ends, scale, window) - log_sum[..., None]).exp()
    kept, gradient = _kept(state, probabilities.shape, dropout), gradient.float()
    of_value = torch.einsum("hqk,qhd->khd", kept * probabilities, gradient)
    of_kept = kept * torch.einsum("qhd,khd->hqk", gradient, value.float())
    own = (gradient * output.float()).sum(-1).T[..., None]  # [heads, T, 1]
    of_scores = scale * probabilities * (of_kept - own)
    of_query = torch.einsum("hqk,khd->qhd", of_scores, key.float())
    of_key = torch.einsum("hqk,qhd->khd", of_scores, query.float())
    found = ((of_query, query), (of_key, key), (of_value, value))
    return tuple(gradient.to(of.dtype).contiguous() for gradient, of in found)


def _scores(query: Tensor, key: Tensor, ends: Tensor, scale: float, window: int) -> Tensor:
    """Compute fp32 [heads, T, T], minus infinity where a token does not see another."""
    token = torch.arange(len(query))
    row = torch.bucketize(token, ends[1:], right=True)
    seen = row[:, None] == row
    if window != _UNLIMITED:
        seen &= (token[:, None] - token).abs() <= window
    return (scale * torch.einsum("qhd,khd->hqk", query.float(), key.float())).masked_fill(~seen, -torch.inf)


def _kept(state: Tensor, shape: torch.Size, dropout: float) -> Tensor:
    """Draw the factors of probabilities [heads, T, T] that `state` stands for."""
    if dropout == 0:
        return torch.ones(())
    generator = torch.Generator().manual_seed(int(state[0].to(torch.int64)))
    return (torch.rand(shape, generator=generator) >= dropout).float() / (1 - dropout)


# ---- transformers' interface


def attend_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    ends: Tensor,
    rows: Tensor,
    tiles: Tensor,
    longest: int,
    scale: float,
    sliding_window: int | None,
    dropout: float,
) -> Tensor:
    """Compute attention over [T, heads, head_dim] (see varlen_attention). sliding_window: half the window plus 1, in tokens."""
    window = window_of(sliding_window)
    output, _, _ = varlen_attention(query, key, value, ends, rows, tiles, longest, scale, window, dropout)
    return output


def window_of(sliding_window: int | None) -> int:
    """Return how far a token sees, as varlen_attention takes it, from half the window plus 1."""
    return _UNLIMITED if sliding_window is None else sliding_window - 1


def _attention(
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    *,
    cu_seq_lens_q: Tensor,
    rows: Tensor,
    tiles: Tensor,
    max_length_q: int,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Compute attention over [1, heads, T, head_dim], laid out as Varlen.for_attention says; returns [1, T, heads, head_dim]."""
    output = attend_varlen(
        *(x[0].transpose(0, 1) for x in (query, key, value)),
        ends=cu_seq_lens_q,
        rows=rows,
        tiles=tiles,
        longest=max_length_q,
        scale=query.size(-1) ** -0.5 if scaling is None else scaling,
        sliding_window=sliding_window,
        dropout=dropout,
    )
    return output[None], None


AttentionInterface.register(VARLEN_INTERFACE, _attention)
