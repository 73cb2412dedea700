"""What a step costs on this machine, from a few real steps on real batches, without Ray. Used by forecasts and benchmarks."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass

import torch

from sst2_ray.data.tokens import TokenArrays
from sst2_ray.records import EpochRecord
from sst2_ray.storage import Storage
from sst2_ray.training.attempt import Attempt
from sst2_ray.training.evaluate import CLOSE, compute_logits, evaluation_tokens
from sst2_ray.training.loop import Loop
from sst2_ray.training.task import Task
from sst2_ray.training.throughput import model_flops_per_token, peak_flops, peak_memory_gib

MEASURED_S = 12.0
"""Seconds of steps that are timed, after half as many of warm-up; at least 3 steps."""

EVALUATED_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Of one rank of `world_size`."""

    seconds_per_step: float
    seconds_per_evaluated_token: float
    peak_memory_gib: float
    flops_per_token: float
    """Model FLOP, forward and backward."""
    peak_flops: float | None
    """FLOP/s that a rank could reach at most; None: not known."""


class Silent:
    """A reporter that tells nobody and is asked nothing."""

    first_step_at: float | None = None

    def progress(self, **_: object) -> None: ...
    def alive(self) -> None: ...
    def phase(self, name: str) -> None: ...
    def note(self, line: str) -> None: ...
    def micro_batches(self, most_tokens: int) -> None: ...
    def evaluated(self, record: EpochRecord, *, is_best: bool) -> None: ...
    def write_records(self, records: list[EpochRecord]) -> None: ...
    def write_predictions(self, records: object) -> None: ...
    def asked_to_leave(self) -> bool:
        return False


def loop_of(task: Task, tokens: dict[str, TokenArrays], *, rank: int = 0, world_size: int = 1) -> Loop:
    """The loop that a worker of the main job runs, before its first step, over torch's default process group."""
    attempt = Attempt(
        task,
        tokens,
        Storage.open(tempfile.mkdtemp()),
        Silent(),
        texts=list,
        device=torch.device("cpu"),
        rank=rank,
        world_size=world_size,
    )
    loop = Loop(attempt.context(None))
    loop.c.model.train()
    return loop


def measure(task: Task, tokens: dict[str, TokenArrays], *, rank: int, world_size: int) -> StepCost:
    """Warm up, time some steps and an evaluation; a checkpoint's copy in memory is taken on the way, not written."""
    loop = loop_of(task, tokens, rank=rank, world_size=world_size)
    loop.steps_alone(1)
    once = _slowest(loop.steps_alone(2)[1] / 2)
    loop.steps_alone(max(1, math.ceil(MEASURED_S / 2 / once)))
    steps = max(3, math.ceil(MEASURED_S / once))
    seconds = _slowest(loop.steps_alone(steps)[1] / steps)
    snapshot = loop.snapshot()
    config = task.config
    if len(loop.evaluate_at) > 1 or config.checkpoint_every_steps or config.checkpoint_every_s:
        loop.steps_alone(1)  # training goes on while a checkpoint's copies are written
    del snapshot
    return StepCost(
        seconds_per_step=seconds,
        seconds_per_evaluated_token=_slowest(_evaluation(loop, task, rank, world_size)),
        peak_memory_gib=_slowest(peak_memory_gib(loop.c.device)),
        flops_per_token=model_flops_per_token(loop.c.model),
        peak_flops=peak_flops(loop.c.device, bf16=loop.c.bf16),
    )


def _evaluation(loop: Loop, task: Task, rank: int, world_size: int) -> float:
    """Seconds a token of an evaluation. A model that begins with random weights has all rows near the decision boundary."""
    context = loop.c
    rows = first_rows(context.evaluation, EVALUATED_ROWS)
    start = time.perf_counter()
    compute_logits(
        context.model,
        rows,
        bf16=context.bf16,
        pad_id=context.pad_id,
        max_tokens=evaluation_tokens(context.micro_batch_tokens, context.device),
        device=context.device,
        rank=rank,
        world_size=world_size,
        close=math.inf if task.resolved.info.random_weights else CLOSE,
    )
    return (time.perf_counter() - start) / len(rows.input_ids)


def first_rows(tokens: TokenArrays, count: int) -> TokenArrays:
    """At most `count` of them."""
    count = min(count, len(tokens))
    return TokenArrays(
        input_ids=tokens.input_ids[: tokens.offsets[count]],
        offsets=tokens.offsets[: count + 1],
        labels=tokens.labels[:count],
        row_ids=tokens.row_ids[:count],
        num_truncated=0,
    )


def _slowest(value: float) -> float:
    """Over all ranks."""
    tensor = torch.tensor([value], dtype=torch.float64)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    return float(tensor)
