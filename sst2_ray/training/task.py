"""The task that the driver sends to workers. Imports no torch: the driver needs none."""

from __future__ import annotations

from dataclasses import dataclass

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.sources import ResolvedModel

DEFAULT_MICRO_BATCH_TOKENS = {"cpu": 256, "packed": 2048, "cuda": 32768}
"""Computed tokens of a micro-batch. On a CPU small micro-batches of like length waste little on padding; where padding is
not computed ("packed") a whole batch goes at once. On a GPU one launch should fill the chip."""

LEAST_OVERLAPPED_SHARE = 2**20
"""Elements of a rank's share of the gradients from which on they are sent while the backward pass goes on. Smaller messages
cost more by their number than by their size, and one reduce-scatter is faster."""

MOST_REPLAYED_TOKENS = 16_384
"""Tokens of a micro-batch up to which a GPU replays graphs; larger ones take it about as long as their launches take its host
(docs/speed.md)."""

_COMPILE_FROM_TOKENS = 20_000_000
"""Tokens of a worker's run from which on compiled layers earn back the time that compiling takes (benchmarks/NOTES.md)."""


def replays_graphs(config: TrainConfig, tokens_per_step: float) -> bool:
    """Tell whether a worker on a GPU, which computes so many tokens a step, replays graphs of micro-batches laid end to end."""
    return tokens_per_step <= MOST_REPLAYED_TOKENS if config.cuda_graphs is None else config.cuda_graphs


def compiles_layers(config: TrainConfig, tokens: float) -> bool:
    """Tell whether a worker on a GPU with a C compiler, which trains on so many tokens in all, compiles its layers."""
    return tokens >= _COMPILE_FROM_TOKENS if config.compile is None else config.compile


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work of one attempt of one trial: plain values, the same on every rank."""

    config: TrainConfig
    experiment: str
    trial_id: str
    attempt: int
    resolved: ResolvedModel
    tokenizer_json: str
    micro_batch_tokens: int | None
    """None: chosen for the device."""
    source: str
    eval_split: str
    corpora: tuple[str, ...]
    """Named data sets that the training rows come from, for the leak rules."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the training loss; None: all rows count the same."""
    score_dev: bool = True
    """False: a sweep chooses on a held-out part of train, and scores dev once, later, for what it has chosen."""
    started_at: float
    """time.time() on the driver."""
    failure_interval_s: float | None = None
    """Mean time between the failures of earlier attempts; None: there was none."""
