"""One Parquet file of the results table: how records become its bytes, and how any version of it is read again."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sst2_ray.records import SCHEMA_VERSION
from sst2_ray.results.store.schema import KEYS, RECORDS, arrow_schema

DATASET_KEY = b"sst2_ray.dataset"
VERSION_KEY = b"sst2_ray.schema_version"
REPLACES_KEY = b"sst2_ray.replaces"
"""JSON list of the file names whose records a compacted file holds."""

_SMALL_ROWS = 1000


class UnreadableFileError(Exception):
    """A file that is not, or not wholly, a file of the data set; the message says why."""


def records_to_table(dataset: str, records: Sequence[Any]) -> pa.Table:
    """A table in the data set's schema, one row a record. Raises TypeError for records of another data set and
    ValueError for a time without a time zone (it would silently be taken for UTC)."""
    record_type = RECORDS[dataset]
    for record in records:
        if type(record) is not record_type:
            raise TypeError(f"{dataset} holds {record_type.__name__}, not {type(record).__name__}")
    columns = []
    schema = arrow_schema(dataset)
    for field in schema:
        values = [getattr(record, field.name) for record in records]
        for value in values:
            if isinstance(value, dt.datetime) and value.tzinfo is None:
                raise ValueError(f"{field.name} {value.isoformat()}: has no time zone")
        columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def table_to_records(dataset: str, table: pa.Table) -> list[Any]:
    """The dataclass records of a table that has all columns of the data set."""
    record_type = RECORDS[dataset]
    names = [f.name for f in dataclasses.fields(record_type)]
    return [record_type(**row) for row in table.select(names).to_pylist()]


def encode(dataset: str, table: pa.Table, *, replaces: Sequence[str] | None = None) -> pa.Buffer:
    """The bytes of one Parquet file. `replaces` marks a compacted file and says what it stands for; such a file also
    carries the description of every field. Raises ValueError for a null in a field that must have a value."""
    schema = arrow_schema(dataset)
    metadata = dict(schema.metadata)
    if replaces is not None:
        metadata[REPLACES_KEY] = json.dumps(list(replaces)).encode()
    small = table.num_rows < _SMALL_ROWS
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        schema,
        compression="snappy" if small else "zstd",
        # Dictionaries, statistics and the arrow schema with its descriptions would make up most of a small file.
        use_dictionary=not small,
        write_statistics=not small,
        store_schema=replaces is not None,
        write_page_checksum=True,
    )
    with writer:
        writer.write_table(table.select(schema.names).cast(schema), row_group_size=65_536)
        writer.add_key_value_metadata(metadata)
    return sink.getvalue()


def open_file(dataset: str, source: pa.NativeFile) -> pq.ParquetFile:
    """Open a Parquet file and make sure that it belongs to the data set. Raises UnreadableFileError."""
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, memory_map=False)
        metadata = file.metadata.metadata or {}
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFileError(f"corrupt or truncated: {_first_line(error)}") from None
    found = metadata.get(DATASET_KEY)
    if found is None:
        raise UnreadableFileError("foreign: a Parquet file that this package did not write")
    if found.decode() != dataset:
        raise UnreadableFileError(f"foreign: a file of the data set {found.decode()!r}")
    missing = [name for name in KEYS[dataset] if name not in names]
    if missing:
        raise UnreadableFileError(f"foreign: no column {', '.join(missing)}")
    return file


def schema_version(file: pq.ParquetFile) -> int:
    """Version of the schema that wrote the file."""
    return int(file.metadata.metadata.get(VERSION_KEY, b"0"))


def is_newer(file: pq.ParquetFile) -> bool:
    """The file was written by a later version of this package: what it has and we do not know is left out."""
    return schema_version(file) > SCHEMA_VERSION


def replaced_names(file: pq.ParquetFile) -> frozenset[str]:
    """Names of the files whose records a compacted file holds; empty for any other."""
    return frozenset(json.loads(file.metadata.metadata.get(REPLACES_KEY, b"[]")))


def read_columns(
    dataset: str, file: pq.ParquetFile, columns: Sequence[str], *, where: pc.Expression | None = None
) -> pa.Table:
    """Some columns of a file in today's schema: columns that its version lacks are null, narrower types are widened.

    Columns are only ever added to the schemas, which is what keeps old files readable. `where` may name key columns
    only; rows that do not match it are left out. Raises UnreadableFileError.
    """
    schema = arrow_schema(dataset)
    file_schema = file.schema_arrow
    present = [name for name in columns if name in file_schema.names]
    try:
        raw = (
            file.read(columns=present, use_threads=False)
            if where is None
            else _read_matching(file, present, where, KEYS[dataset])
        )
        arrays = []
        for name in columns:
            field = schema.field(name)
            if name not in raw.column_names:
                arrays.append(pa.chunked_array([pa.nulls(raw.num_rows, field.type)]))
                continue
            column = raw.column(name)
            arrays.append(column if column.type == field.type else column.cast(field.type))
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"corrupt: {_first_line(error)}") from None
    return pa.Table.from_arrays(arrays, names=list(columns))


def _read_matching(file: pq.ParquetFile, columns: list[str], where: pc.Expression, keys: Sequence[str]) -> pa.Table:
    """Read row group by row group, the other columns only of groups that have a matching row."""
    key_columns = [name for name in keys if name in file.schema_arrow.names]
    parts = []
    for group in range(file.num_row_groups):
        found = file.read_row_group(group, columns=key_columns, use_threads=False)
        if found.filter(where).num_rows:
            wanted = file.read_row_group(group, columns=sorted({*columns, *key_columns}), use_threads=False)
            parts.append(wanted.filter(where).select(columns))
    return pa.concat_tables(parts) if parts else file.schema_arrow.empty_table().select(columns)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
