"""Batches for the loop: planned, collated and moved to the device while the one before is computed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from sst2_ray.data.batching import StepPlan, collate, largest_micro_batch, plan_epoch, steps_per_epoch
from sst2_ray.modeling.dropout import row_keys
from sst2_ray.modeling.layout.varlen import Bucket, model_inputs
from sst2_ray.training.context import LoopContext
from sst2_ray.training.graphs import MicroBatchInputs
from sst2_ray.training.task import MOST_REPLAYED_TOKENS


@dataclass(frozen=True)
class Batch:
    """A rank's part of an optimizer step."""

    plan: StepPlan
    inputs: list[MicroBatchInputs]
    """Filler rows weigh 0."""


def prefetched(context: LoopContext, first_step: int, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    """Yield batches from optimizer step `first_step` of the run on, epoch after epoch, without end."""
    plans = _plans(context, first_step)
    pending = pool.submit(lambda: _collate(context, next(plans)))
    while True:
        ready = pending.result()
        pending = pool.submit(lambda: _collate(context, next(plans)))
        yield ready


def most_tokens_at_once(context: LoopContext) -> int:
    """Return the tokens of about the largest micro-batch: fewer than the limit where a rank's share of a step is small."""
    return largest_micro_batch(context.train, **_division(context))


class _Division(TypedDict):
    """Division of epochs into global batches and micro-batches (see `plan_epoch`)."""

    seed: int
    batch_size: int
    world_size: int
    max_tokens: int
    pad_to: int | None
    packed: bool


def _division(context: LoopContext) -> _Division:
    config = context.config
    return _Division(
        seed=config.seed,
        batch_size=config.batch_size,
        world_size=context.world_size,
        max_tokens=context.micro_batch_tokens,
        pad_to=config.max_length if config.pad_to_max_length else None,
        # Where padding is not computed, micro-batches are counted in real tokens.
        packed=(context.model.packs(context.device) or _uses_varlen(context)) and not config.pad_to_max_length,
    )


def _plans(context: LoopContext, first_step: int) -> Iterator[StepPlan]:
    first_epoch, step_in_epoch = divmod(first_step, steps_per_epoch(len(context.train), context.config.batch_size))
    for epoch in itertools.count(first_epoch):
        yield from plan_epoch(
            context.train,
            **_division(context),
            epoch=epoch,
            rank=context.rank,
            computed=lambda tokens, rows: bucket.tokens if (bucket := _bucket(context, tokens, rows, 1)) else tokens,
            first_step=step_in_epoch if epoch == first_epoch else 0,
        )


def _uses_varlen(context: LoopContext) -> bool:
    """Tell whether micro-batches are given in varlen layout."""
    return context.model.supports_varlen and not context.config.pad_to_max_length


def _bucket(context: LoopContext, tokens: int, rows: int, longest: int) -> Bucket | None:
    """Return what a micro-batch is filled up to; None: it is not, and no graph replays it."""
    return Bucket.of(tokens, rows, longest) if context.cuda_graphs and tokens <= MOST_REPLAYED_TOKENS else None


def _collate(context: LoopContext, plan: StepPlan) -> Batch:
    def move(tensor: Tensor) -> Tensor:
        return on_device(tensor, context.device)

    scale = context.objective.batch_scale(context.train.labels[plan.global_rows])
    inputs = []
    for micro in plan.micro_batches:
        padded = [torch.from_numpy(array) for array in collate(context.train, micro, pad_id=context.pad_id)]
        bucket = _bucket(context, int(padded[1].sum()), len(micro.rows), micro.width)
        keys = row_keys(seed=context.config.seed, global_step=plan.global_step, row_ids=micro.rows)
        labels = context.objective.targets(context.train.labels[micro.rows])
        weights = micro.weights if scale is None else micro.weights * scale
        fillers = 0 if bucket is None else bucket.rows - len(micro.rows)
        of_rows = (move(torch.from_numpy(np.pad(array, (0, fillers)))) for array in (labels, weights, keys))
        of_tokens = model_inputs(*padded, varlen=_uses_varlen(context), move=move, bucket=bucket, pad_id=context.pad_id)
        inputs.append((of_tokens, *of_rows))
    return Batch(plan, inputs)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to `device` without waiting: from pinned memory, which torch keeps until the copy is done."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)
