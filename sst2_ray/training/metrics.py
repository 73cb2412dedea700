"""Metrics of an evaluation, computed once from the logits of every row, the same on all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one split; F1, precision and recall are those of the positive class (label 1), 0 where undefined."""

    loss: float  # mean cross entropy, nats
    accuracy: float
    f1: float
    precision: float
    recall: float
    num_rows: int


@dataclass(kw_only=True)
class MetricSums:
    """Running sums that metrics are made of: memory does not grow with the rows."""

    loss: float = 0.0
    hits: int = 0
    predicted: int = 0
    actual: int = 0
    right: int = 0
    num_rows: int = 0

    def add(self, logits: NDArray[np.float32], labels: NDArray[np.int8]) -> None:
        """Add `logits` [rows, 2] and `labels` [rows] of 0 and 1; sums are float64."""
        wide = logits.astype(np.float64)
        top = wide.max(axis=1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(wide - top).sum(axis=1))
        predicted, actual = wide[:, 1] > wide[:, 0], labels == 1
        self.loss += float((log_sum - wide[np.arange(len(labels)), labels]).sum())
        self.hits += int((predicted & actual).sum())
        self.predicted += int(predicted.sum())
        self.actual += int(actual.sum())
        self.right += int((predicted == actual).sum())
        self.num_rows += len(labels)

    def metrics(self) -> Metrics:
        """Return the metrics; at least one row must have been added."""
        precision, recall = self.hits / max(1, self.predicted), self.hits / max(1, self.actual)
        return Metrics(
            loss=self.loss / self.num_rows,
            accuracy=self.right / self.num_rows,
            f1=2 * precision * recall / (precision + recall) if self.hits else 0.0,
            precision=precision,
            recall=recall,
            num_rows=self.num_rows,
        )


def metrics_from_logits(logits: NDArray[np.float32], labels: NDArray[np.int8]) -> Metrics:
    """Compute the metrics of `logits` [rows, 2] and `labels` [rows] of 0 and 1."""
    sums = MetricSums()
    sums.add(logits, labels)
    return sums.metrics()


def positive_probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax probability of class 1, [rows]."""
    wide = logits.astype(np.float64)
    return 1.0 / (1.0 + np.exp(wide[:, 0] - wide[:, 1]))


def metric_fields(which: str, metrics: Metrics | None) -> dict[str, float | None]:
    """Return the fields of TrialRecord for dev at the `best` or the `last` evaluation."""
    return {
        f"{which}_dev_accuracy": metrics.accuracy if metrics else None,
        f"{which}_dev_f1": metrics.f1 if metrics else None,
        f"{which}_dev_loss": metrics.loss if metrics else None,
    }
