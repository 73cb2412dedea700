"""Forecast of a run's time and of its workers' memory, measured on this machine in some seconds.

The workers' own code takes a few steps on real batches, in as many processes as the run would have workers.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray import formatting
from sst2_ray.cgroups import num_usable_cpus
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.errors import FailureClass, RunFailedError
from sst2_ray.network import free_port
from sst2_ray.run.environment import worker_env
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import RunInputs
from sst2_ray.run.ray.fork_server import BEFORE_RAY, WITH_RAY
from sst2_ray.training.task import Task

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    from sst2_ray.training.calibrate import StepCost

RAYS_CORE = 0.1
"""Share of a core that Ray's processes take while a run trains (benchmarks/NOTES.md). Where workers have all cores, the
threads of the worker on that core wait for the one that is interrupted."""

START_S = 13.0
"""Command to first step, and the end; measured (benchmarks/NOTES.md)."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Expected time and memory of one run on this machine."""

    steps: int
    batch_size: int
    seconds_per_step: float
    evaluation_seconds: float
    """Seconds of all evaluations together."""
    peak_memory_gib: float
    """Memory of one worker, everything included."""
    utilization: float | None = None
    """Model FLOP/s over the workers' peak, as matrix products reach it here; None: not known."""

    @property
    def seconds(self) -> float:
        """Seconds from the command to its end."""
        return START_S + self.steps * self.seconds_per_step + self.evaluation_seconds

    def rows(self, price_per_hour: float | None) -> list[tuple[str, str]]:
        """Return rows of the plan. `price_per_hour`: US dollars of the node; None: no cost is stated."""
        cost = f", {self.seconds / 3600 * price_per_hour:.2f} USD" if price_per_hour else ""
        rate = self.batch_size / self.seconds_per_step
        whole, evaluations = formatting.duration(self.seconds), formatting.duration(self.evaluation_seconds)
        return [
            ("a step", f"{self.seconds_per_step:.3g} s, {rate:.0f} examples/s, as just measured here"),
            *([("utilization", f"{self.utilization:.0%} of matrix products")] if self.utilization else []),
            ("peak memory", f"{self.peak_memory_gib:.1f} GiB a worker"),
            ("in all", f"{whole}, evaluations {evaluations} of it{cost}"),
        ]


def forecast(inputs: RunInputs, placement: Placement) -> Forecast:
    """Measure on this machine's CPUs for half a minute; a deep model takes two. Raises RunFailedError."""
    from sst2_ray.training.step_counts import evaluation_steps, total_steps
    from sst2_ray.training.throughput import model_flop_utilization

    config, train = inputs.config, inputs.tokens["train"]
    cost, cores = _measure(inputs, placement), num_usable_cpus()
    takes_all_cores = placement.num_workers * placement.cpus_per_worker >= cores
    waits = RAYS_CORE * placement.cpus_per_worker / cores if takes_all_cores else 0.0
    seconds = cost.seconds_per_step / (1 - waits)
    tokens_per_step = len(train.input_ids) / len(train) * config.batch_size
    evaluated = inputs.tokens.get("selection", inputs.tokens["dev"])
    num_evaluations = len(evaluation_steps(config, len(train)))
    return Forecast(
        steps=total_steps(config, len(train)),
        batch_size=config.batch_size,
        seconds_per_step=seconds,
        evaluation_seconds=cost.seconds_per_evaluated_token * len(evaluated.input_ids) * num_evaluations,
        peak_memory_gib=cost.peak_memory_gib,
        utilization=model_flop_utilization(
            tokens_per_sec=tokens_per_step / seconds,
            flops_per_token=cost.flops_per_token,
            world_size=placement.num_workers,
            peak=cost.peak_flops,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    """Instructions for every measuring process."""

    task: Task
    tokens: Mapping[str, TokenArrays]
    placement: Placement
    address: str
    """Address at which the processes meet, as torch.distributed takes it."""
    folder: str
    """Folder for a log of each process."""


def _measure(inputs: RunInputs, placement: Placement) -> StepCost:
    """Take steps in as many processes as there would be workers, each with a worker's environment."""
    task = Task(
        config=inputs.config,
        experiment="forecast",
        trial_id="forecast",
        attempt=0,
        resolved=inputs.resolved,
        tokenizer_json=inputs.tokenizer_json,
        micro_batch_tokens=inputs.config.micro_batch_tokens,
        source="",
        eval_split="dev",
        corpora=(),
        started_at=time.time(),
    )
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, _environment(worker_env(use_gpu=False)):
        measurement = _Measurement(
            task=task,
            tokens=inputs.tokens,
            placement=placement,
            address=f"tcp://127.0.0.1:{free_port()}",
            folder=folder,
        )
        out: SimpleQueue[StepCost] = context.SimpleQueue()
        processes = [
            context.Process(target=_measure_rank, args=(measurement, rank, out), daemon=True)
            for rank in range(placement.num_workers)
        ]
        for process in processes:
            process.start()
        failed = _first_failed(processes)
        if failed is not None:
            raise _failure(processes[failed], Path(f"{folder}/{failed}.log"))
        return out.get()


def _first_failed(processes: Sequence[SpawnProcess]) -> int | None:
    """Wait until all processes have ended, or one has failed: then the others, which would wait for it, are killed."""
    running = list(processes)
    while running:
        ended = wait([process.sentinel for process in running])
        for process in [process for process in running if process.sentinel in ended]:
            process.join()  # before that it may have no exit code yet
            running.remove(process)
        failed = next((rank for rank, process in enumerate(processes) if process.exitcode), None)
        if failed is not None:
            for process in running:
                process.kill()
                process.join()
            return failed
    return None


def _failure(process: SpawnProcess, log: Path) -> RunFailedError:
    """Explain why a measuring process failed."""
    if process.exitcode == -signal.SIGKILL:
        return RunFailedError(
            "--calibrate: a measuring process was killed, as the system does where memory is full; fewer workers "
            "or a smaller --micro-batch-tokens need less",
            FailureClass.OUT_OF_MEMORY,
        )
    lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
    return RunFailedError(f"--calibrate: the measurement failed ({lines[-1][:200]})", FailureClass.BUG)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for child processes."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _measure_rank(measurement: _Measurement, rank: int, out: SimpleQueue[StepCost]) -> None:
    """Measure as one process; what libraries print goes to its log."""
    placement = measurement.placement
    with open(f"{measurement.folder}/{rank}.log", "wb", buffering=0) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(placement.num_workers))
    for name in (*BEFORE_RAY, *WITH_RAY):  # a worker's memory holds them too
        importlib.import_module(name)
    import torch

    from sst2_ray.training.calibrate import measure

    torch.set_num_threads(placement.cpus_per_worker)
    torch.distributed.init_process_group(
        "gloo", init_method=measurement.address, rank=rank, world_size=placement.num_workers
    )
    cost = measure(measurement.task, dict(measurement.tokens), rank=rank, world_size=placement.num_workers)
    if rank == 0:
        out.put(cost)
    os._exit(0)  # gloo's threads may abort a process that ends in the usual way
