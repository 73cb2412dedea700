"""Files of sentences, read and written a piece at a time."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sst2_ray.data.readers import LABEL_COLUMNS, TEXT_COLUMNS, find_files, local_copy, one_line, pick_column
from sst2_ray.data.rows import make_rows
from sst2_ray.errors import InputError

if TYPE_CHECKING:
    from sst2_ray.predict.predictor import Prediction

PIECE_ROWS = 16_384
"""Rows that are sorted by length, computed and written at once: enough that batches of like length are full."""

_CSV_BLOCK_BYTES = 4 * 2**20
_PARQUET_BUFFER_BYTES = 2**20
_FORMATS = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
_ADDED = [("predicted", pa.int8()), ("predicted_label", pa.string()), ("probability", pa.float32())]

Logits = Callable[[Sequence[str]], NDArray[np.float32]]
Tally = Callable[[NDArray[np.float32], NDArray[np.int8]], None]
Columns = Callable[[NDArray[np.float32]], dict[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What went through."""

    num_rows: int
    num_blank: int
    """Rows without a text: null, or nothing but white space."""


class SentenceFile:
    """Files of one format with a text column and perhaps a label column; a context manager.

    Columns of CSV, TSV and JSON Lines are carried as text: guessing types from the first rows fails on later ones.
    """

    def __init__(self, name: str, paths: Sequence[Path], text: str | None, label: str | None) -> None:
        self.name, self.paths = name, list(paths)
        suffixes = {path.suffix.lower() for path in self.paths}
        if len(suffixes) > 1 or not suffixes <= set(_FORMATS):
            raise InputError(f"--input {name}: must be one of {', '.join(_FORMATS)}, not {', '.join(sorted(suffixes))}")
        self.suffix = suffixes.pop()
        first = next(self.pieces(rows=1), None)
        if first is None or not first.num_rows:
            raise InputError(f"--input {name}: is empty; give a file with sentences")
        self.schema = first.schema
        self.text_column = pick_column(text, TEXT_COLUMNS, self.schema.names, f"--input {name}", "text")
        if label is None and "label" not in self.schema.names:
            self.label_column = None
        else:
            self.label_column = pick_column(label, LABEL_COLUMNS, self.schema.names, f"--input {name}", "label")
        taken = [column for column, _ in _ADDED if column in self.schema.names]
        if taken:
            raise InputError(f"--input {name}: has a column {taken[0]!r}, which the output adds; rename it")
        if not pa.types.is_string(self._text_type()) and not pa.types.is_large_string(self._text_type()):
            raise InputError(f"--input {name}: column {self.text_column!r} is {self._text_type()}, not text")

    def _text_type(self) -> pa.DataType:
        return self.schema.field(self.text_column).type

    @classmethod
    @contextlib.contextmanager
    def open(cls, name: str, *, text: str | None, label: str | None) -> Iterator[SentenceFile]:
        """A path, a pattern, or a URI (copied to the local disk first). Raises InputError with one line."""
        with tempfile.TemporaryDirectory(prefix="sst2-ray-") as scratch:
            local = str(local_copy(name, Path(scratch), "--input")) if "://" in name else name
            yield cls(name, find_files(local, "--input"), text, label)

    def pieces(self, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """Record batches of at most `rows` (None: PIECE_ROWS) rows, all of one schema."""
        rows = rows or PIECE_ROWS
        schema: pa.Schema | None = None
        for path in self.paths:
            for batch in _read(path, self.suffix, rows, self.name):
                if schema is not None and not batch.schema.equals(schema):
                    raise InputError(f"--input {self.name}: {path} has other columns than {self.paths[0]}")
                schema = batch.schema
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)

    def texts(self) -> Iterator[list[str]]:
        """The texts alone, a piece at a time, blank ones left out."""
        for piece in self.pieces():
            yield [text for text in piece.column(self.text_column).to_pylist() if text and text.strip()]


def labelled_file(
    file: SentenceFile,
    logits: Logits,
    columns: Columns,
    output: str | None,
    tally: Tally,
) -> Counts:
    """Label every row; write them to `output`, which appears whole or not at all; `tally` what has a label."""
    num_rows = num_blank = 0
    with _Progress() as progress, contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        if output is not None:
            schema = pa.schema([*file.schema, *(pa.field(name, kind) for name, kind in _ADDED)])
            writer = stack.enter_context(_parquet(output, schema))
        for piece in file.pieces():
            texts = piece.column(file.text_column).to_pylist()
            present = np.array([bool(text and text.strip()) for text in texts])
            computed = logits(list(itertools.compress(texts, present)))
            if file.label_column is not None:
                labels = piece.column(file.label_column).to_pylist()
                _tally_labelled(
                    texts, labels, present, computed, f"--input {file.name}, from row {num_rows + 1} on", tally
                )
            if writer is not None:
                piece = _with_columns(piece, present, columns(computed), writer.schema)
                writer.write_table(pa.Table.from_batches([piece]))  # a row group: batches would be held back for one
            num_rows += len(texts)
            num_blank += int((~present).sum())
            progress.advance(num_rows)
    return Counts(num_rows=num_rows, num_blank=num_blank)


def _tally_labelled(
    texts: Sequence[str | None],
    labels: Sequence[Any],
    present: NDArray[np.bool_],
    logits: NDArray[np.float32],
    where: str,
    tally: Tally,
) -> None:
    """Rows with a text and a label; a missing one, or GLUE's -1 of its test split, is nothing to score by."""
    known = np.array([label not in (None, "", -1, "-1") for label in labels])
    both = present & known
    rows = make_rows(list(itertools.compress(texts, both)), list(itertools.compress(labels, both)), where)
    tally(logits[known[present]], rows.labels)


def write_predictions(output: str, predictions: Sequence[Prediction], labels: NDArray[np.int8] | None = None) -> None:
    """A small Parquet file with the same columns as a labelled file has."""
    columns: dict[str, pa.Array] = {"text": pa.array([p.text for p in predictions], pa.string())}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int8())
    columns["predicted"] = pa.array([p.label_id for p in predictions], pa.int8())
    columns["predicted_label"] = pa.array([p.label for p in predictions], pa.string())
    columns["probability"] = pa.array([p.probability for p in predictions], pa.float32())
    table = pa.table(columns)
    with _parquet(output, table.schema) as writer:
        writer.write_table(table)


def _with_columns(
    piece: pa.RecordBatch, present: NDArray[np.bool_], added: dict[str, NDArray[Any]], schema: pa.Schema
) -> pa.RecordBatch:
    """The piece with the predictions beside it; null where there was no text."""
    arrays = list(piece.columns)
    for name, kind in _ADDED:
        values = np.full(len(present), None, dtype=object)
        values[present] = added[name]
        arrays.append(pa.array(values, kind, from_pandas=True))
    return pa.record_batch(arrays, schema=schema)


@contextlib.contextmanager
def _parquet(output: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet file that stands under its name only when it is complete."""
    target = Path(output)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            yield writer
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


# ---- reading


def _read(path: Path, suffix: str, rows: int, name: str) -> Iterator[pa.RecordBatch]:
    try:
        if suffix in (".parquet", ".pq"):
            # Neither pre-buffered nor a column at once: a file of one large row group would be read whole.
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as file:
                yield from file.iter_batches(batch_size=rows)
        elif suffix in (".csv", ".tsv"):
            yield from _read_delimited(path, suffix)
        elif suffix == ".txt":
            with path.open(encoding="utf-8") as lines:
                for some in _chunks((line.rstrip("\r\n") for line in lines), rows):
                    yield pa.record_batch({"text": pa.array(some, pa.string())})
        else:
            yield from _read_json_lines(path, rows, name)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"--input {name}: {path.name} cannot be read ({one_line(error)})") from None


def _read_delimited(path: Path, suffix: str) -> Iterator[pa.RecordBatch]:
    """CSV with quoting; TSV as GLUE writes it, where a quotation mark is a character like any other."""
    quote: str | bool = '"' if suffix == ".csv" else False
    parse = pacsv.ParseOptions(
        delimiter="," if suffix == ".csv" else "\t", quote_char=quote, newlines_in_values=bool(quote)
    )
    read = pacsv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    if not path.stat().st_size:
        return
    with pacsv.open_csv(path, read_options=read, parse_options=parse) as reader:
        header = reader.schema.names
    convert = pacsv.ConvertOptions(column_types={column: pa.string() for column in header})
    with pacsv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
        yield from reader


def _read_json_lines(path: Path, rows: int, name: str) -> Iterator[pa.RecordBatch]:
    """The first line's keys are the columns."""
    keys: list[str] | None = None
    with path.open(encoding="utf-8") as lines:
        number = 0
        for some in _chunks((line for line in lines if line.strip()), rows):
            records = []
            for line in some:
                number += 1
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise InputError(f"--input {name}: line {number} of {path.name} is not JSON ({error})") from None
                if not isinstance(record, dict):
                    raise InputError(f"--input {name}: line {number} of {path.name} is no JSON object")
                records.append(record)
            keys = keys or list(records[0])
            yield pa.record_batch({key: pa.array([_as_text(r.get(key)) for r in records], pa.string()) for key in keys})


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class _Progress:
    """Rows done: a live line in a terminal, nothing elsewhere."""

    def __enter__(self) -> _Progress:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        from sst2_ray.terminal import console

        out = console()
        columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._task = self._bar.add_task("predict", total=None)
        self._bar.start()
        return self

    def advance(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
