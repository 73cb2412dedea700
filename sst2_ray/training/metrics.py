"""Metrics of an evaluation, computed once from the logits of every row, the same on all ranks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sst2_ray.config.metrics import Metric
from sst2_ray.data.labels import LabelArray
from sst2_ray.statistics.metrics import (
    auroc,
    confusion_scores,
    correlation,
    row_values,
    standard_error,
    value_contributions,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one split; 0 where undefined, None for scores of classes where there are none (regression).

    F1, precision and recall are those of class 1 (positive) where there are two classes, else means over the classes.
    """

    loss: float
    """Mean cross entropy, nats; of a regression the mean squared error."""
    num_rows: int
    accuracy: float | None = None
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    macro_f1: float | None = None
    """Mean of the classes' F1 over the classes that occur among labels or answers."""
    weighted_f1: float | None = None
    """Mean of the classes' F1, weighted by their rows."""
    mcc: float | None = None
    """Matthews' correlation coefficient; for more than two classes R_K (Gorodkin, 2004)."""
    num_answered: int | None = None
    """Classes that are the answer for at least one row."""
    auroc: float | None = None
    """Area under the ROC curve; None: not two classes, or computed from sums."""
    pearson: float | None = None
    """Correlation of answers and labels; None: there are classes."""
    spearman: float | None = None
    """Correlation of their ranks."""

    def score(self, metric: Metric) -> float | None:
        """Return a metric by its name; None: it is not defined here."""
        value: float | None = getattr(self, metric, None)
        return value


class MetricSums:
    """Running sums that metrics are made of: memory does not grow with the rows."""

    def __init__(self, num_classes: int) -> None:
        self.loss = 0.0
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        """Rows of each label (first index) with each answer (second)."""

    @property
    def num_rows(self) -> int:
        """Count the rows so far."""
        return int(self.confusion.sum())

    @property
    def right(self) -> int:
        """Count the right answers so far."""
        return int(self.confusion.trace())

    def add(self, logits: NDArray[np.float32], labels: LabelArray) -> None:
        """Add `logits` [rows, classes] and `labels` [rows]; sums are float64."""
        wide = logits.astype(np.float64)
        top = wide.max(axis=1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(wide - top).sum(axis=1))
        self.loss += float((log_sum - wide[np.arange(len(labels)), labels]).sum())
        np.add.at(self.confusion, (labels.astype(np.int64), wide.argmax(axis=1)), 1)

    def metrics(self) -> Metrics:
        """Return the metrics; at least one row must have been added."""
        answered = self.confusion.sum(axis=0)
        return Metrics(
            loss=self.loss / self.num_rows,
            **confusion_scores(self.confusion),
            num_answered=int((answered > 0).sum()),
            num_rows=self.num_rows,
        )


def metrics_from_logits(logits: NDArray[np.float32], labels: LabelArray) -> Metrics:
    """Compute the metrics of `logits` [rows, classes] and `labels` [rows]."""
    if logits.shape[1] == 1:
        return _regression_metrics(logits[:, 0].astype(np.float64), labels)
    sums = MetricSums(logits.shape[1])
    sums.add(logits, labels)
    area = auroc(labels, _margins(logits)) if logits.shape[1] == 2 else None
    return dataclasses.replace(sums.metrics(), auroc=area)


def _regression_metrics(values: NDArray[np.float64], labels: LabelArray) -> Metrics:
    return Metrics(
        loss=float(((values - labels) ** 2).mean()),
        num_rows=len(labels),
        pearson=correlation("pearson", labels, values),
        spearman=correlation("spearman", labels, values),
    )


def score_error(metric: Metric, logits: NDArray[np.float32], labels: LabelArray) -> float | None:
    """Estimate the standard error of a metric over the rows; None for accuracy, whose error follows from its value."""
    if metric == "accuracy":
        return None
    if logits.shape[1] == 1:
        return standard_error(value_contributions(metric, labels, logits[:, 0]))
    if metric == "loss":
        wide = logits.astype(np.float64)
        shifted = wide - wide.max(axis=1, keepdims=True)
        values = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
        return standard_error(values)
    found = row_values(metric, labels, logits.argmax(axis=1), _margins(logits) if metric == "auroc" else None)
    return None if found is None else standard_error(found)


def _margins(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the difference of two logits, which orders rows as the probability of class 1 does, without its rounding."""
    wide = logits.astype(np.float64)
    return wide[:, 1] - wide[:, 0]


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the softmax, [rows, classes]."""
    if logits.shape[1] == 2:
        positive = positive_probability(logits)
        return np.stack([1.0 - positive, positive], axis=1)
    wide = logits.astype(np.float64)
    raised = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return shares


def positive_probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the softmax probability of class 1 of two, [rows]."""
    wide = logits.astype(np.float64)
    return 1.0 / (1.0 + np.exp(wide[:, 0] - wide[:, 1]))


def stated_probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the one probability that stands beside an answer, [rows]: of class 1 of two, else of the answer."""
    each = probabilities(logits)
    return each[:, 1] if each.shape[1] == 2 else each.max(axis=1)


class RecentLoss:
    """The mean training loss of the steps between two reads, out of sums that begin anew at every evaluation."""

    def __init__(self) -> None:
        self._before = (0, 0.0, 0.0)

    def read(self, sums: Tensor, *, num_evaluations: int) -> float | None:
        """Return the mean loss since the last read or evaluation; None without a step. Waits for the device.

        Args:
            sums: loss sum, right predictions and examples since the last evaluation, float64 [3].
            num_evaluations: so far.
        """
        total, _, count = sums.tolist()
        evaluations, total_before, count_before = self._before
        if evaluations != num_evaluations:
            total_before = count_before = 0.0
        self._before = (num_evaluations, total, count)
        return (total - total_before) / (count - count_before) if count > count_before else None
