"""What the driver hands to the workers. Imports no torch: the driver needs none."""

from __future__ import annotations

from dataclasses import dataclass

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.sources import ResolvedModel

# Computed tokens a worker takes at once. On CPU small micro-batches of like length waste little on padding; where padding
# is not computed ("packed") a whole batch goes at once. On a GPU one launch should fill the chip.
DEFAULT_MICRO_BATCH_TOKENS = {"cpu": 256, "packed": 2048, "cuda": 32768}


LEAST_OVERLAPPED_SHARE = 2**20
"""Numbers of a rank's share of the gradients from which on they travel while the backward pass goes on: with smaller ones,
every rank being sent its own, messages cost more by their number than by their size, and one reduce-scatter is faster."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one attempt of one trial is to do; plain values, the same on every rank."""

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
    score_dev: bool = True
    """False: a sweep chooses on a held-out part of train, and scores dev once, later, for what it has chosen."""
    started_at: float
    """time.time() on the driver."""
