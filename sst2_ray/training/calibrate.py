"""Measurement of a step's cost from a few real steps on real batches, without Ray, for forecasts and benchmarks."""

from __future__ import annotations

import math
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from sst2_ray.data.tokens import TokenArrays
from sst2_ray.records import EpochRecord
from sst2_ray.storage import Storage
from sst2_ray.training.attempt import Attempt
from sst2_ray.training.evaluate import CLOSE
from sst2_ray.training.feed import prefetched
from sst2_ray.training.loop import Loop
from sst2_ray.training.task import Task
from sst2_ray.training.throughput import model_flops_per_token, peak_flops, peak_memory_gib

MEASURED_S = 12.0
"""Seconds of timed steps, after half as many of warm-up; at least 3 steps."""

EVALUATED_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Cost of a step for one rank."""

    seconds_per_step: float
    seconds_per_evaluated_token: float
    peak_memory_gib: float
    flops_per_token: float
    """Model FLOP, forward and backward."""
    peak_flops: float | None
    """Peak FLOP/s of a rank; None: not known."""


class NullReporter:
    """Reporter that discards everything."""

    first_step_at: float | None = None

    def progress(self, **_: object) -> None: ...
    def alive(self) -> None: ...
    def phase(self, name: str) -> None: ...
    def note(self, line: str) -> None: ...
    def micro_batches(self, most_tokens: int) -> None: ...
    def saved(self, global_step: int) -> None: ...
    def evaluated(self, record: EpochRecord, *, is_best: bool) -> None: ...
    def write_records(self, records: list[EpochRecord]) -> None: ...
    def write_predictions(self, records: object) -> None: ...
    def preemption_requested(self) -> bool:
        return False


def loop_of(
    task: Task,
    tokens: dict[str, TokenArrays],
    *,
    device: torch.device | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Loop:
    """Build the loop of a worker before its first step, over torch's default process group. `device`: None is the CPU."""
    with tempfile.TemporaryDirectory() as folder:  # a name that nobody else has: nothing is written
        attempt = Attempt(
            task,
            tokens,
            Storage.open(folder),
            NullReporter(),
            texts=list,
            device=device or torch.device("cpu"),
            rank=rank,
            world_size=world_size,
        )
    loop = Loop(attempt.context(None))
    loop.context.model.train()
    return loop


def measure(task: Task, tokens: dict[str, TokenArrays], *, rank: int, world_size: int) -> StepCost:
    """Warm up, then time some steps and an evaluation; a checkpoint is copied in memory, but not written."""
    loop = loop_of(task, tokens, rank=rank, world_size=world_size)
    measure_steps(loop, 1)
    once = _slowest(measure_steps(loop, 2)[1] / 2)
    measure_steps(loop, max(1, math.ceil(MEASURED_S / 2 / once)))
    steps = max(3, math.ceil(MEASURED_S / once))
    seconds = _slowest(measure_steps(loop, steps)[1] / steps)
    snapshot = loop.snapshot()
    config = task.config
    if len(loop.evaluate_at) > 1 or config.checkpoint_every_steps or config.checkpoint_every_s:
        measure_steps(loop, 1)  # training goes on while a checkpoint's copies are written
    del snapshot
    return StepCost(
        seconds_per_step=seconds,
        seconds_per_evaluated_token=_slowest(_evaluation(loop, task)),
        peak_memory_gib=_slowest(peak_memory_gib(loop.context.device)),
        flops_per_token=model_flops_per_token(loop.context.model),
        peak_flops=peak_flops(loop.context.device, bf16=loop.context.bf16),
    )


def measure_steps(loop: Loop, count: int) -> tuple[int, float]:
    """Take `count` optimizer steps without evaluations and checkpoints; returns examples and seconds."""
    timer = loop.context.timer
    with ThreadPoolExecutor(1, thread_name_prefix="collate") as pool:
        batches = prefetched(loop.context, loop.global_step, pool)
        before, start = timer.num_examples, time.perf_counter()
        for _ in range(count):
            loop.train_step(next(batches))
        loop.read_norm()  # waits for the last step
        return timer.num_examples - before, time.perf_counter() - start


def _evaluation(loop: Loop, task: Task) -> float:
    """Time an evaluation; returns seconds a token.

    With random weights all rows lie near the decision boundary, so all are computed in fp32 as well.
    """
    rows = first_rows(loop.context.evaluation, EVALUATED_ROWS)
    start = time.perf_counter()
    loop.context.logits(rows, close=math.inf if task.resolved.info.random_weights else CLOSE)
    return (time.perf_counter() - start) / len(rows.input_ids)


def first_rows(tokens: TokenArrays, count: int) -> TokenArrays:
    """Return the first `count` rows, or all if there are fewer."""
    count = min(count, len(tokens))
    return TokenArrays(
        input_ids=tokens.input_ids[: tokens.offsets[count]],
        offsets=tokens.offsets[: count + 1],
        labels=tokens.labels[:count],
        row_ids=tokens.row_ids[:count],
        num_truncated=0,
        type_ids=None if tokens.type_ids is None else tokens.type_ids[: tokens.offsets[count]],
    )


def _slowest(value: float) -> float:
    """Return the largest value over all ranks."""
    tensor = torch.tensor([value], dtype=torch.float64)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    return float(tensor)
