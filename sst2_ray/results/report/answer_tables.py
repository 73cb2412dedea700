"""Report tables of single answers: sentences, classes, and how often models agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sst2_ray import formatting
from sst2_ray.results.analysis.errors import ErrorAnalysis, ModelAnswers, Sentence
from sst2_ray.results.report.tables import Cell, PageTable, number_cell, text_cell

MAX_CLASSES = 30
"""Classes that stand in the table of classes."""


def sentences(found: Iterable[Sentence], names: Sequence[str], classes: Sequence[str]) -> PageTable:
    """List sentences with their label and each model's answer and confidence; `classes`: their names."""
    rows = []
    for s in found:
        cells = [Cell(text=str(s.row_id), kind="num"), text_cell(s.text), text_cell(classes[s.label])]
        for predicted, probability in zip(s.predicted, s.probability, strict=True):
            confidence = probability if predicted or len(classes) > 2 else 1 - probability
            percent = f"{100 * confidence:.0f}\N{NO-BREAK SPACE}%"
            sure = "" if confidence != confidence else f"\N{NO-BREAK SPACE}({percent})"
            cells.append(
                Cell(
                    text=f"{classes[predicted]}{sure}",
                    sort=probability,
                    kind="right" if predicted == s.label else "wrong",
                )
            )
        rows.append(cells)
    return PageTable(columns=("row", "sentence", "label", *names), rows=rows)


def classes(model: ModelAnswers) -> PageTable:
    """List the classes with their sentences, F1, precision and recall, and how often each answer was given."""
    confusion = model.confusion
    shown = [number for number in range(len(confusion)) if confusion[number].any() or confusion[:, number].any()]
    shown = shown[:MAX_CLASSES]
    rows = []
    for number in shown:
        hits, actual, answered = confusion[number, number], confusion[number].sum(), confusion[:, number].sum()
        scores = (2 * hits / (actual + answered), hits / max(1, answered), hits / max(1, actual))
        cells = [text_cell(model.class_names[number]), number_cell(int(actual), formatting.number)]
        cells += [number_cell(float(score), lambda v: f"{formatting.percent(v, 1)} %") for score in scores]
        rows.append([*cells, *(number_cell(int(confusion[number, other]), formatting.number) for other in shown)])
    names = [f"answered {model.class_names[number]}" for number in shown]
    note = f"Answers of {model.configuration.label}."
    if len(shown) < len(confusion):
        note += f" The first {len(shown)} of {len(confusion)} classes."
    constant = np.flatnonzero(confusion.sum(axis=0))
    if len(constant) == 1:
        note += f" It answers {model.class_names[constant[0]]} for every sentence."
    return PageTable(columns=("class", "sentences", "F1", "precision", "recall", *names), rows=rows, note=note)


def agreement(errors: ErrorAnalysis) -> PageTable:
    """Count how often the first two models are right together."""
    total = sum(errors.agreement.values()) or 1
    rows = [
        [
            text_cell(name),
            number_cell(num, formatting.number),
            number_cell(num / total, lambda v: f"{formatting.percent(v, 1)} %"),
        ]
        for name, num in errors.agreement.items()
    ]
    return PageTable(columns=("", "sentences", "share"), rows=rows)
