"""Labelling a file a piece at a time: text cells to logits, logits to columns beside the file's own."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sst2_ray.data.rows import named_rows
from sst2_ray.data.texts import PAIR_KEYS, stripped
from sst2_ray.errors import InputError
from sst2_ray.formatting import count
from sst2_ray.predict.inputs import Sentences
from sst2_ray.predict.outputs import open_output
from sst2_ray.predict.predictor import Predictor
from sst2_ray.predict.scoring import Scores, ValueScores, scores_of
from sst2_ray.predict.shapes import Prediction, added_columns, predictions_of
from sst2_ray.terminal import rows_bar

if TYPE_CHECKING:
    from sst2_ray.data.labels import ClassNames

TABLE_ROWS = 40
"""Rows of a file that are shown in the terminal where no output is named."""


@dataclass(kw_only=True)
class Labelled:
    """Counts of labelled rows: of a file, piece after piece, of a part of one, or of many."""

    classes: ClassNames
    scores: Scores | ValueScores | None
    """Scores against the labels; None: the file has none, or they are ignored."""
    num_rows: int = 0
    blank: list[int] = field(default_factory=list)
    """Positions of the rows without a text."""
    unlabelled: list[int] = field(default_factory=list)
    """Positions of the rows without a label, in a file with labels."""
    answers: Counter[int] = field(default_factory=Counter)
    """Rows that were given each class, by its number."""
    num_truncated: int = 0
    """Texts that were longer than the model reads."""
    shown: list[Prediction] = field(default_factory=list)
    """The predictions of a small file."""

    def add(self, present: NDArray[np.bool_], logits: NDArray[np.float32], labels: Sequence[str | None] | None) -> None:
        """Count the rows of a piece: `present` and `labels` [rows], `logits` [rows with a text, classes]."""
        self.blank += (self.num_rows + np.flatnonzero(~present)).tolist()
        self.answers.update(logits.argmax(axis=1).tolist())
        if self.scores is not None and labels is not None:
            missing = [row for row, label in enumerate(labels) if label is None and present[row]]
            self.unlabelled += [self.num_rows + row for row in missing]
            self.scores.add(logits, list(itertools.compress(labels, present)))
        self.num_rows += len(present)

    def merge(self, values: Mapping[str, Any], start: int) -> None:
        """Add the counts of other rows, in the form that `to_json` returns. `start`: position of the first of them."""
        self.num_rows += values["num_rows"]
        self.num_truncated += values["num_truncated"]
        self.blank = sorted([*self.blank, *(start + row for row in values["blank"])])
        self.unlabelled = sorted([*self.unlabelled, *(start + row for row in values["unlabelled"])])
        self.answers.update({int(number): num for number, num in values["answers"].items()})
        if self.scores is not None:
            self.scores.merge_json(values["scores"])

    def to_json(self) -> dict[str, object]:
        """Return the counts as plain values."""
        names = ("num_rows", "num_truncated", "blank", "unlabelled")
        scores = self.scores.to_json() if self.scores else None
        return {**{name: getattr(self, name) for name in names}, "answers": dict(self.answers), "scores": scores}

    @property
    def notes(self) -> list[str]:
        """Describe the rows that are not scored or have no prediction."""
        notes = list(self.scores.unknown_notes) if self.scores else []
        if self.unlabelled:
            notes.append(
                f"{count(len(self.unlabelled), 'row')} without a label not scored ({named_rows(self.unlabelled)})"
            )
        if self.blank:
            notes.append(
                f"{count(len(self.blank), 'row')} without a text and so without a prediction ({named_rows(self.blank)})"
            )
        return notes


def added_fields(classes: ClassNames) -> list[pa.Field]:
    """List the columns that labelling adds to a file."""
    empty = added_columns(np.zeros((0, len(classes)), dtype=np.float32), classes)
    return [
        pa.field(name, pa.string() if name == "predicted_label" else pa.from_numpy_dtype(values.dtype))
        for name, values in empty.items()
    ]


def label_file(files: Sentences, predictor: Predictor, output: str | None) -> Labelled:
    """Label every row of a file and write them to `output`, which appears whole or not at all.

    Raises:
        InputError: The file already has a column that the output adds.
    """
    schema = _output_schema(files, predictor.classes) if output is not None else files.schema
    done = Labelled(classes=predictor.classes, scores=scores_of(predictor.classes) if files.has_labels else None)
    predictor.num_truncated = 0
    with rows_bar(files.num_rows) as advance, contextlib.ExitStack() as stack:
        suffix = ".jsonl" if files.path.suffix in (".jsonl", ".ndjson", ".json") else ".csv"
        writer = stack.enter_context(open_output(output, schema, stdout_suffix=suffix)) if output is not None else None
        for file, piece in files.pieces():
            texts = file.texts(piece)
            present = np.array([stripped(text) is not None for text in texts])
            given = [text for text in itertools.compress(texts, present) if text is not None]
            logits = predictor.logits(given)
            done.add(present, logits, file.labels(piece) if files.has_labels else None)
            if writer is not None:
                columns = added_columns(logits, predictor.classes)
                # A table is written as a row group of its own; batches would be held back for a larger one.
                writer.write_table(pa.Table.from_batches([_with_columns(piece, present, columns, schema)]))
            if files.num_rows <= TABLE_ROWS:
                done.shown += predictions_of(given, logits, predictor.classes)
            advance(done.num_rows)
    done.num_truncated = predictor.num_truncated
    return done


def _output_schema(files: Sentences, classes: ClassNames) -> pa.Schema:
    added = added_fields(classes)
    taken = [one.name for one in added if one.name in files.schema.names]
    if taken:
        raise InputError(f"--input {files.path}: has a column {taken[0]!r}, which the output adds; rename it")
    return pa.schema([*files.schema, *added])


def write_predictions(
    output: str, predictions: Sequence[Prediction], logits: NDArray[np.float32], classes: ClassNames,
    labels: Sequence[float | None] | None = None,
) -> None:  # fmt: skip
    """Write a small file of sentences, their labels where given, and the columns that labelling adds."""
    texts = [(p.text,) if isinstance(p.text, str) else p.text for p in predictions]
    columns = {
        name: pa.array(column, pa.string()) for name, column in zip(PAIR_KEYS, zip(*texts, strict=True), strict=False)
    }
    if labels is not None:
        columns["label"] = pa.array(labels, pa.float32() if classes.is_regression else pa.int16())
    added = added_columns(logits, classes)
    columns |= {one.name: pa.array(added[one.name], one.type) for one in added_fields(classes)}
    table = pa.table(columns)
    with open_output(output, table.schema) as writer:
        writer.write_table(table)


def _with_columns(
    piece: pa.RecordBatch, present: NDArray[np.bool_], added: dict[str, NDArray[np.generic]], schema: pa.Schema
) -> pa.RecordBatch:
    """Put the predictions beside a piece, null where there was no text."""
    arrays = list(piece.columns)
    for name, found in added.items():
        values = np.full(len(present), None, dtype=object)
        values[present] = found
        arrays.append(pa.array(values, schema.field(name).type, from_pandas=True))
    return pa.record_batch(arrays, schema=schema)
