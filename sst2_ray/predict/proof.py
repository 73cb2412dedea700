"""Proof of converted models: accuracy beside fp32 in torch with its interval, changed sentences, speed and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from sst2_ray import formatting
from sst2_ray.data.labels import LabelArray
from sst2_ray.data.texts import Text, shown
from sst2_ray.predict.measuring import BATCHES, Candidate, Measured, rates
from sst2_ray.statistics import crossed
from sst2_ray.statistics.crossed import Estimate
from sst2_ray.tables import Column, print_table
from sst2_ray.terminal import has_width
from sst2_ray.training.metrics import probabilities

_TIMED = 1024
"""The first sentences: on these the rate is measured."""
_SHOWN = 10
"""Changed sentences of a model that are printed; all of them are in the file."""


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The labelled sentences that a proof rests on."""

    texts: list[Text]
    labels: LabelArray
    """Numbers of the model's classes."""
    name: str

    @property
    def words(self) -> str:
        """Return their number and name."""
        return f"{len(self.texts):,} sentences of {self.name}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A sentence that another label was given to than by fp32 in torch."""

    row: int
    text: str
    label: str
    before: str
    after: str
    confidence_before: float
    confidence_after: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """Findings about one model."""

    candidate: Candidate
    accuracy: float
    difference: Estimate | None
    """Accuracy minus that of fp32 in torch, over new sentences; None: this is fp32 in torch."""
    changes: tuple[Change, ...]
    largest_probability_difference: float
    rates: dict[int, float]
    """Sentences a second by sentences of a call."""
    peak_bytes: int
    file_bytes: int
    load_s: float

    def is_kept_within(self, max_loss: float) -> bool:
        """Tell whether the accuracy is shown to be at most `max_loss` (0-1) below that of fp32 in torch.

        A model that gives every sentence the same label as fp32 in torch, in fp32 itself, counts as shown: it differs by
        the order of summation alone, however few sentences there are.
        """
        if self.difference is None or (self.candidate.variant == "fp32" and not self.changes):
            return True
        return self.difference.interval.low > -max_loss


def prove(
    candidates: Sequence[tuple[Candidate, int]],
    sentences: Sentences,
    classes: Sequence[str],
    *,
    batches: Sequence[int] = BATCHES,
) -> list[Row]:
    """Label all sentences with every model and measure them side by side.

    Args:
        candidates: The models with the bytes of their files; the first is fp32 in torch, which the others are held against.
        sentences: Labelled sentences that the model was not trained on.
        classes: Names of the model's classes.
        batches: Sentences of a call whose rate is measured.

    Returns:
        A row for each model, in their order.
    """
    models: list[Measured] = []
    try:
        for candidate, _ in candidates:
            models.append(Measured(candidate))
        answers = [model.logits(sentences.texts) for model in models]
        peaks = [model.peak_bytes() for model in models]
        speed = rates(models, sentences.texts[:_TIMED], batches=batches)
    finally:
        for model in models:
            model.close()
    return [
        _row(model, found, answers[0], peak, fast, size, sentences, classes)
        for model, found, peak, fast, (_, size) in zip(models, answers, peaks, speed, candidates, strict=True)
    ]


def _row(
    model: Measured,
    logits: NDArray[np.float32],
    reference: NDArray[np.float32],
    peak: int,
    speed: dict[int, float],
    size: int,
    sentences: Sentences,
    classes: Sequence[str],
) -> Row:
    right, right_before = (logits_.argmax(axis=1) == sentences.labels for logits_ in (logits, reference))
    after, before = probabilities(logits), probabilities(reference)
    return Row(
        candidate=model.candidate,
        accuracy=float(right.mean()),
        difference=None if logits is reference else crossed.compare(right, right_before),
        changes=_changes(before, after, sentences, classes),
        largest_probability_difference=float(np.abs(after - before).max()),
        rates=speed,
        peak_bytes=peak,
        file_bytes=size,
        load_s=model.load_s,
    )


def _changes(
    before: NDArray[np.float64], after: NDArray[np.float64], sentences: Sentences, classes: Sequence[str]
) -> tuple[Change, ...]:
    old, new = before.argmax(axis=1), after.argmax(axis=1)
    return tuple(
        Change(
            row=int(i),
            text=shown(sentences.texts[i]),
            label=classes[sentences.labels[i]],
            before=classes[old[i]],
            after=classes[new[i]],
            confidence_before=float(before[i, old[i]]),
            confidence_after=float(after[i, new[i]]),
        )
        for i in np.flatnonzero(old != new)
    )


def fastest(rows: Sequence[Row], max_loss: float) -> Row | None:
    """Return the converted model with the highest rate in large batches among those within `max_loss`; None: none is."""
    kept = [row for row in rows if row.candidate.backend != "torch" and row.is_kept_within(max_loss)]
    return max(kept, key=lambda row: row.rates[max(row.rates)], default=None)


_COLUMNS = (
    Column(title="model", align="left"),
    Column(title="file", rank=4),
    Column(title="memory", rank=3),
    Column(title="accuracy %"),
    Column(title="minus fp32 in torch, points"),
    Column(title="labels changed"),
    Column(title="probabilities differ by", rank=2),
)


def table(rows: Sequence[Row]) -> tuple[Sequence[Column], Sequence[Sequence[str]]]:
    """Return columns and cells of the table of models."""
    sizes = list(rows[0].rates)
    columns = [*_COLUMNS, *(Column(title=f"sentences/s, {size} a call") for size in sizes)]
    lines = [
        [
            row.candidate.name,
            formatting.size(row.file_bytes),
            formatting.size(row.peak_bytes),
            formatting.percent(row.accuracy),
            interval_words(row.difference),
            str(len(row.changes)),
            f"{row.largest_probability_difference:.1e}",
            *(formatting.number(row.rates[size]) for size in sizes),
        ]
        for row in rows
    ]
    return columns, lines


def show(out: Console, rows: Sequence[Row], sentences: Sentences) -> None:
    """Print the table of models and the sentences whose labels changed."""
    print_table(out, *table(rows), title=sentences.words, wide=not has_width(out), whole="a wider terminal")
    for row in rows:
        for change in row.changes[:_SHOWN]:
            out.print(
                f"{row.candidate.name}: {change.before} {change.confidence_before:.3f} -> {change.after} "
                f"{change.confidence_after:.3f} ({change.label}): {change.text}",
                soft_wrap=True,
                markup=False,
            )


def interval_words(difference: Estimate | None) -> str:
    """Describe a difference of accuracies: its value and 95 % interval, in points."""
    if difference is None:
        return formatting.NONE
    low, high = (formatting.points(value) for value in (difference.interval.low, difference.interval.high))
    return f"{formatting.points(difference.value)} ({low} to {high})"
