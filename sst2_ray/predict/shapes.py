"""Predictions as they are returned: their columns, and the shape of what was given (sentences, a Series, a table)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sst2_ray.config.frames import library_of
from sst2_ray.data.labels import NEGATIVE_POSITIVE, ClassNames
from sst2_ray.data.readers import TEXT_COLUMNS
from sst2_ray.data.texts import Text, text_of
from sst2_ray.errors import InputError

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The label that a model gives to one sentence, or to a pair of texts."""

    text: Text
    label: str
    """Name of the class, e.g. negative or positive."""
    label_id: int
    """Number of the class, from 0."""
    probability: float
    """Softmax probability: of class 1 where there are two classes, else of `label`."""
    confidence: float
    """Softmax probability of `label`; not a number for a regression."""
    value: float | None = None
    """Answer of a regression, which `label` and `probability` repeat; None: there are classes."""


class Labeler(Protocol):
    """A model that computes logits of texts."""

    classes: ClassNames
    text_columns: tuple[str, ...]
    """Columns of pairs of texts; empty: single texts."""

    def logits(self, texts: Sequence[object]) -> NDArray[np.float32]:
        """Compute logits [len(texts), classes]."""


def added_columns(logits: NDArray[np.float32], classes: ClassNames) -> Columns:
    """Return the columns that labelling adds, [rows] each, from logits [rows, classes].

    `predicted`, `predicted_label` and `probability`; where the classes are not negative and positive also
    `probability_NAME` for each of them. A regression has `predicted` alone, its value.
    """
    if classes.is_regression:
        return {"predicted": logits[:, 0].astype(np.float32)}
    from sst2_ray.training.metrics import probabilities, stated_probability

    names = np.array(classes.names, dtype=object)
    predicted = _predicted(logits)
    each = probabilities(logits)
    columns: Columns = {
        "predicted": predicted.astype(np.int8 if len(classes) <= 128 else np.int16),
        "predicted_label": names[predicted],
        "probability": stated_probability(logits).astype(np.float32),
    }
    if classes.names != NEGATIVE_POSITIVE:
        columns |= {f"probability_{name}": each[:, i].astype(np.float32) for i, name in enumerate(classes.names)}
    return columns


def _predicted(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    return logits.argmax(axis=1)  # the lower number where two are equal


def predictions_of(texts: Sequence[Text], logits: NDArray[np.float32], classes: ClassNames) -> list[Prediction]:
    """Turn texts and their logits [len(texts), classes] into predictions."""
    from sst2_ray.training.metrics import probabilities

    if classes.is_regression:
        values = zip(texts, logits[:, 0].tolist(), strict=True)
        none = float("nan")
        return [
            Prediction(text=text, label=f"{value:.4g}", label_id=0, probability=value, confidence=none, value=value)
            for text, value in values
        ]
    each = probabilities(logits)
    return [
        Prediction(
            text=text,
            label=classes.names[number],
            label_id=int(number),
            probability=float(row[1] if len(classes) == 2 else row[number]),
            confidence=float(row[number]),
        )
        for text, number, row in zip(texts, _predicted(logits), each, strict=True)
    ]


def labeled(predictor: Labeler, texts: object, text_column: str | None = None) -> Any:
    """Label sentences; see `sst2_ray.predict`. Raises InputError if an item is no text or a table has no text column."""
    if isinstance(texts, str) or _is_pair(texts):
        return _predictions(predictor, [texts])[0]
    if isinstance(texts, Mapping):  # splits
        return type(texts)({name: labeled(predictor, split, text_column) for name, split in texts.items()})  # type: ignore[call-arg]
    if library_of(texts) is not None:
        rows = _cells(texts, text_column, predictor.text_columns)
        return _beside(texts, added_columns(predictor.logits(rows), predictor.classes))
    if not isinstance(texts, Iterable):
        raise InputError(f"texts: a {type(texts).__name__} is neither a text nor several")
    if type(texts).__name__ == "Series":
        return _frame_like(texts, added_columns(predictor.logits(list(texts)), predictor.classes))
    return _predictions(predictor, list(texts))


def _is_pair(value: object) -> bool:
    """Tell a mapping of two texts from one of splits."""
    return isinstance(value, Mapping) and all(isinstance(part, str) for part in value.values())


def _predictions(predictor: Labeler, items: Sequence[object]) -> list[Prediction]:
    logits = predictor.logits(items)
    read = [text_of(item, predictor.text_columns, f"texts: item {number}") for number, item in enumerate(items)]
    return predictions_of(read, logits, predictor.classes)


def _cells(table: Any, text_column: str | None, pair: Sequence[str]) -> list[object]:
    """Return the cells of a table's column of sentences; for a model of pairs tuples of both columns'."""
    names = list(table.columns if library_of(table) in ("pandas", "polars") else table.column_names)
    wanted = list(pair) or ([text_column] if text_column else list(TEXT_COLUMNS))
    found = [name for name in wanted if name in names]
    if not found or (pair and len(found) < len(pair)):
        has = ", ".join(map(str, names))
        one = (" and " if pair else " or ").join(map(repr, wanted))
        raise InputError(f"texts: the table has no column {one}; it has {has}; name one with text_column")
    columns = [table[name] for name in found[: len(pair) or 1]]
    cells = [list(one.to_pylist() if library_of(table) == "pyarrow" else one) for one in columns]
    return list(zip(*cells, strict=True)) if pair else cells[0]


def _beside(table: Any, columns: Columns) -> Any:
    """Return a table of the same kind with columns added, or replaced where it has them."""
    match library_of(table):
        case "pandas":
            return table.assign(**columns)
        case "polars":
            series = sys.modules["polars"].Series
            return table.with_columns([series(name, values.tolist()) for name, values in columns.items()])
        case "datasets":
            table = table.remove_columns([name for name in columns if name in table.column_names])
            for name, values in columns.items():
                table = table.add_column(name, values.tolist())
            return table
    table = table.drop_columns([name for name in columns if name in table.column_names])
    for name, values in columns.items():
        table = table.append_column(name, [values.tolist()])
    return table


def _frame_like(series: Any, columns: Columns) -> Any:
    """Return a DataFrame of the library of a Series; of pandas with its index."""
    library = sys.modules[type(series).__module__.split(".")[0]]
    if library.__name__ == "pandas":
        return library.DataFrame(columns, index=series.index)
    return library.DataFrame({name: values.tolist() for name, values in columns.items()})
