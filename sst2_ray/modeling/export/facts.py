"""The facts that an export's card and metadata state about a model."""

from __future__ import annotations

from dataclasses import dataclass

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.sources import ModelInfo
from sst2_ray.statistics.temperature import CalibrationError


@dataclass(frozen=True, kw_only=True)
class CalibrationFacts:
    """A rescaling that the head already holds, and the calibration error that it is there for."""

    temperature: float
    threshold: float | None
    """Uncalibrated probability of class 1 of two from which on the answer is class 1; None: more than two classes."""
    num_rows: int
    """Held-out sentences of train that it was fitted on."""
    before: CalibrationError | None
    after: CalibrationError | None
    """Calibration errors on dev, before and after; None: not scored on dev."""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Facts that a card states about a model."""

    config: TrainConfig
    info: ModelInfo
    source: str
    """Origin of the training rows."""
    eval_split: str
    """Split that the metrics were measured on, e.g. "SST-2 dev"."""
    corpora: tuple[str, ...]
    """Named data sets that the training rows come from."""
    num_train_rows: int
    num_dev_rows: int
    accuracy: float | None
    """0-1"""
    f1: float | None
    """F1 of class 1 of two, else the mean over the classes; 0-1."""
    loss: float
    """Mean cross entropy, nats."""
    epoch: float
    """Passes over the training rows at the exported weights."""
    global_step: int
    """Optimizer steps at the exported weights."""
    calibration: CalibrationFacts | None = None
    pearson: float | None = None
    """Pearson correlation of a regression, which has neither accuracy nor F1."""
    spearman: float | None = None

    @property
    def all_corpora(self) -> tuple[str, ...]:
        """Return the corpora of this run and of the export that it started from, if it did."""
        return tuple(sorted({*self.corpora, *self.info.trained_on}))
