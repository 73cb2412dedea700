"""The results table: append records, read every record exactly once, whatever was interrupted.

`<storage>/results/{trials,epochs,predictions}/` hold immutable Parquet files, one per write. `compact` (compaction.py)
adds one deduplicated file per data set, `<storage>/results/snapshot/{trials,epochs,predictions}.parquet`.
"""

from __future__ import annotations

import datetime as dt
import os
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sst2_ray.errors import FailureClass, InputError, RunFailedError, did_you_mean
from sst2_ray.formatting import without_secret
from sst2_ray.records import EpochRecord, PredictionRecord, TrialRecord
from sst2_ray.results.store import files
from sst2_ray.results.store.dedup import ORDER_COLUMNS, deduplicate, latest_attempts, with_totals
from sst2_ray.results.store.schema import KEYS, arrow_schema
from sst2_ray.storage import Storage

Record = TrialRecord | EpochRecord | PredictionRecord
Attempts = Literal["all", "latest", "totals"]
_T = TypeVar("_T")

_READ_RETRIES = 20
_SNAPSHOT_RETRIES = 3


class SkippedFileWarning(UserWarning):
    """A file in the table's folders that was skipped, or read only as far as this version understands it."""


class _PrunedError(Exception):
    """A listed file that was compacted away before it was read: list again."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    table: pa.Table
    """Rows without duplicates."""
    sources: list[str]
    """Raw files that `table` holds completely."""
    newer_snapshot: bool


class ResultsTable:
    """The three data sets below one storage path, safe for any number of concurrent writers and readers."""

    def __init__(self, storage_path: str, *, retry_for_s: float = 0.0) -> None:
        """`storage_path`: a local folder or a URI; the table lies in its subfolder `results`. Nothing is created.

        retry_for_s: see Storage."""
        self.storage_path = storage_path
        self.storage: Storage = Storage.open(storage_path).with_retries(retry_for_s).child("results")
        # For messages: a URI may contain options and credentials.
        self.location = f"{without_secret(storage_path).split('?')[0].rstrip('/')}/results"

    @property
    def num_threads(self) -> int:
        """Threads for many small files: a local disk is limited by the CPU, an object store by its latency."""
        return min(8, os.cpu_count() or 1) if self.storage.is_local else 32

    def write(self, dataset: str, records: Sequence[Record]) -> str:
        """Add records as one new file that appears whole or not at all, and return its name.

        Raises:
            ValueError: there are no records.
            TypeError: records of another data set.
            RunFailedError: class storage_error; the file could not be written and nothing of it is visible.
        """
        if not records:
            raise ValueError(f"no {dataset} to write")
        return self.write_table(dataset, files.records_to_table(dataset, records))

    def write_table(self, dataset: str, table: pa.Table, *, replaces: Sequence[str] | None = None) -> str:
        """Add a table in the data set's schema as one new file, and return its name. `replaces`: see `files.encode`."""
        name = new_file_name()
        self.put(f"{dataset}/{name}", files.encode(dataset, table, replaces=replaces))
        return name

    def put(self, relative: str, data: pa.Buffer) -> None:
        """Write bytes to a path below the table's folder. Raises RunFailedError (class storage_error)."""
        try:
            self.storage.write_bytes(relative, data)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise RunFailedError(
                f"{self.location}/{relative}: cannot be written ({reason})", FailureClass.STORAGE_ERROR
            ) from error

    def exists(self) -> bool:
        """Return whether any data set has a file."""
        return any(files.entries(self.storage, folder) for folder in (*KEYS, "snapshot"))

    def read(
        self,
        dataset: str,
        *,
        columns: Sequence[str] | None = None,
        experiment: str | Collection[str] | None = None,
        trial_ids: Collection[str] | None = None,
        filter: pc.Expression | None = None,
        attempts: Attempts = "all",
    ) -> pa.Table:
        """Read every record exactly once, in the current schema.

        Files that are corrupt, truncated, foreign or of a newer schema are named in a SkippedFileWarning.

        Args:
            dataset: trials, epochs or predictions.
            columns: names to read; None: all of them.
            experiment, trial_ids: read only these, which also saves input.
            filter: a pyarrow expression over the columns read, applied after deduplication.
            attempts: "all": one record per key (`dedup.deduplicate`); "latest": also one history per trial
                (`dedup.latest_attempts`); "totals", of trials: also the time and cost of all attempts (`dedup.with_totals`).

        Returns:
            A table of the columns; empty when there is nothing.
        """
        names = list(columns) if columns is not None else arrow_schema(dataset).names
        needed = list(dict.fromkeys([*names, *KEYS[dataset], *ORDER_COLUMNS[dataset]]))
        where = _key_filter(experiment, trial_ids)
        table = _retry(lambda: self._read_once(dataset, needed, where), self.storage).table
        if attempts != "all":
            latest = latest_attempts(dataset, table)
            table = with_totals(latest, table) if attempts == "totals" else latest
        if filter is not None:
            table = table.filter(filter)
        return table.select(names).combine_chunks()

    def check_experiment(self, experiment: str) -> None:
        """Raise InputError, with the nearest names, when no trial belongs to the experiment."""
        names = set(self.read("trials", columns=["experiment"]).column("experiment").to_pylist())
        if experiment not in names:
            near = did_you_mean(experiment, names) if names else "the table has no trials"
            raise InputError(f"--experiment {experiment}: not in {self.location}; {near}")

    def read_with_sources(self, dataset: str) -> tuple[pa.Table, list[str]]:
        """Read every record exactly once, with the names of the raw files that hold them, for compaction.

        Files that were not read completely, including those of a newer schema, are not among the names. Raises InputError
        when the snapshot itself is of a newer schema: compacting it would drop its additional columns.
        """
        found = _retry(lambda: self._read_once(dataset, arrow_schema(dataset).names, None), self.storage)
        if found.newer_snapshot:
            raise InputError(
                f"{self.location}/snapshot/{dataset}.parquet: was written by a newer version; upgrade first"
            )
        return found.table, found.sources

    def read_small_files(self, dataset: str, *, below_bytes: int, at_least: int) -> tuple[pa.Table, list[str]] | None:
        """Read the records of all raw files that are small and in no snapshot, for merging.

        Returns:
            Their records, each once, and the names of the files that were read completely; None where there are fewer
            than `at_least`.
        """
        return _retry(lambda: self._read_small_once(dataset, below_bytes, at_least), self.storage)

    def _read_small_once(self, dataset: str, below_bytes: int, at_least: int) -> tuple[pa.Table, list[str]] | None:
        entries = [entry for entry in self._raw_files(dataset) if entry.num_bytes < below_bytes]
        if len(entries) < at_least:
            return None
        snapshot = self._open_snapshot(dataset)
        replaced = files.replaced_names(snapshot) if snapshot else frozenset()
        entries = [entry for entry in entries if entry.name not in replaced]
        if len(entries) < at_least:
            return None
        parts = list(self._read_raw(dataset, entries, arrow_schema(dataset).names, None))
        whole = [(name, part) for name, part in parts if name is not None]
        if not whole:
            return None
        return deduplicate(dataset, pa.concat_tables([part for _, part in whole])), [name for name, _ in whole]

    def records(self, dataset: str, **options: Any) -> list[Any]:
        """Read dataclass records; takes the options of `read` except `columns`."""
        return files.table_to_records(dataset, self.read(dataset, **options))

    def _read_once(self, dataset: str, columns: Sequence[str], where: pc.Expression | None) -> _Found:
        """Read all records of all files.

        Raw files are listed before the snapshot is opened: a file that is compacted away in between is either listed by
        that snapshot or missing when it is read, which starts the whole read again.
        """
        entries = self._raw_files(dataset)
        snapshot = self._open_snapshot(dataset)
        parts = []
        if snapshot is not None:
            try:
                parts.append(files.read_columns(dataset, snapshot, columns, where=where))
            except files.UnreadableFileError as error:  # raw files that were not pruned are still there
                self._warn(f"snapshot/{dataset}.parquet", str(error))
                snapshot = None
        replaced = files.replaced_names(snapshot) if snapshot else frozenset()
        sources = [entry.name for entry in entries if entry.name in replaced]
        for name, part in self._read_raw(dataset, [e for e in entries if e.name not in replaced], columns, where):
            parts.append(part)
            if name is not None:
                sources.append(name)
        if not parts:
            schema = arrow_schema(dataset)
            parts = [pa.schema([pa.field(name, schema.field(name).type) for name in columns]).empty_table()]
        table = pa.concat_tables(parts)
        if len(parts) > 1 or not snapshot:
            table = deduplicate(dataset, table)
        return _Found(
            table=table, sources=sorted(sources), newer_snapshot=snapshot is not None and files.is_newer(snapshot)
        )

    def _raw_files(self, dataset: str) -> list[files.Entry]:
        entries = []
        for entry in files.entries(self.storage, dataset):
            if entry.is_file and entry.name.endswith(".parquet"):
                entries.append(entry)
            else:
                self._warn(f"{dataset}/{entry.name}", "foreign: not a Parquet file" if entry.is_file else "a folder")
        return entries

    def _open_snapshot(self, dataset: str) -> pq.ParquetFile | None:
        relative = f"snapshot/{dataset}.parquet"
        for remaining in reversed(range(_SNAPSHOT_RETRIES)):
            try:
                file = files.open_file(dataset, files.open_stable(self.storage, relative))
            except FileNotFoundError:
                return None
            except files.UnreadableFileError as error:
                # An object may be replaced between asking for its size and fetching it.
                if not remaining:
                    self._warn(relative, str(error))
                continue
            if files.is_newer(file):
                self._warn(relative, _NEWER)
            return file
        return None

    def _read_raw(
        self, dataset: str, entries: Sequence[files.Entry], columns: Sequence[str], where: pc.Expression | None
    ) -> Iterable[tuple[str | None, pa.Table]]:
        """Yield each readable file's records, with its name when it was read completely and None otherwise."""

        def read_one(entry: files.Entry) -> tuple[pa.Table | None, str]:
            relative = f"{dataset}/{entry.name}"
            try:
                file = files.open_file(dataset, pa.BufferReader(files.read_buffer(self.storage, relative)))
                return files.read_columns(dataset, file, columns, where=where), _NEWER if files.is_newer(file) else ""
            except FileNotFoundError:
                raise _PrunedError(relative) from None
            except files.UnreadableFileError as error:
                return None, str(error)

        with ThreadPoolExecutor(self.num_threads) as pool:
            for entry, (part, note) in zip(entries, pool.map(read_one, entries), strict=True):
                if note:
                    self._warn(f"{dataset}/{entry.name}", note)
                if part is not None:
                    yield (None if note else entry.name), part

    def _warn(self, relative: str, reason: str) -> None:
        action = "read in part" if reason == _NEWER else "skipped"
        warnings.warn(f"{self.location}/{relative}: {action}, {reason}", SkippedFileWarning, stacklevel=4)


_NEWER = "its schema is newer than this package, which leaves out what it does not know; upgrade it"


def new_file_name(after: str | None = None) -> str:
    """Return a unique file name that sorts by the time of writing; `after`: a file's name, whose time it shares."""
    stamp = after.partition("-")[0] if after else dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return f"{stamp}-{uuid.uuid4().hex[:16]}.parquet"


def _key_filter(experiment: str | Collection[str] | None, trial_ids: Collection[str] | None) -> pc.Expression | None:
    where = None
    if experiment is not None:
        wanted = [experiment] if isinstance(experiment, str) else list(experiment)
        where = pc.field("experiment").isin(pa.array(wanted, pa.string()))
    if trial_ids is not None:
        trials = pc.field("trial_id").isin(pa.array(list(trial_ids), pa.string()))
        where = trials if where is None else where & trials
    return where


def _retry(read: Callable[[], _T], storage: Storage) -> _T:
    for _ in range(_READ_RETRIES):
        try:
            return storage.retry(read)
        except _PrunedError as error:
            pruned = error  # the next listing is newer
    raise RunFailedError(
        f"{pruned}: was pruned while it was being read, {_READ_RETRIES} times in a row", FailureClass.STORAGE_ERROR
    )
