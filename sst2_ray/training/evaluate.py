"""Logits of every row of a split, in fp32, each computed on exactly one rank and known to all."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sst2_ray.data.batching import collate, plan_evaluation
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.classifier import SentenceClassifier


@torch.inference_mode()
def compute_logits(
    model: SentenceClassifier,
    tokens: TokenArrays,
    *,
    pad_id: int,
    max_tokens: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> NDArray[np.float32]:
    """float32 [rows, 2], the same on all ranks. `max_tokens`: padded tokens a batch."""
    was_training = model.training
    model.eval()
    # The last column counts how often a row was computed.
    table = torch.zeros(len(tokens), 3, dtype=torch.float32, device=device)
    for batch in plan_evaluation(tokens, rank=rank, world_size=world_size, max_tokens=max_tokens):
        ids, mask = (torch.from_numpy(a).to(device) for a in collate(tokens, batch, pad_id=pad_id))
        rows = torch.from_numpy(batch.rows).to(device)
        table[rows, :2] = model(ids, mask).float()
        table[rows, 2] += 1
    if world_size > 1:
        torch.distributed.all_reduce(table)
    model.train(was_training)
    assert bool((table[:, 2] == 1).all()), "an evaluation must count every row exactly once"
    logits: NDArray[np.float32] = table[:, :2].cpu().numpy()
    return logits
