"""What the training loop is given and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.modeling.dropout import DropoutKeys
from sst2_ray.records import EpochRecord, StopRequest
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint.files import Checkpoint
from sst2_ray.training.engine.base import TrainEngine
from sst2_ray.training.throughput import PhaseTimer


class Reporter(Protocol):
    """Where the loop tells what happens. Called on every rank; must be cheap and must not raise."""

    def progress(
        self, *, global_step: int, total_steps: int, epoch: float, train_loss: float | None, timer: PhaseTimer
    ) -> None:
        """After an optimizer step; `train_loss` now and then."""

    def alive(self) -> None:
        """After a batch of an evaluation, and while waiting for a rank that is watched itself: this one does not hang."""

    def evaluated(self, record: EpochRecord, *, is_best: bool) -> StopRequest | None:
        """After an evaluation, on all ranks alike, and with the same answer on all: whether somebody asks to stop here."""


@dataclass(kw_only=True)
class LoopContext:
    """Everything that a rank needs to train."""

    config: TrainConfig
    experiment: str
    trial_id: str
    attempt: int
    rank: int
    world_size: int
    device: torch.device
    bf16: bool
    micro_batch_tokens: int
    train: TokenArrays
    evaluation: TokenArrays
    evaluation_split: str  # dev or selection
    pad_id: int
    model: SentenceClassifier
    dropout_keys: DropoutKeys
    engine: TrainEngine
    run: Storage
    reporter: Reporter
    data_fingerprint: str | None = None
    """Of the rows; stands in every checkpoint. None: not known."""
    resume_from: Checkpoint | None = None
    timer: PhaseTimer = field(default_factory=PhaseTimer)
    asked_to_leave: Callable[[], bool] = lambda: False  # looked at on rank 0; must not block
    on_step: Callable[[int], None] | None = None  # fault injection and profiling hook: called with the steps done


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """What training came to; the same on all ranks."""

    records: tuple[EpochRecord, ...]
    best: EpochRecord
    best_logits: NDArray[np.float32] | None
    """[rows, 2] of the evaluation split at the best evaluation; None where that was before a restart."""
    global_step: int
    stop: StopRequest | None
    """Who ended it before its time; None: it came to its end, or ran out of patience."""


def better(candidate: EpochRecord, best: EpochRecord | None) -> bool:
    """By accuracy, ties to the earlier; what is not finite never wins."""
    accuracy = candidate.dev_accuracy
    if accuracy is None or not math.isfinite(accuracy) or not math.isfinite(candidate.dev_loss or 0.0):
        return False
    return best is None or best.dev_accuracy is None or accuracy > best.dev_accuracy


def best_of(records: Sequence[EpochRecord]) -> EpochRecord | None:
    """None where no evaluation was finite."""
    best: EpochRecord | None = None
    for record in records:
        best = record if better(record, best) else best
    return best
