"""Files of the results table: how records become Parquet bytes, and how every version of them is listed and read."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from sst2_ray.records import SCHEMA_VERSION
from sst2_ray.results.store.schema import KEYS, RECORDS, arrow_schema
from sst2_ray.storage import Storage

DATASET_KEY = b"sst2_ray.dataset"
VERSION_KEY = b"sst2_ray.schema_version"
REPLACES_KEY = b"sst2_ray.replaces"
"""JSON list of the file names whose records a compacted file holds."""

_SMALL_ROWS = 1000


class UnreadableFileError(Exception):
    """A file that does not belong to the data set or is damaged; the message says why."""


def records_to_table(dataset: str, records: Sequence[object]) -> pa.Table:
    """Convert records to a table in the data set's schema, one row per record.

    Raises TypeError for records of another data set and ValueError for a time without a time zone, which would silently be
    taken for UTC.
    """
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
    """Convert a table with all columns of the data set to its dataclass records."""
    record_type = RECORDS[dataset]
    names = [f.name for f in dataclasses.fields(record_type)]
    return [record_type(**row) for row in table.select(names).to_pylist()]


def encode(dataset: str, table: pa.Table, *, replaces: Sequence[str] | None = None) -> pa.Buffer:
    """Encode a table as one Parquet file.

    `replaces` marks a compacted file and lists the files it stands for; such a file also carries the description of every
    field. Raises ValueError for a null in a field that must have a value.
    """
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
    """Open a Parquet file and check that it belongs to the data set. Raises UnreadableFileError."""
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
    """Return the version of the schema that wrote the file."""
    return int(file.metadata.metadata.get(VERSION_KEY, b"0"))


def is_newer(file: pq.ParquetFile) -> bool:
    """Return whether a later version of this package wrote the file; its unknown columns are not read."""
    return schema_version(file) > SCHEMA_VERSION


def replaced_names(file: pq.ParquetFile) -> frozenset[str]:
    """Return the names of the files whose records a compacted file holds; empty for any other file."""
    return frozenset(json.loads(file.metadata.metadata.get(REPLACES_KEY, b"[]")))


def read_columns(
    dataset: str, file: pq.ParquetFile, columns: Sequence[str], *, where: pc.Expression | None = None
) -> pa.Table:
    """Read columns of a file in the current schema: columns that its version lacks are null, narrower types are widened.

    Columns are only ever added to the schemas, so old files stay readable. `where` may use key columns only. Raises
    UnreadableFileError.
    """
    schema, found = arrow_schema(dataset), frozenset(file.schema_arrow.names)
    present = [name for name in columns if name in found]
    try:
        raw = (
            file.read(columns=present, use_threads=False)
            if where is None
            else _read_matching(file, present, where, KEYS[dataset])
        )
        arrays = []
        for name in columns:
            field = schema.field(name)
            if name not in found:
                arrays.append(pa.chunked_array([pa.nulls(raw.num_rows, field.type)]))
                continue
            column = raw.column(name)
            arrays.append(column if column.type == field.type else column.cast(field.type))
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"corrupt: {_first_line(error)}") from None
    return pa.Table.from_arrays(arrays, names=list(columns))


def _read_matching(file: pq.ParquetFile, columns: list[str], where: pc.Expression, keys: Sequence[str]) -> pa.Table:
    """Read the other columns only of row groups that have a matching row."""
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


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or folder in a folder of the table."""

    name: str
    num_bytes: int
    is_file: bool


def entries(storage: Storage, folder: str) -> list[Entry]:
    """List a folder by name, without hidden entries (unfinished files are hidden); empty when it does not exist."""
    selector = pafs.FileSelector(storage.path(folder), allow_not_found=True)
    found = [
        Entry(name=info.base_name, num_bytes=info.size or 0, is_file=info.type == pafs.FileType.File)
        for info in storage.filesystem.get_file_info(selector)
        if info.base_name and not info.base_name.startswith((".", "_"))
    ]
    return sorted(found, key=lambda entry: entry.name)


def read_buffer(storage: Storage, relative: str) -> pa.Buffer:
    """Read a whole file. Raises FileNotFoundError."""
    with storage.filesystem.open_input_file(storage.path(relative)) as stream:
        return stream.read_buffer(stream.size())


def open_stable(storage: Storage, relative: str) -> pa.NativeFile:
    """Open a file that may be replaced while it is being read. Raises FileNotFoundError.

    An open local file does not change. From an object store the file is fetched in one request: fetching its parts one by
    one could mix two versions.
    """
    if storage.is_local:
        return pa.memory_map(storage.path(relative))
    return pa.BufferReader(read_buffer(storage, relative))
