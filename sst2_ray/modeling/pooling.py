"""From token vectors to one vector a sentence, as sentence-transformers' Pooling does it."""

from __future__ import annotations

import torch
from torch import Tensor


def pool(hidden: Tensor, attention_mask: Tensor, modes: tuple[str, ...]) -> Tensor:
    """Sentence features [rows, len(modes) * size], fp32, from `hidden` [rows, width, size] and its mask [rows, width].

    Rows are padded on the right. The modes are those of sentence_transformers' Pooling module (6.2), concatenated in
    the order given.
    """
    hidden = hidden.float()
    mask = attention_mask.to(hidden.dtype).unsqueeze(-1)  # [rows, width, 1]
    return torch.cat([_pool_one(hidden, mask, mode) for mode in modes], dim=-1)


def _pool_one(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
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
