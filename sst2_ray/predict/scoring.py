"""Scores of predictions by the labels of a file, whatever these say: known only when the whole file was read."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sst2_ray.config.registry import KNOWN_LEAKS
from sst2_ray.data.labels import ClassNames, numbers_of
from sst2_ray.data.leaks import check_known_leak, identify
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.splitting import key_hashes
from sst2_ray.data.texts import Text
from sst2_ray.formatting import count, percent
from sst2_ray.statistics.metrics import correlation
from sst2_ray.training.metrics import MetricSums

if TYPE_CHECKING:
    from sst2_ray.modeling.export.meta import ExportMeta

_IDENTIFY_ROWS = 200_000
"""Texts of a file that are compared with known data sets, which are smaller."""

_MAX_LABELS = 10_000
"""Different labels that are kept apart; a column with more holds no classes."""


_MAX_FLAG = 3
"""Classes that are written out in a flag that is advised."""

_MAX_LETTERS = 40
"""Letters of a label that are shown where the model does not know it."""

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
    """Counts by label: rows of each predicted class, [classes]."""
    _log_probability: dict[str, NDArray[np.float64]] = field(default_factory=lambda: defaultdict(float))  # type: ignore[arg-type]
    """Sums by label: sum of each class's log probability, [classes]."""

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
            if len(self._predicted) < _MAX_LABELS or label in self._predicted or self.classes.match([label]):
                found = np.bincount(predicted[rows], minlength=len(self.classes))
                self._predicted[label] = self._predicted.get(label, np.int64(0)) + found
                self._log_probability[label] = self._log_probability[label] + log_probability[rows].sum(axis=0)

    def to_json(self) -> dict[str, object]:
        """Return the sums in the form that `merge_json` takes."""
        return {
            "rows": dict(self.num_rows),
            "predicted": {label: found.tolist() for label, found in self._predicted.items()},
            "log_probability": {label: self._log_probability[label].tolist() for label in self._predicted},
        }

    def merge_json(self, values: Mapping[str, Any]) -> None:
        """Add what another one has counted, in the form that `to_json` returns."""
        self.num_rows.update(values["rows"])
        for label, found in values["predicted"].items():
            self._predicted[label] = self._predicted.get(label, np.int64(0)) + np.array(found, dtype=np.int64)
            sums = np.array(values["log_probability"][label], dtype=np.float64)
            self._log_probability[label] = self._log_probability[label] + sums

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
            named = ", ".join(f"{label[:_MAX_LETTERS]} ({num:,})" for label, num in unknown[:3]) + ", ..." * (
                len(unknown) > 3
            )
            rows = count(sum(num for _, num in unknown), "row")
            said = f"{rows} not scored: labels {named} are not among the model's classes {self.classes}"
            notes.append(said + self._remedy([label for label, _ in unknown]))
        return notes

    def _remedy(self, unknown: Sequence[str]) -> str:
        """Say why numbers are not read as classes, where they may be meant as such; else empty."""
        if self.classes.numbered or not all(label.isdecimal() and int(label) < len(self.classes) for label in unknown):
            return ""
        flag = " ".join(f"{name}={number}" for number, name in enumerate(self.classes.names[:_MAX_FLAG]))
        more = " ..." * (len(self.classes) > _MAX_FLAG)
        return f"; it was not trained with numbers (--labels {flag}{more}): write the names instead"


def answer_words(answers: Counter[int], classes: ClassNames) -> str:
    """Describe how often a model gives each class, by its number, most frequent first; of a regression: values."""
    if classes.is_regression:
        return f"{answers.total():,} values"
    each = [f"{classes.names[number]} {num:,}" for number, num in answers.most_common(_MAX_ANSWERS + 1)]
    return ", ".join(each[:_MAX_ANSWERS]) + (", ..." if len(each) > _MAX_ANSWERS else "")


@dataclass(kw_only=True)
class ValueScores:
    """Answers of a regression beside the numbers that stand in the file."""

    num_unknown: int = 0
    """Rows whose label is no number."""
    values: array[float] = field(default_factory=lambda: array("d"))
    labels: array[float] = field(default_factory=lambda: array("d"))

    def add(self, logits: NDArray[np.float32], labels: Sequence[str | None]) -> None:
        """Take the values `logits` [rows, 1] of rows with `labels` [rows]; None: no label."""
        numbers = numbers_of([label for label in labels if label is not None])
        for value, label in zip(logits[:, 0].tolist(), labels, strict=True):
            if label in numbers:
                self.values.append(value)
                self.labels.append(numbers[label])
            elif label is not None:
                self.num_unknown += 1

    def to_json(self) -> dict[str, object]:
        """Return the rows in the form that `merge_json` takes."""
        return {"unknown": self.num_unknown, "values": self.values.tolist(), "labels": self.labels.tolist()}

    def merge_json(self, values: Mapping[str, Any]) -> None:
        """Add what another one has taken, in the form that `to_json` returns."""
        self.num_unknown += values["unknown"]
        self.values.extend(values["values"])
        self.labels.extend(values["labels"])

    @property
    def known(self) -> int:
        """Count the rows that are scored."""
        return len(self.labels)

    @property
    def unknown_notes(self) -> list[str]:
        """Describe the rows that are not scored because their label is no number."""
        return [f"{count(self.num_unknown, 'row')} whose label is no number not scored"] if self.num_unknown else []

    def lines(self) -> list[str]:
        """Describe the scores in one line."""
        labels, values = np.array(self.labels), np.array(self.values)
        pearson, spearman = (correlation(metric, labels, values) for metric in ("pearson", "spearman"))
        error = float(((labels - values) ** 2).mean())
        return [
            f"Pearson {pearson:.4f}  Spearman {spearman:.4f}  squared error {error:.4f}  ({count(len(labels), 'row')})"
        ]


def scores_of(classes: ClassNames) -> Scores | ValueScores:
    """Make empty scores for a model."""
    return ValueScores() if classes.is_regression else Scores(classes=classes)


def score_lines(sums: MetricSums, classes: ClassNames, interval: str) -> list[str]:
    """Describe scores: a line for all classes, a remark on a constant answer, a line a class where there are several.

    Args:
        sums: At least one row.
        classes: Of the model.
        interval: Words on how sure the accuracy is.
    """
    metrics = sums.metrics()
    rows = sums.confusion.sum(axis=1)
    majority = f"{percent(rows.max() / rows.sum())} % always answering {classes.names[int(rows.argmax())]}"
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


def seen_in_training(meta: ExportMeta, file: str) -> str | None:
    """Return a remark if a file has the name of the one that the model was trained on."""
    if "." not in Path(meta.data).name or Path(meta.data).name != Path(file).name:
        return None
    return f"the model was trained on {Path(file).name}: on rows that it has seen, a score says nothing about new ones"


def column_note(options: ReadOptions, columns: Iterable[str]) -> str | None:
    """Return a remark if a file is scored by the column that the model was trained on, which nobody named."""
    name = options.scored_by(columns)
    return name and f"scored by its column {name!r}, which the model was trained on (--ignore-labels turns this off)"


def refuse_leak(meta: ExportMeta, texts: Iterable[Sequence[Text]], allow: bool) -> str | None:
    """Refuse a file that is a known data set, under whatever name, on which the model must not be scored.

    Returns:
        A remark where a known leak is allowed, else None.
    """
    if not any(trained_on in meta.corpora for trained_on, _ in KNOWN_LEAKS):
        return None
    seen: list[Text] = []
    for some in texts:
        seen += some
        if len(seen) >= _IDENTIFY_ROWS:
            break
    return check_known_leak(meta.corpora, identify(key_hashes(seen)), allow)
