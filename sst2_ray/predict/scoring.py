"""Scores of predictions by the labels of a file, whatever these say: known only when the whole file was read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.labels import ClassNames
from sst2_ray.formatting import count
from sst2_ray.training.metrics import MetricSums

_MAX_LABELS = 10_000
"""Different labels that are kept apart; a column with more holds no classes."""


@dataclass(kw_only=True)
class Scores:
    """Sums of predictions by the label that stands beside them in the file."""

    classes: ClassNames
    num_unlabelled: int = 0
    num_rows: Counter[str] = field(default_factory=Counter)
    _predicted: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """By label: rows of each predicted class, [classes]."""
    _log_probability: dict[str, NDArray[np.float64]] = field(default_factory=lambda: defaultdict(float))  # type: ignore[arg-type]
    """By label: sum of each class's log probability, [classes]."""

    def add(self, logits: NDArray[np.float32], labels: Sequence[str | None]) -> None:
        """Count `logits` [rows, classes] of rows with `labels` [rows]; None: no label."""
        wide = logits.astype(np.float64)
        log_probability = wide - wide.max(axis=1, keepdims=True)
        log_probability -= np.log(np.exp(log_probability).sum(axis=1, keepdims=True))
        predicted = wide.argmax(axis=1)
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, label in enumerate(labels):
            if label is None:
                self.num_unlabelled += 1
            else:
                rows_of[label].append(row)
        for label, rows in rows_of.items():
            self.num_rows[label] += len(rows)
            if len(self._predicted) < _MAX_LABELS or label in self._predicted:
                found = np.bincount(predicted[rows], minlength=len(self.classes))
                self._predicted[label] = self._predicted.get(label, np.int64(0)) + found
                self._log_probability[label] = self._log_probability[label] + log_probability[rows].sum(axis=0)

    @property
    def known(self) -> dict[str, int]:
        """Map the labels of the file that the model knows to its classes."""
        return self.classes.match(list(self.num_rows))

    @property
    def sums(self) -> MetricSums:
        """Add up the rows whose label the model knows."""
        sums = MetricSums()
        for label, number in self.known.items():
            predicted = self._predicted[label]
            sums.loss -= float(self._log_probability[label][number])
            sums.hits += int(predicted[1]) if number == 1 else 0
            sums.predicted += int(predicted[1])
            sums.actual += self.num_rows[label] if number == 1 else 0
            sums.right += int(predicted[number])
            sums.num_rows += self.num_rows[label]
        return sums

    @property
    def unknown_notes(self) -> list[str]:
        """Describe the rows that are not scored: without a label, or with one that the model does not know."""
        known = self.known
        unknown = [(label, num) for label, num in self.num_rows.most_common() if label not in known]
        notes = [f"{count(self.num_unlabelled, 'row')} without a label not scored"] if self.num_unlabelled else []
        if unknown:
            named = ", ".join(f"{label} ({num:,})" for label, num in unknown[:3]) + ", ..." * (len(unknown) > 3)
            rows = count(sum(num for _, num in unknown), "row")
            notes.append(f"{rows} not scored: labels {named} are not among the model's classes {self.classes}")
        return notes
