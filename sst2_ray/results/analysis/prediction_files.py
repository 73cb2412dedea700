"""Files of predictions that others made: row id, label, prediction, and where there are any seed, probability and text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from sst2_ray.errors import InputError
from sst2_ray.statistics.scores import Array

_NAMES: dict[str, tuple[str, ...]] = {
    "row_id": ("row_id", "id", "idx", "index", "row", "", "unnamed: 0"),
    "label": ("label", "labels", "gold", "target"),
    "predicted": ("predicted", "prediction", "predictions", "pred"),
    "probability": ("probability", "positive", "score", "prob"),
    "seed": ("seed", "run"),
    "text": ("text", "sentence"),
}
"""Columns -> names that they may have; row_id, label and predicted are needed."""
_WORDS = {"negative": 0.0, "positive": 1.0, "label_0": 0.0, "label_1": 1.0, "false": 0.0, "true": 1.0}
_MAX_ID = 2**53  # above it a float does not tell whole numbers apart


@dataclass(frozen=True, kw_only=True)
class PredictionRows:
    """The rows of a file."""

    row_id: Array
    """Whole numbers, [rows]."""
    label: Array
    """Numbers of the classes, or the values of a regression; NaN where there is none, [rows]."""
    predicted: Array
    """Likewise."""
    probability: Array
    """NaN where it is not known, [rows]."""
    seed: list[object]
    text: list[str]
    """Empty without texts."""

    @property
    def is_values(self) -> bool:
        """Return whether labels or answers are fractions: the values of a regression."""
        return any((x[np.isfinite(x)] % 1 != 0).any() for x in (self.label, self.predicted))


def read(path: Path) -> PredictionRows:
    """Read a file with a suffix of `READERS`. Raises InputError."""
    rows, column = _columns(path)

    def values(name: str) -> list[object]:
        return rows.column(column[name]).to_pylist() if name in column else [None] * rows.num_rows

    label, predicted = _classes(values("label"), values("predicted"), path, column)
    ids = _numbers(values("row_id"))
    if ids is None or not (np.isfinite(ids) & (ids % 1 == 0) & (np.abs(ids) < _MAX_ID)).all():
        raise InputError(f"{path}: column {column['row_id']}: must hold whole numbers below 2^53; number the rows")
    return PredictionRows(
        row_id=ids,
        label=label,
        predicted=predicted,
        probability=_probabilities(values("probability"), path, column.get("probability")),
        seed=values("seed"),
        text=[_text(v) for v in values("text")] if "text" in column else [],
    )


def _read_csv(path: Path, delimiter: str = ",") -> pa.Table:
    rows = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter))
    head = rows.column_names[0] if rows.num_columns == 1 else ""
    other = next((sign for sign in ";\t|" if sign in head and sign != delimiter), None)
    return rows if other is None else _read_csv(path, other)


def _read_json(path: Path) -> pa.Table:
    try:
        return pyarrow.json.read_json(path)
    except pa.ArrowInvalid:  # an array of objects instead of one object a line
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("no list of objects")
    return pa.Table.from_pylist(found)


READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".csv": _read_csv,
    ".tsv": lambda path: _read_csv(path, "\t"),
    ".parquet": pq.read_table,
    ".json": _read_json,
    ".jsonl": _read_json,
}


def _columns(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Read a file, and find which of its columns is which of `_NAMES`. Raises InputError."""
    try:
        rows = READERS[path.suffix.lower()](path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as predictions ({str(error).splitlines()[0][:160]})") from None
    lower = {name.strip().lower(): name for name in rows.column_names}
    column = {k: lower[n] for k, names in _NAMES.items() for n in reversed(names) if n in lower}
    if lacking := [k for k in ("row_id", "label", "predicted") if k not in column]:
        names = ", ".join(rows.column_names)
        raise InputError(f"{path}: has no column {' and no column '.join(lacking)} (its columns: {names[:200]})")
    nested = [name for name in column.values() if pa.types.is_nested(rows.schema.field(name).type)]
    if nested:
        raise InputError(f"{path}: column {nested[0]}: holds lists or objects; write one row a prediction")
    if not rows.num_rows:
        raise InputError(f"{path}: holds no rows")
    return rows, column


def _numbers(values: list[object]) -> Array | None:
    """Convert a column to floats, nothing to NaN; None where one is no number."""
    try:
        return np.array(
            [np.nan if v is None or v == "" else _WORDS.get(_text(v).lower(), v) for v in values], dtype=float
        )
    except (TypeError, ValueError):
        return None


def _classes(label: list[object], predicted: list[object], path: Path, column: dict[str, str]) -> tuple[Array, Array]:
    """Convert labels and answers to numbers: class names by their order, -1 and 1 to 0 and 1. Raises InputError."""
    pair = _numbers(label), _numbers(predicted)
    if pair[0] is None or pair[1] is None:
        if not all(v is None or isinstance(v, str | bytes) for v in (*label, *predicted)):
            wrong = column["label"] if pair[0] is None else column["predicted"]
            raise InputError(
                f"{path}: column {wrong}: must hold the classes as the other column does, numbers or names"
            )
        return _named_classes(label, predicted)
    found = {*np.unique(pair[0]).tolist(), *np.unique(pair[1]).tolist()}
    if found <= {-1.0, 1.0} and 1.0 in np.unique(pair[0]):
        return (pair[0] > 0).astype(float), (pair[1] > 0).astype(float)
    is_classes = not any(v % 1 for v in found if v == v)
    if is_classes and (num := int((pair[0] == -1).sum())):
        raise InputError(
            f"{path}: column {column['label']}: {num} of {len(label)} rows have the label -1, which is none"
        )
    return pair[0], pair[1]


def _named_classes(label: list[object], predicted: list[object]) -> tuple[Array, Array]:
    """Give each class name its place in their order, those of labels first."""
    names = sorted({_text(v) for v in label if v is not None})
    names += sorted({_text(v) for v in predicted if v is not None} - set(names))
    number = {name: float(i) for i, name in enumerate(names)}
    a, b = (np.array([np.nan if v is None else number[_text(v)] for v in column]) for column in (label, predicted))
    return a, b


def _probabilities(values: list[object], path: Path, name: str | None) -> Array:
    """Return probabilities; NaN everywhere for scores, which lie outside 0 to 1. Raises InputError."""
    found = _numbers(values)
    if found is None:
        raise InputError(f"{path}: column {name}: must hold numbers from 0 to 1")
    inside = ~np.isfinite(found) | ((found >= 0) & (found <= 1))
    return found if inside.all() else np.full(len(values), np.nan)


def _text(value: object) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
