"""Predictions as files: Parquet, CSV, TSV or JSON Lines; on disk each appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from sst2_ray.errors import InputError, first_line
from sst2_ray.storage import RETRY_FOR_S, Storage

STDOUT = "-"
SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson")


class Writer(Protocol):
    """Sink of tables of one schema."""

    def write_table(self, table: pa.Table) -> None:
        """Append the rows of a table."""


class _JsonLines:
    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def write_table(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self._sink.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")


def name_of(output: str) -> str:
    """Return the last part of a path or URI, without the options of a URI."""
    return (unquote(output.partition("?")[0]) if "://" in output else output).rsplit("/", 1)[-1]


def folder_of(uri: str) -> Storage:
    """Open the folder that the file of a URI lies in. Raises InputError."""
    head, question, options = uri.partition("?")
    return Storage.open(f"{head.rpartition('/')[0]}{question}{options}", "--out")


@contextlib.contextmanager
def open_output(output: str, schema: pa.Schema, *, stdout_suffix: str = ".csv") -> Iterator[Writer]:
    """Open a file that stands under its name only when it is complete, or standard output for `-`.

    Args:
        output: Path or URI whose suffix says the format, or `-`.
        schema: Columns of the tables that will be written.
        stdout_suffix: Format on standard output.
    """
    if output == STDOUT:
        with _writer(sys.stdout.buffer, stdout_suffix, schema) as writer:
            yield writer
        sys.stdout.buffer.flush()
        return
    if "://" in output:
        with tempfile.TemporaryDirectory(prefix="sst2-ray-") as scratch:
            whole = Path(scratch) / name_of(output)
            with open_output(str(whole), schema) as writer:
                yield writer
            folder_of(output).with_retries(RETRY_FOR_S).upload(whole, name_of(output))
        return
    target = Path(output)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"
    try:
        with partial.open("wb") as sink, _writer(sink, target.suffix.lower(), schema) as writer:
            yield writer
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _writer(sink: BinaryIO, suffix: str, schema: pa.Schema) -> Iterator[Writer]:
    if suffix in (".jsonl", ".ndjson"):
        yield _JsonLines(sink)
    elif suffix in (".csv", ".tsv"):
        options = pacsv.WriteOptions(delimiter="," if suffix == ".csv" else "\t", quoting_style="needed")
        try:
            with pacsv.CSVWriter(sink, schema, write_options=options) as writer:
                yield writer
        except pa.ArrowInvalid as error:  # a list, or bytes that are no text
            raise InputError(
                f"--out: {suffix} cannot hold the input's columns ({first_line(error)}); write Parquet or JSON Lines"
            ) from None
    else:
        with pq.ParquetWriter(sink, schema) as writer:
            yield writer
