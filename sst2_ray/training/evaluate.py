"""Evaluation: logits of every row of a split, each computed on exactly one rank and known to all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sst2_ray.background import MOST_THREADS
from sst2_ray.data.batching import MicroBatch, batches_of_like_length, collate, plan_evaluation
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.modeling.layout.varlen import model_inputs
from sst2_ray.training.lanes import run_in_lanes

CLOSE = 0.5
"""Difference of two logits in bf16 below which a row is computed again in fp32. bf16 changes the difference by less
(benchmarks/evaluation.py measures it), so labels are those of fp32."""

BATCH_TOKENS = {"cpu": 1024, "cuda": 131072}
"""Padded tokens of a batch without a backward pass: on a CPU as many as fit its caches (benchmarks/NOTES.md), on a GPU as
many as fill the chip."""


def evaluation_tokens(micro_batch_tokens: int, device: torch.device) -> int:
    """Return the padded tokens of an evaluation batch; small micro-batches, which may be all that fits, bound it."""
    return min(BATCH_TOKENS[device.type], 4 * micro_batch_tokens)


def compute_logits(
    model: SentenceClassifier,
    tokens: TokenArrays,
    *,
    bf16: bool,
    pad_id: int,
    max_tokens: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    on_batch: Callable[[], None] = lambda: None,
    close: float = CLOSE,
    in_lanes: bool = False,
) -> NDArray[np.float32]:
    """Compute float32 [rows, classes], the same on all ranks.

    Args:
        bf16: Products in bf16, as in training; rows near the decision boundary are computed in fp32 as well.
        max_tokens: Padded tokens of a batch.
        on_batch: Called after each batch, as a sign of life.
        close: Width of that boundary.
        in_lanes: On a CPU, compute several batches at once, a thread each; one batch alone gets all threads.
    """
    num_classes, was_training = len(model.info.labels), model.training
    model.eval()
    bf16 = bf16 and num_classes > 1  # a value has no boundary away from which its rounding does not matter
    batches = plan_evaluation(tokens, rank=rank, world_size=world_size, max_tokens=max_tokens)

    def fill(some: list[MicroBatch], *, autocast: bool) -> None:
        def lane(taken: Iterator[MicroBatch]) -> None:
            # One context for all batches: it keeps the weights that it has cast, which it does not in inference mode.
            with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
                for batch in taken:
                    _fill_rows(table[:, :num_classes], model, tokens, batch, pad_id, autocast)
                    on_batch()

        run_in_lanes(MOST_THREADS if in_lanes and len(batches) > 1 else 1, lane, some)

    table = torch.zeros(len(tokens), num_classes + 1, dtype=torch.float32, device=device)
    own = np.concatenate([np.zeros(0, dtype=np.int64), *(batch.rows for batch in batches)])  # longest first
    table[:, num_classes] = torch.from_numpy(np.bincount(own, minlength=len(tokens)))  # computations of a row
    fill(batches, autocast=bf16)
    if bf16:
        apart = table[:, :num_classes].topk(2).values.diff(dim=1).view(-1).abs().cpu().numpy()[own]
        fill(batches_of_like_length(tokens, own[apart < close], max_tokens=max_tokens), autocast=False)
    if world_size > 1:
        torch.distributed.all_reduce(table)
    assert bool((table[:, num_classes] == 1).all()), "an evaluation must count every row exactly once"
    model.train(was_training)
    return table[:, :num_classes].cpu().numpy()


def _fill_rows(
    table: Tensor, model: SentenceClassifier, tokens: TokenArrays, batch: MicroBatch, pad_id: int, autocast: bool
) -> None:
    """Compute the logits of one batch into their rows of `table` [rows, classes]."""
    device = table.device
    padded = map(torch.from_numpy, collate(tokens, batch, pad_id=pad_id))
    inputs = model_inputs(*padded, varlen=autocast and model.supports_varlen, move=lambda tensor: tensor.to(device))
    table[torch.from_numpy(batch.rows).to(device)] = model(*inputs).float()
