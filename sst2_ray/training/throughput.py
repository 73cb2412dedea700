"""Time of a run by phase, and its use of the chip."""

from __future__ import annotations

import resource
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from sst2_ray.training.gpus import GPUS

PHASES = ("data", "forward", "backward", "communication", "optimizer", "evaluation", "checkpoint")

_PRODUCT = 2048


class Mark(Protocol):
    """Point in a GPU's queue of work, with the interface of torch.cuda.Event."""

    def query(self) -> bool:
        """Tell whether the GPU has reached it."""

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: Mark) -> float:
        """Return the milliseconds from this one to `end`."""


def mark_of(device: torch.device) -> Callable[[], Mark] | None:
    """Return a function that marks the end of the work queued on `device`; None for a CPU, which has no queue."""

    def mark() -> Mark:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    return mark if device.type == "cuda" else None


class PhaseTimer:
    """Seconds by phase, and counts of examples and tokens in the training phases.

    Host and GPU are timed separately, because kernels run long after the host queued them. The host's seconds add up to
    wall-clock time, since every optimizer step waits for the one before it; by phase, the GPU's say more.
    """

    def __init__(self, mark: Callable[[], Mark] | None = None) -> None:
        """Start with nothing counted; `mark` (see mark_of) times the phases of a GPU."""
        self.seconds: dict[str, float] = defaultdict(float)
        """Host seconds by phase."""
        self._mark = mark
        self._marked: deque[tuple[str, Mark, Mark]] = deque()
        self._on_gpu: dict[str, float] = defaultdict(float)
        self.num_examples = 0
        self.num_tokens = 0
        self.num_padded_tokens = 0
        self.current = "start-up"
        self._marks = (0.0, 0, 0)  # training seconds, examples and tokens at the last call of new_rates

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside as phase `name`."""
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
        """Return the seconds of every phase: the GPU's, after waiting for it to finish; else the host's."""
        while self._marked:
            self._marked[0][2].synchronize()
            self._count_marked()
        found = self._on_gpu if self._mark else self.seconds
        return {name: found[name] for name in PHASES}

    @property
    def training_seconds(self) -> float:
        """Return the host seconds of the training phases."""
        return sum(self.seconds[name] for name in PHASES[:5])

    def count(self, *, examples: int, tokens: int, padded_tokens: int) -> None:
        """Count the global batch of a finished step."""
        self.num_examples += examples
        self.num_tokens += tokens
        self.num_padded_tokens += padded_tokens

    def new_rates(self) -> tuple[float, float]:
        """Return examples and tokens a second of training since the last call."""
        seconds, examples, tokens = self._marks
        self._marks = (self.training_seconds, self.num_examples, self.num_tokens)
        spent = max(1e-9, self.training_seconds - seconds)
        return (self.num_examples - examples) / spent, (self.num_tokens - tokens) / spent


def model_flops_per_token(model: torch.nn.Module) -> float:
    """Estimate forward and backward: 6 FLOP a parameter that multiplies activations.

    Kaplan et al. 2020, arXiv 2001.08361, 2.1. Embedding tables are looked up, not multiplied, and left out; so is
    attention over positions, which at SST-2's 13 tokens a sentence is below 2 % of the sum.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return 6.0 * sum(p.numel() for p in model.parameters() if p.dim() >= 2 and id(p) not in tables)


def peak_flops(device: torch.device, *, bf16: bool) -> float | None:
    """Return the peak FLOP/s of one worker.

    A GPU's from its data sheet (dense, in the precision that computes; None for an unknown one); a CPU's measured in
    0.1 s, as the best of four products of 2048 x 2048 matrices with this process's threads.
    """
    if device.type == "cuda":
        gpu = GPUS.get(torch.cuda.get_device_name(device))
        return (gpu.peak_bf16_flops if bf16 else gpu.peak_fp32_flops) if gpu else None
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
    """Return model FLOP/s over the `peak` FLOP/s of all workers; None: the peak is not known."""
    return tokens_per_sec * flops_per_token / (peak * world_size) if peak else None


def peak_memory_gib(device: torch.device) -> float:
    """Return this process's peak so far: GPU memory that torch reserved, or resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
