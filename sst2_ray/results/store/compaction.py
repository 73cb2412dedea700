"""Compaction: one deduplicated file a data set instead of thousands, replaced atomically, without locks.

The snapshot names the files whose records it holds; the reader takes those records from the snapshot and all others from
their own files, so it does not matter who writes, reads or compacts at the same time. Pruning first puts what the snapshot
holds beside the raw files as one more immutable file, and deletes the others only then: should two compactions overtake
each other, the records that the older snapshot lacks still lie there.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from sst2_ray.results.store import files
from sst2_ray.results.store.schema import KEYS
from sst2_ray.results.store.table import ResultsTable, new_file_name

_LEFTOVER_AGE_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did to one data set."""

    dataset: str
    num_files: int
    """Raw files whose records the snapshot now holds."""
    num_rows: int
    snapshot: str
    """Where it lies."""
    num_bytes: int
    num_pruned: int
    """Raw files that were deleted."""


def compact(table: ResultsTable, dataset: str, *, prune: bool = False) -> Compacted | None:
    """Replace `snapshot/<dataset>.parquet` by one file with every record once, sorted by its key; None where there is
    nothing to compact. Files that cannot be read are left alone, and named in a SkippedFileWarning.

    prune: delete the raw files that the new snapshot names. Files that a writer adds meanwhile are never touched.
    Raises RunFailedError (class storage_error) where the storage cannot take the snapshot; nothing is lost then.
    Of a killed writer's unfinished files, which nobody reads, pruning removes those that are older than a day.
    """
    contents, names = table.read_with_sources(dataset)
    if not names and not contents.num_rows:
        return None
    contents = contents.take(pc.sort_indices(contents, sort_keys=[(key, "ascending") for key in KEYS[dataset]]))
    snapshot = f"snapshot/{dataset}.parquet"
    kept = names
    if prune:
        # The one file that stays; it is written before the snapshot names it and before anything is deleted.
        whole = new_file_name()
        table.put(f"{dataset}/{whole}", files.encode(dataset, contents, replaces=names))
        kept = [*names, whole]
    data = files.encode(dataset, contents, replaces=kept)
    table.put(snapshot, data)
    if prune:
        with ThreadPoolExecutor(table.num_threads) as pool:
            list(pool.map(lambda name: _delete(table, f"{dataset}/{name}"), names))
        _remove_leftovers(table, dataset)
    return Compacted(
        dataset=dataset,
        num_files=len(names),
        num_rows=contents.num_rows,
        snapshot=f"{table.location}/{snapshot}",
        num_bytes=data.size,
        num_pruned=len(names) if prune else 0,
    )


def _delete(table: ResultsTable, relative: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # another compaction was faster
        table.storage.delete(relative)


def _remove_leftovers(table: ResultsTable, dataset: str) -> None:
    if not table.storage.is_local:
        return
    for path in Path(table.storage.path(dataset)).glob(".*.partial"):
        try:
            if time.time() - path.stat().st_mtime > _LEFTOVER_AGE_S:
                path.unlink()
        except FileNotFoundError:
            continue  # its writer has just finished
