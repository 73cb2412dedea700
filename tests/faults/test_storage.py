"""Disks that fill up and object stores that go away: the run says so in time, and goes on from its last checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from tests.support.disks import mounted
from tests.support.faults import TinyRun, pause_at
from tests.support.object_store import BUCKET, ObjectStore
from tests.support.waiting import waited

START_S, END_S = 180, 240
"""Seconds until a run reaches its fault, and until it has ended, on a machine that others use as well."""


def only_whole_checkpoints(run: Storage, scratch: Path) -> int:
    """The step of the newest one, which can be loaded; nothing half-written lies beside."""
    said: list[str] = []
    saved = ckpt.newest_valid(run, scratch, said.append)
    assert saved is not None
    assert said == []
    folders = [Path(ckpt.step_folder(step)).name for step in ckpt.committed_steps(run)]
    for name in run.list(ckpt.CHECKPOINT_FOLDER):
        assert name in folders or run.list(f"{ckpt.CHECKPOINT_FOLDER}/{name}") == []
    return saved.global_step


def test_a_full_disk_ends_the_run_at_once_and_the_same_command_goes_on_when_there_is_room(undisturbed, tmp_path):
    """First where checkpoints are written, then where the results are."""
    storage = tmp_path / "runs"
    run = TinyRun(undisturbed.folder, "full", storage_path=storage)
    marks = [tmp_path / "mark-0", tmp_path / "mark-1"]
    faults = [*pause_at(25, marks[0]), *pause_at(55, marks[1], attempt=1)]
    with mounted(storage, kib=32 << 10) as disk, mounted(storage / "results", kib=256) as results_disk:
        for full, mark, newest in ((disk, marks[0], {20}), (results_disk, marks[1], {50, 60})):
            with run.running(faults) as process:
                waited(mark.exists, "the step at which the disk fills up", START_S)
                full.fill()
                begin = time.monotonic()
                output, _ = process.communicate(timeout=END_S)
            print(f"ended {time.monotonic() - begin:.1f} s after the disk was full")
            assert process.returncode == 4, output
            assert "failed (storage_error)" in output
            assert "No space left on device" in output
            assert time.monotonic() - begin < 60  # waiting would not make room
            assert only_whole_checkpoints(Storage.open(str(run.run_folder)), tmp_path) in newest
            if full is disk:
                refused = run.run()
                assert (refused.code, "cannot be written" in refused.output) == (2, True), refused.output
            full.make_room()
        ended = run.run()
        assert ended.code == 0, ended.output
        assert [(row["status"], row["failure_class"]) for row in run.attempts()] == [
            ("failed", "storage_error"),
            ("lost", "worker_lost"),  # there was no room to say what it failed of
            ("succeeded", None),
        ]
        assert run.digest() == undisturbed.digest()
        assert run.curve() == undisturbed.curve()


@pytest.fixture
def bucket(monkeypatch):
    store = ObjectStore()
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    yield store
    store.stop()


def copied(uri: str, folder: Path) -> Path:
    source, path = pafs.FileSystem.from_uri(uri)
    folder.mkdir()
    pafs.copy_files(path, str(folder), source_filesystem=source, destination_filesystem=pafs.LocalFileSystem())
    return folder


@pytest.mark.slow
def test_an_object_store_is_waited_for_and_where_it_stays_away_the_run_ends(undisturbed, tmp_path, bucket: ObjectStore):
    """Away for 30 s, which costs nothing but them; then for good."""
    uri, timeout_s = f"s3://{BUCKET}/runs", 60
    run = TinyRun(undisturbed.folder, "away", storage_path=uri, storage_timeout_s=timeout_s)
    marks = [tmp_path / "mark-0", tmp_path / "mark-1"]
    with run.running([*pause_at(25, marks[0]), *pause_at(75, marks[1])]) as process:
        waited(marks[0].exists, "step 25", START_S)
        bucket.stop()
        time.sleep(30)
        bucket.start()
        waited(marks[1].exists, "step 75, after the outage", START_S)
        bucket.stop()
        begin = time.monotonic()
        output, _ = process.communicate(timeout=timeout_s + END_S)
    print(f"ended {time.monotonic() - begin:.1f} s after the store had gone")
    assert process.returncode == 4, output
    assert "failed (storage_error)" in output
    assert time.monotonic() - begin < timeout_s + 90
    bucket.start()
    assert only_whole_checkpoints(Storage.open(f"{uri}/away"), tmp_path) == 70
    ended = run.run()
    assert ended.code == 0, ended.output
    assert "going on from the checkpoint at step 70" in ended.output
    here = TinyRun(undisturbed.folder, "away", storage_path=copied(uri, tmp_path / "copy"))
    assert [row["status"] for row in here.attempts()] == ["lost", "succeeded"]
    assert here.digest() == undisturbed.digest()
    assert here.curve() == undisturbed.curve()
