"""Data files of every format behind one interface: columns, and rows as Arrow record batches."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sst2_ray.data.delimited import find_dialect, is_table, read_delimited
from sst2_ray.data.files import format_of, is_hidden
from sst2_ray.data.json_rows import JsonRows
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.streams import one_line, open_text
from sst2_ray.errors import InputError

T = TypeVar("T")

_UNLABELLED = ("unsup",)
"""Folders beside those of classes whose texts have no label (IMDB's reviews)."""

BATCH_ROWS = 16_384
_PARQUET_BUFFER_BYTES = 2**20


class TableFile(ABC):
    """A file, or a folder of texts, as a table."""

    notes: tuple[str, ...] = ()
    """Decisions about the file that the user should know of."""
    header = True
    """False: the columns were named here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns, without white space around."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns; text, where the format has no types."""
        return pa.schema([(name, pa.string()) for name in self.columns])

    @abstractmethod
    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield all rows in batches of at most `rows`. Raises InputError where the file is damaged."""

    def class_names(self, column: str) -> list[str] | None:
        """Names that the numbers of a column stand for (a ClassLabel of `datasets`); None: it has none."""
        features = _features(self.schema)
        feature = features.get(column)
        names = feature.get("names") if isinstance(feature, dict) else None
        return [str(name) for name in names] if isinstance(names, list) else None

    def num_nested(self, column: str) -> int:  # noqa: ARG002 - where a schema says what cells hold there is none
        """Count the rows whose cell of a column is a list or an object, which is read as its JSON."""
        return 0

    def count_rows(self) -> int:
        """Count the rows, and read the file once where nothing less finds its damages."""
        return sum(batch.num_rows for batch in self.batches())


def open_table(path: Path, options: ReadOptions, usual: frozenset[str] = frozenset()) -> TableFile:
    """Open a file by its suffix. Raises InputError with one line where it is empty, damaged or of no known format.

    Args:
        path: A file, or a folder with a folder of .txt files for each class.
        options: Form of text files, as the user gave it.
        usual: Lower-case names of columns that mark a first row as a header.
    """
    if path.is_dir():
        return _ClassFolder(path, options.encoding)
    suffix = format_of(path)
    if not path.exists() or not path.stat().st_size:
        raise InputError(f"{path}: is empty; give a file with text")
    if suffix in (".parquet", ".pq"):
        return _ParquetFile(path)
    if suffix in (".arrow", ".feather"):
        return _ArrowFile(path)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _JsonFile(path, suffix, options.encoding)
    if suffix == ".txt" and not is_table(path, options, usual):
        return _TextFile(path, options.encoding)
    return _DelimitedFile(path, suffix, options, usual)


class _DelimitedFile(TableFile):
    def __init__(self, path: Path, suffix: str, options: ReadOptions, usual: frozenset[str]) -> None:
        super().__init__(path)
        self._dialect, self._encoding = find_dialect(path, suffix, options, usual), options.encoding
        self.notes, self.header = self._dialect.notes, self._dialect.header

    @property
    def columns(self) -> list[str]:
        return list(self._dialect.names)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        return _cut(read_delimited(self.path, self._dialect, self._encoding), rows)


class _JsonFile(TableFile):
    def __init__(self, path: Path, suffix: str, encoding: str | None) -> None:
        super().__init__(path)
        self._rows = JsonRows(path, suffix, encoding)

    @property
    def columns(self) -> list[str]:
        return self._rows.columns

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        return self._rows.batches(rows)

    def num_nested(self, column: str) -> int:
        return self._rows.num_nested[column]

    def count_rows(self) -> int:
        return self._rows.num_rows


class _TextFile(TableFile):
    """Plain text: a row a line, in the column `text`."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        super().__init__(path)
        self._encoding = encoding

    @property
    def columns(self) -> list[str]:
        return ["text"]

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        with open_text(self.path, self._encoding) as file:
            for lines in _chunks((line.rstrip(b"\r\n") for line in file), rows):
                yield pa.record_batch([pa.array(lines, pa.binary()).cast(pa.string())], names=["text"])


class _ClassFolder(TableFile):
    """A folder a class, with a .txt file a text (the layout of IMDB's reviews)."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        super().__init__(path)
        self._encoding = encoding
        left_out = [name for name in _UNLABELLED if (path / name).is_dir()]
        self.notes = tuple(f"{path.name}: left out its folder {name}, whose texts have no label" for name in left_out)

    @property
    def columns(self) -> list[str]:
        return ["text", "label"]

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        texts = (file for file in sorted(self.path.glob("*/*.txt")) if not is_hidden(file.name))
        labelled = (file for file in texts if file.parent.name not in _UNLABELLED)
        for files in _chunks(labelled, rows):
            cells = [self._text_of(file) for file in files], [file.parent.name for file in files]
            yield pa.record_batch([pa.array(column, pa.string()) for column in cells], names=self.columns)

    def _text_of(self, path: Path) -> str:
        with open_text(path, self._encoding) as file:
            return file.read().decode()


class _TypedFile(TableFile):
    """A file that states the types of its columns."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._schema = self._read_schema()
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{path}: is not valid {path.suffix[1:].upper()} ({one_line(error)})") from None

    @abstractmethod
    def _read_schema(self) -> pa.Schema: ...

    @abstractmethod
    def _read(self, rows: int) -> Iterator[pa.RecordBatch]: ...

    @property
    def columns(self) -> list[str]:
        return list(self._schema.names)

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        try:
            yield from _cut(self._read(rows), rows)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{self.path}: is damaged ({one_line(error)})") from None


class _ParquetFile(_TypedFile):
    def _read_schema(self) -> pa.Schema:
        with pq.ParquetFile(self.path) as file:
            return file.schema_arrow

    def _read(self, rows: int) -> Iterator[pa.RecordBatch]:
        # Neither pre-buffered nor a column at once: a file of one large row group would be read whole.
        with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as file:
            yield from file.iter_batches(batch_size=rows)

    def count_rows(self) -> int:
        with pq.ParquetFile(self.path) as file:
            return file.metadata.num_rows


class _ArrowFile(_TypedFile):
    """Feather and Arrow IPC, as a file or as the stream that `datasets` saves."""

    def _open(self) -> pa.RecordBatchReader | pa.ipc.RecordBatchFileReader:
        source = pa.memory_map(str(self.path))
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)

    def _read_schema(self) -> pa.Schema:
        return self._open().schema

    def _read(self, rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - batches have the size that was written
        reader = self._open()
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from reader


def _cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _features(schema: pa.Schema) -> dict[str, object]:
    """Read the features that `datasets` keeps in a schema's metadata; none where it did not write it."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info.get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return features if isinstance(features, dict) else {}
