"""The end of an attempt, as its workers tell the driver. Imports no torch: the driver needs none."""

from __future__ import annotations

from dataclasses import dataclass, field

from sst2_ray.records import StopRequest


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts:
    """Position of an evaluation and its figures on dev; None: not scored on dev (yet)."""

    epoch: float
    global_step: int
    dev_accuracy: float | None
    dev_f1: float | None
    dev_loss: float | None
    dev_macro_f1: float | None
    dev_mcc: float | None
    dev_auroc: float | None
    dev_pearson: float | None
    dev_spearman: float | None
    score: float | None
    """The metric that the run is chosen by."""
    num_answered: int | None
    """Classes that are the answer for at least one row."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The model as the workers built it; fields as in TrialRecord."""

    kind: str
    source: str
    revision: str | None
    random_weights: bool
    num_parameters: int
    attention: str
    precision: str
    engine: str


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """Seconds of rank 0 by phase since the attempt began."""

    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    communication: float = 0.0
    optimizer: float = 0.0
    evaluation: float = 0.0
    checkpoint: float = 0.0

    @property
    def training(self) -> float:
        """Return the seconds in optimizer steps."""
        return self.data + self.forward + self.backward + self.communication + self.optimizer


@dataclass(frozen=True, kw_only=True)
class SpeedFacts:
    """Time, speed and memory of the attempt; fields as in TrialRecord."""

    startup_seconds: float | None
    phases: PhaseSeconds
    examples_per_sec: float | None
    """None, as the other rates: the attempt took no step, since only the end was left to do."""
    tokens_per_sec: float | None
    padding_fraction: float | None
    model_flop_utilization: float | None
    peak_memory_gib: float
    world_size: int
    micro_batch_tokens: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An attempt that came to the end of its training: facts that only the workers know, the same on all ranks."""

    stop: StopRequest | None
    """Request that ended it before its time; None: there was none."""
    model: ModelFacts
    speed: SpeedFacts
    best: EvaluationFacts
    last: EvaluationFacts
    last_train_loss: float | None
    selection_accuracy: float | None
    """Accuracy at the best evaluation, where that was chosen on a held-out part of train."""
    selection_score: float | None
    """Likewise, the metric that the run is chosen by."""
    others: dict[str, dict[str, float]] = field(default_factory=dict)
    """Scores of the best model on further evaluation splits, by split and metric."""
    temperature: float | None
    decision_threshold: float | None
    """Calibration in the exported head; None: none was asked for, or there are more than two classes."""


@dataclass(frozen=True, kw_only=True)
class Yielded:
    """An attempt that wrote a checkpoint on request and gave its workers back; another can go on from it."""

    global_step: int
    """Step of the checkpoint."""


AttemptEnd = Finished | Yielded
