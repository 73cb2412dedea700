"""Where a run's time goes, and how much of the chip it uses."""

from __future__ import annotations

import resource
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from sst2_ray.training.gpus import GPUS

PHASES = ("data", "forward", "backward", "communication", "optimizer", "evaluation", "checkpoint")

_PRODUCT = 2048


class Mark(Protocol):
    """A point in a GPU's work, as torch.cuda.Event has it."""

    def query(self) -> bool:
        """Whether the GPU has come to it."""

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from this one to `end`."""


def mark_of(device: torch.device) -> Callable[[], Mark] | None:
    """What marks the work that `device` has been given so far; None for a CPU, which works as it is told."""

    def mark() -> Mark:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    return mark if device.type == "cuda" else None


class PhaseTimer:
    """Seconds by phase, and what moved through the model in the training phases.

    Host and GPU are timed apart: a GPU's kernels run when the host has long been somewhere else. The host's seconds are
    wall-clock and add up to it, since every optimizer step waits for the norm of its gradients; by phase, a GPU's say more.
    """

    def __init__(self, mark: Callable[[], Mark] | None = None) -> None:
        """`mark`: of the GPU whose phases are timed, see mark_of."""
        self.seconds: dict[str, float] = defaultdict(float)
        """The host's."""
        self._mark = mark
        self._marked: deque[tuple[str, Mark, Mark]] = deque()
        self._on_gpu: dict[str, float] = defaultdict(float)
        self.num_examples = 0
        self.num_tokens = 0
        self.num_padded_tokens = 0
        self.current = "start-up"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before, self.current = self.current, name
        begin = self._mark() if self._mark else None
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
            self.current = before
            if self._mark and begin is not None:
                self._marked.append((name, begin, self._mark()))
                while self._marked and self._marked[0][2].query():
                    self._count_marked()

    def _count_marked(self) -> None:
        name, begin, end = self._marked.popleft()
        self._on_gpu[name] += begin.elapsed_time(end) / 1e3

    def phase_seconds(self) -> dict[str, float]:
        """Of every phase: where there is a GPU, its own, which it is waited for to finish; else the host's."""
        while self._marked:
            self._marked[0][2].synchronize()
            self._count_marked()
        found = self._on_gpu if self._mark else self.seconds
        return {name: found[name] for name in PHASES}

    @property
    def training_seconds(self) -> float:
        return sum(self.seconds[name] for name in PHASES[:5])

    def count(self, *, examples: int, tokens: int, padded_tokens: int) -> None:
        self.num_examples += examples
        self.num_tokens += tokens
        self.num_padded_tokens += padded_tokens


def model_flops_per_token(model: torch.nn.Module) -> float:
    """Forward and backward: 6 FLOP a parameter that multiplies activations (Kaplan et al. 2020, arXiv 2001.08361, 2.1).

    Embedding tables are looked up, not multiplied, and left out; so is attention over positions, which at SST-2's
    13 tokens a sentence is below 2 % of the sum.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return 6.0 * sum(p.numel() for p in model.parameters() if p.dim() >= 2 and id(p) not in tables)


def peak_flops(device: torch.device, *, bf16: bool) -> float | None:
    """FLOP/s that one worker could reach at most: a GPU's from its data sheet (dense bf16; None for one that is not
    known), a CPU's measured, as the best of four products of 2048 x 2048 matrices with this process's threads: 0.1 s.
    """
    if device.type == "cuda":
        gpu = GPUS.get(torch.cuda.get_device_name(device))
        return gpu.peak_bf16_flops if gpu else None
    a = torch.ones(_PRODUCT, _PRODUCT, dtype=torch.bfloat16 if bf16 else torch.float32)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * _PRODUCT**3 / min(times)


def model_flop_utilization(
    *, tokens_per_sec: float, flops_per_token: float, world_size: int, peak: float | None
) -> float | None:
    """Model FLOP/s over the `peak` FLOP/s of all workers; None where that is not known."""
    return tokens_per_sec * flops_per_token / (peak * world_size) if peak else None


def peak_memory_gib(device: torch.device) -> float:
    """Peak of this process so far: allocated GPU memory, or resident memory on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
