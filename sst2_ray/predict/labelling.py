"""Labelling a file a piece at a time: text cells to logits, logits to columns beside the file's own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sst2_ray.data.texts import PAIR_KEYS, stripped
from sst2_ray.errors import InputError
from sst2_ray.predict.inputs import SentenceFiles
from sst2_ray.predict.outputs import open_output
from sst2_ray.predict.predictor import Predictor
from sst2_ray.predict.scoring import Scores
from sst2_ray.predict.shapes import Prediction, added_columns, predictions_of

if TYPE_CHECKING:
    from sst2_ray.data.labels import ClassNames, LabelArray

TABLE_ROWS = 40
"""Rows of a file that are shown in the terminal where no output is named."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Result of labelling a file."""

    num_rows: int
    num_blank: int
    """Rows without a text."""
    num_truncated: int
    """Texts that were longer than the model reads."""
    scores: Scores | None
    """None: the file has no labels, or they are ignored."""
    shown: list[Prediction]
    """The predictions of a small file."""


def added_fields(classes: ClassNames) -> list[pa.Field]:
    """List the columns that labelling adds to a file."""
    empty = added_columns(np.zeros((0, len(classes)), dtype=np.float32), classes)
    return [
        pa.field(name, pa.string() if name == "predicted_label" else pa.from_numpy_dtype(values.dtype))
        for name, values in empty.items()
    ]


def label_file(files: SentenceFiles, predictor: Predictor, output: str | None) -> Labelled:
    """Label every row of a file and write them to `output`, which appears whole or not at all.

    Raises:
        InputError: The file already has a column that the output adds.
    """
    schema = _output_schema(files, predictor.classes) if output is not None else files.schema
    scores = Scores(classes=predictor.classes) if files.has_labels else None
    shown: list[Prediction] = []
    num_blank = num_done = 0
    predictor.num_truncated = 0
    with _progress(files.num_rows) as advance, contextlib.ExitStack() as stack:
        suffix = ".jsonl" if files.path.suffix in (".jsonl", ".ndjson", ".json") else ".csv"
        writer = stack.enter_context(open_output(output, schema, stdout_suffix=suffix)) if output is not None else None
        for file, piece in files.pieces():
            texts = file.texts(piece)
            given = [text for text in texts if text is not None and stripped(text) is not None]
            present = np.array([text is not None and stripped(text) is not None for text in texts])
            logits = predictor.logits(given)
            if scores is not None:
                scores.add(logits, list(itertools.compress(file.labels(piece), present)))
            if writer is not None:
                columns = added_columns(logits, predictor.classes)
                # A table is written as a row group of its own; batches would be held back for a larger one.
                writer.write_table(pa.Table.from_batches([_with_columns(piece, present, columns, schema)]))
            if files.num_rows <= TABLE_ROWS:
                shown += predictions_of(given, logits, predictor.classes)
            num_blank += int((~present).sum())
            num_done += len(texts)
            advance(num_done)
    return Labelled(
        num_rows=num_done, num_blank=num_blank, num_truncated=predictor.num_truncated, scores=scores, shown=shown
    )


def _output_schema(files: SentenceFiles, classes: ClassNames) -> pa.Schema:
    added = added_fields(classes)
    taken = [one.name for one in added if one.name in files.schema.names]
    if taken:
        raise InputError(f"--input {files.path}: has a column {taken[0]!r}, which the output adds; rename it")
    return pa.schema([*files.schema, *added])


def write_predictions(
    output: str, predictions: Sequence[Prediction], logits: NDArray[np.float32], classes: ClassNames,
    labels: LabelArray | None = None,
) -> None:  # fmt: skip
    """Write a small file of sentences, their labels where given, and the columns that labelling adds."""
    texts = [(p.text,) if isinstance(p.text, str) else p.text for p in predictions]
    columns = {
        name: pa.array(column, pa.string()) for name, column in zip(PAIR_KEYS, zip(*texts, strict=True), strict=False)
    }
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int16())
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


@contextlib.contextmanager
def _progress(num_rows: int) -> Iterator[Callable[[int], None]]:
    """Show the rows done on a live line in a terminal, nothing elsewhere. Yields a function that takes their number."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    out = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("predict", total=num_rows)
        yield lambda done: bar.update(task, completed=done)
