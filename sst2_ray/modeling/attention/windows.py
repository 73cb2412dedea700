"""Sliding-window attention, a block of queries at a time: time and memory grow with the length, not its square."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def local_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, reach: int, scale: float | None
) -> Tensor:
    """Compute attention over [rows, heads, width, head_dim] where a query sees keys at most `reach` places away.

    mask: bool [rows, 1, 1, width], True at tokens; None: all are. Blocks of 2 * reach queries see their own keys and
    `reach` more on both sides; the output of a query at padding is not defined.
    """
    rows, heads, width, size = query.shape
    block = 2 * reach
    count = -(-width // block)
    missing = count * block - width
    padded = [
        nn.functional.pad(x, (0, 0, 0, missing)).view(rows, heads, count, block, size) for x in (query, key, value)
    ]
    q, k, v = padded[0], _with_neighbors(padded[1], reach), _with_neighbors(padded[2], reach)
    # [rows * count, heads, block or 2 * block, size]: torch's blockwise attention wants four axes.
    q, k, v = (x.transpose(1, 2).reshape(rows * count, heads, -1, size) for x in (q, k, v))
    output = nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=_seen(mask, rows, width, count, reach, query.device), scale=scale
    )
    output = output.view(rows, count, heads, block, size).transpose(1, 2)
    return output.reshape(rows, heads, count * block, size)[:, :, :width]


def _with_neighbors(x: Tensor, reach: int) -> Tensor:
    """Widen [rows, heads, count, block, size] to [..., 2 * block, size]. Slices have a faster backward than unfold."""
    nothing = torch.zeros_like(x[:, :, :1, :reach])
    before = torch.cat([nothing, x[:, :, :-1, -reach:]], dim=2)
    behind = torch.cat([x[:, :, 1:, :reach], nothing], dim=2)
    return torch.cat([before, x, behind], dim=3)


def _seen(mask: Tensor | None, rows: int, width: int, count: int, reach: int, device: torch.device) -> Tensor:
    """Mark keys that exist and are near enough, bool [rows * count, 1, block, 2 * block]."""
    block = 2 * reach
    queries = torch.arange(block, device=device)[:, None]
    keys = torch.arange(2 * block, device=device) - reach
    near = (queries - keys).abs() <= reach  # [block, 2 * block]
    places = torch.arange(count, device=device)[:, None] * block + keys  # [count, 2 * block]
    real = ((places >= 0) & (places < width)).expand(rows, count, 2 * block)
    if mask is not None:
        real = real & mask[:, 0, 0, places.clamp(0, width - 1)]
    seen = near & real[:, :, None]  # [rows, count, block, 2 * block]
    # A query beyond the last token sees nothing, and softmax over nothing is NaN: let it see itself.
    itself = queries == keys
    return (seen | (itself & ~seen.any(-1, keepdim=True))).view(rows * count, 1, block, 2 * block)
