"""Pooling of token vectors to one vector a sentence, equal to sentence-transformers' Pooling, for every layout."""

from __future__ import annotations

import torch
from torch import Tensor

from sst2_ray.modeling.layout.packing import Packing, to_rows
from sst2_ray.modeling.layout.varlen import Varlen

_BLOCK_ROWS = 256
"""Sentences in one matrix product with their tokens; the share of weights that are 0 grows with it."""


def pool(hidden: Tensor, attention_mask: Tensor, modes: tuple[str, ...]) -> Tensor:
    """Pool `hidden` [rows, width, size] with its mask [rows, width] to features [rows, len(modes) * size], fp32.

    Rows are padded on the right. The modes are those of sentence_transformers' Pooling module (6.2), concatenated in
    the order given.
    """
    hidden = hidden.float()
    mask = attention_mask.to(hidden.dtype).unsqueeze(-1)  # [rows, width, 1]
    return torch.cat([_pool_one(hidden, mask, mode) for mode in modes], dim=-1)


def _pool_one(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Pool by one mode; mask [rows, width, 1]."""
    lengths = mask.sum(dim=1)  # [rows, 1]
    if mode == "mean":
        return (hidden * mask).sum(dim=1) / lengths.clamp(min=1.0)
    if mode == "mean_sqrt_len_tokens":
        return (hidden * mask).sum(dim=1) / lengths.clamp(min=1.0).sqrt()
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return hidden.masked_fill(mask == 0, float("-inf")).amax(dim=1)
    if mode == "weightedmean":
        weights = mask * torch.arange(1, hidden.size(1) + 1, dtype=hidden.dtype, device=hidden.device).view(1, -1, 1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
    assert mode == "lasttoken", mode
    last = (lengths.long() - 1).clamp(min=0).unsqueeze(-1).expand(-1, 1, hidden.size(2))  # [rows, 1, size]
    return hidden.gather(1, last).squeeze(1)


def pool_packed(hidden: Tensor, packing: Packing, modes: tuple[str, ...]) -> Tensor:
    """Pool packed vectors [T, size] as `pool` does: matrix products where the features are weighted sums."""
    if "max" in modes:
        return pool(*to_rows(hidden, packing), modes)
    order = packing.order[:-1]  # without the filler
    lengths = packing.lengths[order]
    ends = lengths.cumsum(0)
    features = []
    for rows, last in zip(lengths.split(_BLOCK_ROWS), ends.split(_BLOCK_ROWS), strict=True):
        tokens = slice(int(last[0] - rows[0]), int(last[-1]))
        row = torch.repeat_interleave(rows)  # in the block, at each token
        weights = torch.zeros(len(modes), len(rows), len(row))
        for of_mode, mode in zip(weights, modes, strict=True):
            of_mode[row, torch.arange(len(row))] = _weight(mode, packing.position[tokens], rows.float()[row])
        with torch.autocast(hidden.device.type, enabled=False):
            features.append(weights @ hidden[tokens].float())  # [modes, rows, size]
    return torch.cat(features, dim=1).transpose(0, 1).flatten(1)[order.argsort()]


def pool_varlen(hidden: Tensor, layout: Varlen, modes: tuple[str, ...]) -> Tensor:
    """Pool vectors [T, size] in varlen layout as `pool` does."""
    lengths = layout.ends.diff()
    length = lengths[layout.row].float()

    def reduced(vectors: Tensor, how: str) -> Tensor:
        # unsafe: no wait for the GPU to check the lengths.
        found: Tensor = torch.segment_reduce(vectors, how, lengths=lengths, unsafe=True)  # type: ignore[attr-defined]
        return found

    hidden = hidden.float()
    features = [
        reduced(hidden, "max")
        if mode == "max"
        else reduced(hidden * _weight(mode, layout.position, length)[:, None], "sum")
        for mode in modes
    ]
    return torch.cat(features, dim=1)


def _weight(mode: str, position: Tensor, length: Tensor) -> Tensor:
    """Return the weight of a token at `position` of a sentence of `length` tokens in its features: [T] each."""
    if mode == "mean":
        return 1.0 / length
    if mode == "mean_sqrt_len_tokens":
        return length.rsqrt()
    if mode == "cls":
        return (position == 0).to(length.dtype)
    if mode == "weightedmean":
        return (position + 1) / (length * (length + 1) / 2)
    assert mode == "lasttoken", mode
    return (position == length - 1).to(length.dtype)
