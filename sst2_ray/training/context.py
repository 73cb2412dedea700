"""The training loop's inputs (LoopContext), results (LoopResult) and the protocol of whom it reports to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sst2_ray.config.metrics import Metric, oriented, score_of
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.modeling.dropout import DropoutKeys
from sst2_ray.records import EpochRecord, PredictionRecord, StopRequest
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint.files import Checkpoint
from sst2_ray.training.engine.base import TrainEngine
from sst2_ray.training.evaluate import CLOSE, compute_logits, evaluation_tokens
from sst2_ray.training.names import Phase
from sst2_ray.training.objective import Objective
from sst2_ray.training.throughput import PhaseTimer


class Reporter(Protocol):
    """Receiver of the loop's events, called on every rank; calls must be cheap and must not raise."""

    def progress(
        self, *, global_step: int, total_steps: int, epoch: float, train_loss: float | None, timer: PhaseTimer
    ) -> None:
        """Report a finished optimizer step; `train_loss` is given now and then."""

    def alive(self) -> None:
        """Report that this rank does not hang: it evaluates, or waits for a rank that is watched itself."""

    def saved(self, global_step: int) -> None:
        """Report a checkpoint that is whole on storage; called on rank 0, in the thread that wrote it."""

    def evaluated(self, record: EpochRecord, *, is_best: bool) -> StopRequest | None:
        """Report an evaluation on all ranks; returns, the same on all, who asks to stop here."""


class AttemptReporter(Reporter, Protocol):
    """Receives the events of an attempt besides the progress of its loop."""

    first_step_at: float | None

    def preemption_requested(self) -> bool:
        """Tell whether the workers are asked to write a checkpoint and leave. Must not block."""

    def phase(self, phase: Phase) -> None:
        """Announce a stretch without steps."""

    def note(self, line: str) -> None:
        """Show one line to the user."""

    def micro_batches(self, most_tokens: int) -> None:
        """Tell how many tokens a worker computes at once."""

    def write_records(self, records: list[EpochRecord]) -> None:
        """Write evaluations to the results table."""

    def write_predictions(self, records: list[PredictionRecord]) -> None:
        """Write predictions to the results table."""


@dataclass(kw_only=True)
class LoopContext:
    """Setup of one rank: everything that it needs to train."""

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
    evaluation_split: str
    """dev or selection."""
    pad_id: int
    model: SentenceClassifier
    dropout_keys: DropoutKeys
    engine: TrainEngine
    objective: Objective
    run: Storage
    reporter: Reporter
    cuda_graphs: bool = False
    """Replay small micro-batches as graphs, filled up to few sizes."""
    data_fingerprint: str | None = None
    """Fingerprint of the rows, kept in every checkpoint; None: not known."""
    resume_from: Checkpoint | None = None
    timer: PhaseTimer = field(default_factory=PhaseTimer)
    preemption_requested: Callable[[], bool] = lambda: False
    """Called on rank 0; must not block."""
    failure_interval_s: float | None = None
    """Mean time between the failures of earlier attempts; None: there was none."""
    on_step: Callable[[int], None] | None = None
    """Hook for fault injection and profiling, called with the steps done."""

    def logits(self, rows: TokenArrays, *, close: float = CLOSE) -> NDArray[np.float32]:
        """Compute the logits of `rows` over all ranks (see compute_logits); every rank calls it."""
        return compute_logits(
            self.model,
            rows,
            bf16=self.bf16,
            pad_id=self.pad_id,
            max_tokens=evaluation_tokens(self.micro_batch_tokens, self.device),
            device=self.device,
            rank=self.rank,
            world_size=self.world_size,
            on_batch=self.reporter.alive,
            close=close,
        )


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """Outcome of training, the same on all ranks."""

    records: tuple[EpochRecord, ...]
    best: EpochRecord
    best_logits: NDArray[np.float32] | None
    """Logits [rows, classes] of the evaluation split at the best evaluation; None: it was before a restart."""
    global_step: int
    stop: StopRequest | None
    """Request that ended it early; None: it reached its end, or ran out of patience."""


def better(candidate: EpochRecord, best: EpochRecord | None, metric: Metric = "accuracy") -> bool:
    """Compare by a metric, ties to the earlier; an evaluation that is not finite never wins."""
    score = score_of(candidate, metric)
    if score is None or not math.isfinite(score) or not math.isfinite(candidate.dev_loss or 0.0):
        return False
    before = score_of(best, metric) if best is not None else None
    return before is None or oriented(metric, score) > oriented(metric, before)


def best_of(records: Sequence[EpochRecord], metric: Metric = "accuracy") -> EpochRecord | None:
    """Return the best of the evaluations; None: none was finite."""
    best: EpochRecord | None = None
    for record in records:
        best = record if better(record, best, metric) else best
    return best


def is_out_of_patience(records: Sequence[EpochRecord], patience: int | None, metric: Metric = "accuracy") -> bool:
    """Tell whether `patience` evaluations have passed since the best one; None: never."""
    best = best_of(records, metric)
    if patience is None or best is None:
        return False
    return sum(1 for record in records if record.global_step > best.global_step) >= patience
