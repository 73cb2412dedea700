from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sst2_ray.errors import InputError
from sst2_ray.records import SCHEMA_VERSION
from sst2_ray.results.store import compaction, files
from sst2_ray.results.store.compaction import compact, merge_small_files
from sst2_ray.results.store.table import ResultsTable, SkippedFileWarning
from tests.support.records import at, epoch, trial


def raw(table: ResultsTable, dataset: str = "trials") -> set[str]:
    return {entry.name for entry in Path(table.storage.path(dataset)).iterdir()}


def snapshot(table: ResultsTable, dataset: str = "trials") -> Path:
    return Path(table.storage.path(f"snapshot/{dataset}.parquet"))


def trial_ids(table: ResultsTable) -> list[str]:
    return sorted(table.read("trials").column("trial_id").to_pylist())


def test_a_snapshot_holds_every_record_once(table: ResultsTable) -> None:
    table.write("trials", [trial("a", status="running"), trial("b", status="running")])
    table.write("trials", [trial("a", written_at=at(1))])
    done = compact(table, "trials")
    assert done is not None
    assert (done.num_files, done.num_rows, done.num_pruned) == (2, 2, 0)
    plain = pq.read_table(snapshot(table))
    assert dict(zip(plain["trial_id"].to_pylist(), plain["status"].to_pylist(), strict=True)) == {
        "a": "succeeded",
        "b": "running",
    }


def test_a_snapshot_explains_its_fields(table: ResultsTable) -> None:
    table.write("trials", [trial()])
    compact(table, "trials")
    assert pq.read_schema(snapshot(table)).field("batch_size").metadata[b"unit"] == b"examples"


def test_nothing_to_compact(table: ResultsTable) -> None:
    assert compact(table, "trials") is None
    assert not snapshot(table).exists()


def test_without_prune_the_raw_files_stay(table: ResultsTable) -> None:
    names = {table.write("trials", [trial("a")]), table.write("trials", [trial("b")])}
    compact(table, "trials")
    assert raw(table) == names
    assert trial_ids(table) == ["a", "b"]


def test_prune_leaves_one_raw_file_with_everything(table: ResultsTable) -> None:
    for name in "abc":
        table.write("trials", [trial(name)])
    compact(table, "trials", prune=True)
    assert len(raw(table)) == 1
    assert trial_ids(table) == ["a", "b", "c"]
    snapshot(table).unlink()
    assert trial_ids(table) == ["a", "b", "c"]


def test_what_is_written_after_a_compaction_is_read_beside_it(table: ResultsTable) -> None:
    table.write("trials", [trial("a", status="running")])
    compact(table, "trials", prune=True)
    table.write("trials", [trial("a", written_at=at(2))])
    table.write("trials", [trial("b")])
    assert trial_ids(table) == ["a", "b"]
    assert table.read("trials", trial_ids=["a"]).column("status").to_pylist() == ["succeeded"]


def test_prune_never_deletes_what_it_could_not_read(table: ResultsTable) -> None:
    table.write("trials", [trial("a")])
    Path(table.storage.path("trials/broken.parquet")).write_bytes(b"PAR1")
    with pytest.warns(SkippedFileWarning, match="broken.parquet"):
        compact(table, "trials", prune=True)
    assert "broken.parquet" in raw(table)


def test_a_file_of_a_newer_schema_is_not_pruned(table: ResultsTable) -> None:
    newer = files.records_to_table("trials", [trial("newer")])
    metadata = {files.DATASET_KEY: b"trials", files.VERSION_KEY: str(SCHEMA_VERSION + 1).encode()}
    table.write("trials", [trial("a")])
    pq.write_table(newer.replace_schema_metadata(metadata), table.storage.path("trials/newer.parquet"))
    with pytest.warns(SkippedFileWarning, match="newer"):
        compact(table, "trials", prune=True)
    assert "newer.parquet" in raw(table)
    with pytest.warns(SkippedFileWarning, match="newer"):
        assert trial_ids(table) == ["a", "newer"]


def test_a_snapshot_of_a_newer_schema_is_not_overwritten(table: ResultsTable) -> None:
    table.write("trials", [trial("a")])
    compact(table, "trials")
    plain = pq.read_table(snapshot(table))
    metadata = {**plain.schema.metadata, files.VERSION_KEY: str(SCHEMA_VERSION + 1).encode()}
    pq.write_table(plain.replace_schema_metadata(metadata), snapshot(table))
    before = snapshot(table).read_bytes()
    with pytest.warns(SkippedFileWarning), pytest.raises(InputError, match="upgrade"):
        compact(table, "trials")
    assert snapshot(table).read_bytes() == before


def test_a_corrupt_snapshot_costs_nothing(table: ResultsTable) -> None:
    table.write("trials", [trial("a")])
    table.write("trials", [trial("b")])
    compact(table, "trials", prune=True)
    snapshot(table).write_bytes(snapshot(table).read_bytes()[:100])
    with pytest.warns(SkippedFileWarning, match="snapshot/trials.parquet: skipped"):
        assert trial_ids(table) == ["a", "b"]


def test_a_flipped_byte_in_a_snapshot_costs_nothing(table: ResultsTable) -> None:
    table.write("trials", [trial("a")])
    table.write("trials", [trial("b")])
    compact(table, "trials")
    damaged = bytearray(snapshot(table).read_bytes())
    damaged[40] ^= 0xFF  # inside a page: the footer is whole
    snapshot(table).write_bytes(damaged)
    with pytest.warns(SkippedFileWarning, match="snapshot/trials.parquet: skipped"):
        assert trial_ids(table) == ["a", "b"]


def test_a_compaction_that_was_overtaken_loses_nothing(table: ResultsTable) -> None:
    """A reads, B reads more, writes its snapshot and prunes; A then replaces B's snapshot by its older one."""
    table.write("trials", [trial("a")])
    contents, names = table.read_with_sources("trials")
    table.write("trials", [trial("b")])
    compact(table, "trials", prune=True)
    table.put("snapshot/trials.parquet", files.encode("trials", contents, replaces=names))
    assert trial_ids(table) == ["a", "b"]
    compact(table, "trials", prune=True)
    assert pq.read_table(snapshot(table))["trial_id"].to_pylist() == ["a", "b"]


def test_a_prune_that_was_killed_after_its_first_file_loses_nothing(table: ResultsTable) -> None:
    for name in "ab":
        table.write("trials", [trial(name)])
    contents, names = table.read_with_sources("trials")
    table.write_table("trials", contents, replaces=names)
    assert trial_ids(table) == ["a", "b"]
    table.storage.delete(f"trials/{names[0]}")
    assert trial_ids(table) == ["a", "b"]


def test_prune_removes_what_killed_writers_left_only_when_it_is_old(table: ResultsTable) -> None:
    table.write("trials", [trial()])
    old, young = (Path(table.storage.path(f"trials/.{name}.partial")) for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 48 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    compact(table, "trials", prune=True)
    assert not old.exists()
    assert young.exists()


@pytest.fixture
def merge_at_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MERGE_AT", 3)


@pytest.mark.usefixtures("merge_at_three")
def test_many_small_files_become_one_that_says_the_same(table: ResultsTable) -> None:
    for name in ("a", "b", "c"):
        table.write("trials", [trial(name, status="running")])
    table.write("trials", [trial("a", written_at=at(1))])
    before = table.read("trials").sort_by("trial_id")
    assert merge_small_files(table) == 4
    assert len(raw(table)) == 1
    assert table.read("trials").sort_by("trial_id").equals(before)


@pytest.mark.usefixtures("merge_at_three")
def test_few_small_files_and_those_of_a_snapshot_are_left(table: ResultsTable) -> None:
    names = {table.write("trials", [trial(name)]) for name in "abc"}
    compact(table, "trials")
    names |= {table.write("trials", [trial(name)]) for name in "de"}
    assert merge_small_files(table) == 0
    assert raw(table) == names


@pytest.mark.usefixtures("merge_at_three")
def test_a_merged_file_sorts_where_the_newest_of_its_parts_did(table: ResultsTable) -> None:
    names = [table.write("epochs", [epoch(step)]) for step in range(1, 4)]
    merge_small_files(table)
    later = table.write("epochs", [epoch(4)])
    (merged,) = raw(table, "epochs") - {later}
    assert names[0] < merged < later


@pytest.mark.usefixtures("merge_at_three")
def test_a_merge_never_deletes_what_it_could_not_read(table: ResultsTable) -> None:
    for step in range(1, 5):
        table.write("epochs", [epoch(step)])
    damaged = Path(table.storage.path("epochs/0.parquet"))
    damaged.write_bytes(b"PAR1 cut off")
    with pytest.warns(SkippedFileWarning):
        assert merge_small_files(table) == 4
    assert damaged.exists()


@pytest.mark.usefixtures("merge_at_three")
def test_a_merge_that_was_killed_before_it_deleted_loses_and_doubles_nothing(
    table: ResultsTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 5):
        table.write("epochs", [epoch(step)])
    monkeypatch.setattr(compaction, "_delete_all", lambda *_: None)
    merge_small_files(table)
    assert sorted(table.read("epochs").column("global_step").to_pylist()) == [1, 2, 3, 4]


@pytest.mark.usefixtures("merge_at_three")
def test_readers_see_every_record_once_while_others_write_merge_compact_and_prune(table: ResultsTable) -> None:
    written: list[int] = []
    errors: list[str] = []
    stop = threading.Event()

    def write() -> None:
        mine = ResultsTable(table.storage_path)
        for step in range(1, 61):
            mine.write("epochs", [epoch(step)])
            written.append(step)

    def tidy() -> None:
        mine = ResultsTable(table.storage_path)
        while not stop.is_set():
            compact(mine, "epochs", prune=True)

    def merge() -> None:
        mine = ResultsTable(table.storage_path)
        while not stop.is_set():
            merge_small_files(mine)

    def read() -> None:
        mine = ResultsTable(table.storage_path)
        while not stop.is_set():
            must_be_there = set(written)
            steps = mine.read("epochs", columns=["global_step"]).column("global_step").to_pylist()
            if len(steps) != len(set(steps)):
                errors.append(f"twice: {sorted(steps)}")
            if not must_be_there <= set(steps):
                errors.append(f"missing: {sorted(must_be_there - set(steps))}")

    others = [threading.Thread(target=target) for target in (tidy, merge, merge, read, read)]
    writer = threading.Thread(target=write)
    for thread in (writer, *others):
        thread.start()
    writer.join()
    stop.set()
    for thread in others:
        thread.join()
    assert not errors
    assert sorted(table.read("epochs").column("global_step").to_pylist()) == list(range(1, 61))
