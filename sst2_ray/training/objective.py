"""The training loss: cross entropy, with weights of classes and smoothed labels where they are asked for, or squared error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sst2_ray.data.labels import LabelArray


class Objective:
    """The loss of rows, and what they count in their global batch.

    With class weights w the loss of a global batch B is sum(w[y_i] * CE_i, i in B) / sum(w[y_i], i in B), as torch's
    cross_entropy(weight=w, reduction="mean") has it for the whole batch. The divisor is a sum over the *global* batch, which
    every rank knows from its plan: micro-batches and ranks add up to that loss whatever their number and their classes.

    Args:
        class_weights: A weight a class; None: all rows count the same. Only their ratios matter.
        label_smoothing: Share of the label that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567).
        is_regression: Labels are values, whose squared difference from the one output is the loss.
        labels: Of the training rows, [rows].
        device: Of the logits.
    """

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        is_regression: bool = False,
        labels: LabelArray,
        device: torch.device,
    ) -> None:
        self.label_smoothing, self.is_regression = label_smoothing, is_regression
        self._of_class: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None
        self._weight: Tensor | None = None
        if class_weights is not None:
            # Of mean 1 over the training rows, so that the mean loss that is told can be compared with another run's.
            weights = np.asarray(class_weights, dtype=np.float64)
            self._of_class = weights / weights[labels.astype(np.int64)].mean()
            self._weight = torch.tensor(self._of_class, dtype=torch.float32, device=device)

    def batch_scale(self, labels: LabelArray) -> np.float32 | None:
        """Return what the weights of a global batch's rows (1 over their number) are multiplied by; None: by nothing.

        Args:
            labels: Of the rows of the global batch, [rows].
        """
        if self._of_class is None:
            return None
        return np.float32(len(labels) / self._of_class[labels.astype(np.int64)].sum())

    def targets(self, labels: LabelArray) -> np.ndarray[tuple[int], np.dtype[np.int64 | np.float32]]:
        """Convert labels [rows] to what `row_losses` takes: int64, or float32 values."""
        return labels.astype(np.float32 if self.is_regression else np.int64)

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of each row, [rows], from logits [rows, classes] in fp32 and targets [rows]."""
        if self.is_regression:
            return (logits[:, 0] - labels) ** 2
        losses: Tensor = torch.nn.functional.cross_entropy(
            logits, labels, weight=self._weight, label_smoothing=self.label_smoothing, reduction="none"
        )
        return losses
