"""The cost of a step on paper: memory, communication, and the times of its parts on GPUs that are not here.

Pure arithmetic over the model's shape. Every formula names its source. Times are lower bounds: a chip at its data sheet's
peak, a network at its full rate, no latency; only the time of a small operator was measured. They tell which part a step cannot
be faster than, and when that part changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from sst2_ray.run.model_size import ModelSize
from sst2_ray.training.gpus import Gpu
from sst2_ray.training.task import LEAST_OVERLAPPED_SHARE

FP32, BF16 = 4, 2
"""Bytes."""

LAUNCH_S = 8e-6
"""Time of an operator over a few hundred tokens in a replayed graph, whatever its size: measured on an H200 (docs/speed.md) for
ModernBERT-base, a step less its optimizer over its launches. Launched one by one, they took that machine's host 45 us each."""

_OPTIMIZER_LAUNCHES = 41
"""Gradients to the flat vector, norm and AdamW, for one worker."""

FEWEST_TOKENS = 1500
"""Tokens a GPU and step below which what does not grow with them takes more than half of a step: measured on an H200, with
graphs, from steps of 881 and 6,739 tokens of SST-2."""

BACKWARD = 2 / 3
"""Share of a step's arithmetic: two of the three products a weight."""


def flops_per_token(size: ModelSize, length: int) -> float:
    """Count the floating-point operations of one token, forward and backward, in a sentence of `length`.

    6 a parameter that multiplies (Kaplan et al. 2020, arXiv 2001.08361, 2.1) and 12 * layers * hidden a position attended
    to (Chowdhery et al. 2022, arXiv 2204.02311, B).
    """
    return 6.0 * size.multiplied + 12.0 * size.layers * size.hidden * size.attended(length)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of one worker in bytes."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def state(self) -> float:
        """Add up everything but activations."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """Add up everything, activations included."""
        return self.state + self.activations


def memory(
    size: ModelSize, *, num_workers: int, tokens: int = 0, length: int = 0, bf16: bool = True, scores_kept: bool = False
) -> Memory:
    """Compute the memory of one worker that computes micro-batches of `tokens` in sentences of `length`.

    ZeRO-2 (Rajbhandari et al. 2020, arXiv 1910.02054, 5) as zero.py does it: fp32 weights whole; gradients whole and
    twice, as autograd leaves them and in the flat vector that the workers' shares are summed in (on CPUs fewer: autograd
    leaves only those rows of the token embeddings' that were looked up); AdamW's two moments shared out. The masters are
    the weights themselves. bf16: autocast's copies of the matrices for a step, on top.
    scores_kept: plain products keep attention's scores, blockwise attention does not.
    """
    return Memory(
        weights=FP32 * size.parameters + (BF16 * size.multiplied if bf16 else 0),
        gradients=2 * FP32 * size.parameters,
        optimizer=2 * FP32 * size.parameters / num_workers,
        activations=tokens * activation_bytes_per_token(size, length, bf16=bf16, scores_kept=scores_kept),
    )


def activation_bytes_per_token(size: ModelSize, length: int, *, bf16: bool, scores_kept: bool) -> float:
    """Compute the bytes that a token leaves for the backward pass (Korthikanti et al. 2022, arXiv 2205.05198, 4.1), all layers.

    A layer keeps 34 * hidden bytes in 16 bit where its feed-forward layer is four times as wide as `hidden`: of each
    token 8 * hidden numbers (norms 2, attention 5, the feed-forward layer's input), 2 a place of that layer (before and
    after the activation function; gated: 4, with the gate and the product), and dropout's masks of 2 * hidden bytes.
    Scores: probabilities before and after dropout and its mask, a head and position.
    """
    width = _bytes(bf16)
    numbers = 8 * size.hidden + (4 if size.gated else 2) * size.inner
    scores = size.heads * size.attended(length) * (2 * width + 1) if scores_kept else 0
    return size.layers * (width * numbers + 2 * size.hidden + scores)


def _bytes(bf16: bool) -> int:
    return BF16 if bf16 else FP32


def communication_bytes(size: ModelSize, *, num_workers: int) -> float:
    """Compute the bytes that every worker sends (and receives) a step.

    A reduce-scatter of the gradients and an all-gather of the weights, each (workers - 1) / workers of 4 bytes a parameter
    (Rajbhandari et al. 2020, arXiv 1910.02054, 7.1). Workers on CPUs send less: of the token embeddings' gradient only the
    rows that the batch looked up.
    """
    return 2 * FP32 * size.parameters * (num_workers - 1) / num_workers


def optimizer_bytes(size: ModelSize, *, num_workers: int) -> float:
    """Compute the bytes that a step moves through a worker's memory outside of the model, counted in zero.py.

    Gradients are copied into the flat vector (8 a parameter); of its share the norm reads 4 bytes a parameter, AdamW reads
    and, where it clips, writes weight, gradient and two moments (32).
    """
    return size.parameters * (8 + 36 / num_workers)


def launches(size: ModelSize, *, micro_batches: int = 1, compiled: bool = True) -> int:
    """Estimate the operators that the host launches in a step, sentences laid end to end.

    The counts of benchmarks/results/launches.json: so many a layer, forward and backward, and a rest that is not compiled.
    """
    rest = 89 if size.gated else 112
    layer = (23 if compiled else 42) if size.gated else (30 if compiled else 79)
    return micro_batches * (layer * size.layers + rest) + _OPTIMIZER_LAUNCHES


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Lower bounds, in seconds, of the parts of a step. The device works while the host launches: the longer one counts.

    Weights travel when the optimizer is done; gradients while the backward pass of the only micro-batch goes on, or after
    it where shares are small (training/engine/overlap.py).
    """

    arithmetic: float
    optimizer: float
    communication: float
    can_hide: float
    """Communication that a backward pass that is long enough hides: all but the gradients of tables, which come last."""
    launching: float = 0.0
    """Time that the host takes to launch everything."""

    @property
    def hidden(self) -> float:
        """Return the communication behind the backward pass."""
        return min(self.can_hide, BACKWARD * self.arithmetic)

    @property
    def total(self) -> float:
        """Return the time of the whole step."""
        return max(self.launching, self.arithmetic + self.optimizer + self.communication - self.hidden)

    @property
    def utilization(self) -> float:
        """Return the upper bound of model FLOP/s over the chips' peak."""
        return self.arithmetic / self.total

    @property
    def bottleneck(self) -> str:
        """Return the name of the longest part."""
        if self.total == self.launching:
            return "launches"
        parts = {
            "arithmetic": self.arithmetic, "optimizer": self.optimizer, "communication": self.communication - self.hidden,
        }  # fmt: skip
        return max(parts, key=lambda name: parts[name])


def step_time(
    size: ModelSize,
    gpu: Gpu,
    *,
    num_gpus: int,
    tokens_per_gpu: float,
    length: int,
    gpus_per_node: int,
    network_bytes_per_s: float,
    num_launches: float = 0.0,
) -> StepTime:
    """Compute the time of a step on GPUs of one kind. `network_bytes_per_s`: of a node, one way; `num_launches`: by its host.

    A ring's collective takes bytes * (n - 1) / n / (the slowest link's rate), and rings over several nodes share each
    node's network between them (NVIDIA's nccl-tests, doc/PERFORMANCE.md): the rate is the node's, or the GPUs' own links'
    where those are slower or there is one node only.
    """
    communication = communication_bytes(size, num_workers=num_gpus)
    small = size.parameters / num_gpus < LEAST_OVERLAPPED_SHARE
    rate = gpu.link_bytes_per_s if num_gpus <= gpus_per_node else min(gpu.link_bytes_per_s, network_bytes_per_s)
    return StepTime(
        arithmetic=flops_per_token(size, length) * tokens_per_gpu / gpu.peak_bf16_flops,
        optimizer=optimizer_bytes(size, num_workers=num_gpus) / gpu.memory_bytes_per_s,
        communication=communication / rate,
        can_hide=0.0 if small else communication / rate / 2 * size.multiplied / size.parameters,
        launching=LAUNCH_S * num_launches,
    )


def tokens_that_hide_nothing(size: ModelSize, gpu: Gpu, time: StepTime, *, length: int) -> float:
    """Return the tokens a GPU and step at which arithmetic takes as long as all the rest: with fewer, half is lost."""
    rest = time.optimizer + time.communication
    # Solves arithmetic = rest - min(can_hide, BACKWARD * arithmetic).
    arithmetic = max(rest - time.can_hide, rest / (1 + BACKWARD)) if time.can_hide else rest
    arithmetic = max(arithmetic, time.launching / 2)
    return arithmetic * gpu.peak_bf16_flops / flops_per_token(size, length)
