"""How long a run will take and how much memory its workers will need: measured on this machine in some seconds.

The workers' own code takes a few steps on real batches, as many processes as the run would have workers.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst2_ray.errors import FailureClass, RunFailedError
from sst2_ray.run.environment import worker_env
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import Prepared
from sst2_ray.run.ray.fork_server import BEFORE_RAY, WITH_RAY
from sst2_ray.training.task import Task

if TYPE_CHECKING:
    from sst2_ray.training.calibrate import StepCost

RAYS_CORE = 0.1
"""Share of a core that Ray's processes take while a run trains (benchmarks/NOTES.md). Where workers have all cores, the
threads of the worker on that core wait for the one that is interrupted."""

START_S = 15.0
"""Command to first step, and the end: what benchmarks/NOTES.md measured."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one run on this machine."""

    steps: int
    batch_size: int
    seconds_per_step: float
    evaluation_seconds: float
    """All evaluations together."""
    peak_memory_gib: float
    """A worker's, everything included."""
    utilization: float | None = None
    """Model FLOP/s over the workers' peak, as matrix products reach it here; None: not known."""

    @property
    def seconds(self) -> float:
        return START_S + self.steps * self.seconds_per_step + self.evaluation_seconds

    def rows(self, price_per_hour: float | None) -> list[tuple[str, str]]:
        """Of the plan."""
        cost = f", {self.seconds / 3600 * price_per_hour:.2f} USD" if price_per_hour else ""
        rate = self.batch_size / self.seconds_per_step
        return [
            ("a step", f"{self.seconds_per_step:.3g} s, {rate:.0f} examples/s, as just measured here"),
            *([("utilisation", f"{self.utilization:.0%} of matrix products")] if self.utilization else []),
            ("peak memory", f"{self.peak_memory_gib:.1f} GiB a worker"),
            ("in all", f"{_duration(self.seconds)}, evaluations {_duration(self.evaluation_seconds)} of it{cost}"),
        ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def forecast(prepared: Prepared, placement: Placement) -> Forecast:
    """Measure, on this machine's CPUs, half a minute (a deep model takes two). Raises RunFailedError."""
    from sst2_ray.training.step_counts import evaluation_steps, total_steps
    from sst2_ray.training.throughput import model_flop_utilization

    config, train = prepared.checked.config, prepared.tokens["train"]
    cost, cores = _measured(prepared, placement), os.cpu_count() or 1
    waits = (
        RAYS_CORE * placement.cpus_per_worker / cores
        if placement.num_workers * placement.cpus_per_worker >= cores
        else 0.0
    )
    seconds = cost.seconds_per_step / (1 - waits)
    tokens_per_step = len(train.input_ids) / len(train) * config.batch_size
    evaluated = prepared.tokens.get("selection", prepared.tokens["dev"])
    return Forecast(
        steps=total_steps(config, len(train)),
        batch_size=config.batch_size,
        seconds_per_step=seconds,
        evaluation_seconds=cost.seconds_per_evaluated_token
        * len(evaluated.input_ids)
        * len(evaluation_steps(config, len(train))),
        peak_memory_gib=cost.peak_memory_gib,
        utilization=model_flop_utilization(
            tokens_per_sec=tokens_per_step / seconds,
            flops_per_token=cost.flops_per_token,
            world_size=placement.num_workers,
            peak=cost.peak_flops,
        ),
    )


def _measured(prepared: Prepared, placement: Placement) -> StepCost:
    """By as many processes as there are workers, each with a worker's environment."""
    checked = prepared.checked
    task = Task(
        config=checked.config,
        experiment="forecast",
        trial_id="forecast",
        attempt=0,
        resolved=checked.resolved,
        tokenizer_json=prepared.tokenizer_json,
        micro_batch_tokens=checked.config.micro_batch_tokens,
        source="",
        eval_split="dev",
        corpora=(),
        started_at=time.time(),
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, _environment(worker_env(use_gpu=False)):
        out = context.SimpleQueue()
        processes = [
            context.Process(
                target=_rank,
                args=(task, prepared.tokens, rank, placement, address, f"{folder}/{rank}.log", out),
                daemon=True,
            )
            for rank in range(placement.num_workers)
        ]
        for process in processes:
            process.start()
        failed, running = None, list(processes)
        while failed is None and running:
            ended = wait([process.sentinel for process in running])
            for process in [process for process in running if process.sentinel in ended]:
                process.join()  # before that it may have no exit code yet
                running.remove(process)
            failed = next((rank for rank, process in enumerate(processes) if process.exitcode), None)
        if failed is not None:
            for process in processes:  # they would wait for the one that failed
                process.kill()
                process.join()
            if processes[failed].exitcode == -signal.SIGKILL:
                raise RunFailedError(
                    "--calibrate: a measuring process was killed, as the system does where memory is full; fewer workers "
                    "or a smaller --micro-batch-tokens need less",
                    FailureClass.OUT_OF_MEMORY,
                )
            lines = Path(f"{folder}/{failed}.log").read_text(errors="replace").strip().splitlines() or ["no message"]
            raise RunFailedError(f"--calibrate: the measurement failed ({lines[-1][:200]})", FailureClass.BUG)
        cost: StepCost = out.get()
    return cost


class _environment:
    """Variables that child processes find set."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    def __enter__(self) -> None:
        self.before = dict(os.environ)
        os.environ.update(self.values)

    def __exit__(self, *_: object) -> None:
        os.environ.clear()
        os.environ.update(self.before)


def _rank(
    task: Task, tokens: dict[str, Any], rank: int, placement: Placement, address: str, log: str, out: Any
) -> None:
    """One process of the measurement; its library chatter goes to `log`."""
    with open(log, "wb", buffering=0) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(placement.num_workers))
    for name in (*BEFORE_RAY, *WITH_RAY):  # a worker's memory holds them too
        importlib.import_module(name)
    import torch

    from sst2_ray.training.calibrate import measure

    torch.set_num_threads(placement.cpus_per_worker)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=placement.num_workers)
    cost = measure(task, tokens, rank=rank, world_size=placement.num_workers)
    if rank == 0:
        out.put(cost)
    os._exit(0)  # gloo's threads may abort a process that ends in the usual way
