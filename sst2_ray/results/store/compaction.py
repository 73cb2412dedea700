"""Compaction: one deduplicated file per data set instead of thousands, replaced atomically, without locks.

The snapshot lists the files whose records it holds. A reader takes those records from the snapshot and all others from
their own files, so writers, readers and compactions may run at the same time. Pruning first writes the snapshot's content
as one more raw file and deletes the others only then: if two compactions overtake each other, the records that the older
snapshot lacks are still in that file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from sst2_ray.results.store import files
from sst2_ray.results.store.schema import KEYS
from sst2_ray.results.store.table import ResultsTable, new_file_name

_LEFTOVER_AGE_S = 24 * 3600

MERGE_AT = 256
"""Small files of a data set that a run or a sweep merges when it ends: a reader opens hundreds, not tens of thousands."""

_SMALL_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """Outcome of compacting one data set."""

    dataset: str
    num_files: int
    """Raw files whose records are in the snapshot."""
    num_rows: int
    snapshot: str
    """Location of the snapshot."""
    num_bytes: int
    num_pruned: int
    """Raw files deleted."""


def compact(table: ResultsTable, dataset: str, *, prune: bool = False) -> Compacted | None:
    """Replace `snapshot/<dataset>.parquet` with one file that holds every record once, sorted by its key.

    Files that cannot be read stay where they are and are named in a SkippedFileWarning.

    Args:
        prune: delete the raw files that the new snapshot lists, and unfinished files of killed writers that are older
            than a day. Files added in the meantime are never touched.

    Returns:
        What was done, or None when there is nothing to compact.

    Raises:
        RunFailedError: class storage_error; the snapshot could not be written, and nothing was deleted.
    """
    contents, names = table.read_with_sources(dataset)
    if not names and not contents.num_rows:
        return None
    contents = contents.take(pc.sort_indices(contents, sort_keys=[(key, "ascending") for key in KEYS[dataset]]))
    snapshot = f"snapshot/{dataset}.parquet"
    kept = names
    if prune:
        # Written before the snapshot lists it and before anything is deleted.
        whole = new_file_name()
        table.put(f"{dataset}/{whole}", files.encode(dataset, contents, replaces=names))
        kept = [*names, whole]
    data = files.encode(dataset, contents, replaces=kept)
    table.put(snapshot, data)
    if prune:
        _delete_all(table, dataset, names)
        _remove_leftovers(table, dataset)
    return Compacted(
        dataset=dataset,
        num_files=len(names),
        num_rows=contents.num_rows,
        snapshot=f"{table.location}/{snapshot}",
        num_bytes=data.size,
        num_pruned=len(names) if prune else 0,
    )


def merge_small_files(table: ResultsTable) -> int:
    """Merge the small raw files of each data set that has at least `MERGE_AT` of them into one.

    Safe beside any number of writers, readers and compactions: the merged file is whole before the others are deleted, and
    whoever reads in between reads some records twice, which deduplication drops.

    Returns:
        Files that were merged.

    Raises:
        RunFailedError: class storage_error; a merged file could not be written, and nothing was deleted.
    """
    num_merged = 0
    for dataset in KEYS:
        found = table.read_small_files(dataset, below_bytes=_SMALL_BYTES, at_least=MERGE_AT)
        if found is None:
            continue
        contents, names = found
        # It sorts where the newest of them did: among equal records the one in the later file counts.
        table.put(f"{dataset}/{new_file_name(after=max(names))}", files.encode(dataset, contents))
        _delete_all(table, dataset, names)
        num_merged += len(names)
    return num_merged


def _delete_all(table: ResultsTable, dataset: str, names: Sequence[str]) -> None:
    with ThreadPoolExecutor(table.num_threads) as pool:
        list(pool.map(lambda name: _delete(table, f"{dataset}/{name}"), names))


def _delete(table: ResultsTable, relative: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # another compaction deleted it first
        table.storage.delete(relative)


def _remove_leftovers(table: ResultsTable, dataset: str) -> None:
    if not table.storage.is_local:
        return
    for path in Path(table.storage.path(dataset)).glob(".*.partial"):
        try:
            if time.time() - path.stat().st_mtime > _LEFTOVER_AGE_S:
                path.unlink()
        except FileNotFoundError:
            continue  # its writer finished in the meantime
