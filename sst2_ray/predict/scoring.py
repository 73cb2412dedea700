"""Scores of predictions by the labels of a file, whatever these say: known only when the whole file was read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.labels import ClassNames
from sst2_ray.formatting import count, percent
from sst2_ray.training.metrics import MetricSums

_MAX_LABELS = 10_000
"""Different labels that are kept apart; a column with more holds no classes."""


_MAX_ANSWERS = 8
"""Classes whose predictions are counted in one line."""

_MAX_LINES = 20
"""Classes that are scored one by one in the terminal."""


@dataclass(kw_only=True)
class Scores:
    """Sums of predictions by the label that stands beside them in the file."""

    classes: ClassNames
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
            if label is not None:
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
        sums = MetricSums(len(self.classes))
        for label, number in self.known.items():
            sums.loss -= float(self._log_probability[label][number])
            sums.confusion[number] += self._predicted[label]
        return sums

    @property
    def unknown_notes(self) -> list[str]:
        """Describe the rows that are not scored because the model does not know their label."""
        known = self.known
        unknown = [(label, num) for label, num in self.num_rows.most_common() if label not in known]
        notes = []
        if unknown:
            named = ", ".join(f"{label} ({num:,})" for label, num in unknown[:3]) + ", ..." * (len(unknown) > 3)
            rows = count(sum(num for _, num in unknown), "row")
            notes.append(f"{rows} not scored: labels {named} are not among the model's classes {self.classes}")
        return notes


def answer_words(answers: Counter[int], classes: ClassNames) -> str:
    """Describe how often a model gives each class, by its number, most frequent first."""
    each = [f"{classes.names[number]} {num:,}" for number, num in answers.most_common(_MAX_ANSWERS + 1)]
    return ", ".join(each[:_MAX_ANSWERS]) + (", ..." if len(each) > _MAX_ANSWERS else "")


def score_lines(sums: MetricSums, classes: ClassNames, interval: str) -> list[str]:
    """Describe scores: a line for all classes, a remark on a constant answer, a line a class where there are several.

    Args:
        sums: At least one row.
        classes: Of the model.
        interval: Words on how sure the accuracy is.
    """
    metrics = sums.metrics()
    rows = sums.confusion.sum(axis=1)
    majority = f"{percent(rows.max() / rows.sum())} always answering {classes.names[int(rows.argmax())]}"
    two = f"F1 {percent(metrics.f1)}  precision {percent(metrics.precision)}  recall {percent(metrics.recall)}  "
    lines = [
        f"accuracy {percent(metrics.accuracy)} % ({sums.right:,} of {sums.num_rows:,}; {interval}; {majority})  "
        f"{two if len(classes) == 2 else ''}macro F1 {percent(metrics.macro_f1)}  MCC {metrics.mcc:.4f}  "
        f"loss {metrics.loss:.4f}"
    ]
    if metrics.num_answered == 1:
        answer = classes.names[int(sums.confusion.sum(axis=0).argmax())]
        lines.append(f"note: the model answers {answer} for every row")
    if len(classes) == 2 or (rows > 0).sum() > _MAX_LINES:
        return lines
    for number in rows.nonzero()[0]:
        one = MetricSums(2)
        hits, answered = sums.confusion[number, number], sums.confusion[:, number].sum()
        rest = sums.num_rows - rows[number] - answered + hits
        one.confusion[:] = [[rest, answered - hits], [rows[number] - hits, hits]]
        found = one.metrics()
        lines.append(
            f"  {classes.names[number]}: {rows[number]:,} rows  F1 {percent(found.f1)}  "
            f"precision {percent(found.precision)}  recall {percent(found.recall)}"
        )
    return lines
