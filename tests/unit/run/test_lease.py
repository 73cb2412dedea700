"""Tests of who runs a run: a second driver is refused while the first one lives, and goes on at once where it was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sst2_ray.cli import run
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError, StoppedError
from sst2_ray.run import lease as lease_module
from sst2_ray.run import train
from sst2_ray.run.lease import LEASE_FILE, Driver, Lease
from sst2_ray.run.session import RunSession
from sst2_ray.run.stop import StopLevel, StopRequests
from sst2_ray.storage import Storage
from tests.support.object_store import BUCKET, object_store_here
from tests.support.waiting import waited

DRIVER = """
import sys
from sst2_ray.run.lease import Lease
from sst2_ray.storage import Storage
with Lease(Storage.open(sys.argv[1]), "first"):
    print("runs", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other_driver(storage: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that runs `first` until its stdin is closed."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(storage)], stdin=pipe, stdout=pipe, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "runs\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def lease(tmp_path: Path) -> Lease:
    return Lease(Storage.open(str(tmp_path)), "first")


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., Path]:
    """Write what another driver of `first` says of itself."""
    path = tmp_path / "first" / LEASE_FILE

    def say(**values: Any) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**asdict(Driver.here()), **values}))
        return path

    return say


def test_a_second_driver_is_refused_in_one_line_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with other_driver(tmp_path) as process:
        assert run("train", ["--storage-path", str(tmp_path), "--name", "first"]) == 2
    err = capsys.readouterr().err
    assert f"--name first: process {process.pid} on " in err and "`sst2-ray stop first`" in err
    assert err.count("\n") == 1


def test_the_run_is_free_when_its_driver_has_ended(tmp_path: Path, lease: Lease) -> None:
    with other_driver(tmp_path) as process:
        process.communicate()
        assert not (tmp_path / "first" / LEASE_FILE).exists()
    with lease:
        assert (tmp_path / "first" / LEASE_FILE).exists()
    assert not (tmp_path / "first" / LEASE_FILE).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a driver that was killed is waited for")
def test_a_driver_killed_on_this_machine_is_not_waited_for(tmp_path: Path, lease: Lease) -> None:
    with other_driver(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        waited(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z", "its end", 10)
        with lease:  # though nobody has asked for its exit code: a zombie
            assert json.loads((tmp_path / "first" / LEASE_FILE).read_text())["pid"] == os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a driver that was killed is waited for")
def test_a_process_id_that_is_used_again_is_another_process(lease: Lease, said: Callable[..., Path]) -> None:
    mine = lease_module._process_started(os.getppid())
    said(pid=os.getppid(), process_started=mine)
    with pytest.raises(InputError, match=f"process {os.getppid()} on"):
        lease.check()
    said(pid=os.getppid(), process_started="1")
    lease.check()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch leases for tenths of a second."""
    for name, seconds in (("WATCH_S", 0.2), ("DEAD_AFTER_S", 0.6), ("_POLL_S", 0.02)):
        monkeypatch.setattr(lease_module, name, seconds)


ELSEWHERE = [{"host": "elsewhere"}, {"machine": "another container"}]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("since", ["2020-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
def test_a_driver_on_another_machine_lives_if_its_lease_changes_whatever_its_clock_says(
    lease: Lease, said: Callable[..., Path], elsewhere: dict[str, str], since: str
) -> None:
    said(owner="other", since=since, **elsewhere)
    beats = threading.Timer(0.1, lambda: said(owner="other", since=since, beat=1, **elsewhere))
    beats.start()
    with pytest.raises(InputError, match="wait for its end"):
        lease.check()


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("since", ["2020-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
def test_a_driver_on_another_machine_is_dead_if_its_lease_stays_the_same(
    lease: Lease, said: Callable[..., Path], elsewhere: dict[str, str], since: str
) -> None:
    said(since=since, **elsewhere)
    lines: list[str] = []
    lease._announce = lines.append
    begin = time.monotonic()
    lease.check()
    assert 0.2 <= time.monotonic() - begin < 0.6
    with lease:
        assert time.monotonic() - begin >= 0.6
    (line,) = lines
    assert f"process {os.getpid()} on" in line and "may run first: watching" in line


def test_what_an_earlier_run_of_this_process_could_not_delete_is_no_driver(
    lease: Lease, said: Callable[..., Path]
) -> None:
    said()
    lease.check()


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
def test_a_damaged_file_is_no_driver(lease: Lease, said: Callable[..., Path], damage: str) -> None:
    said().write_text(damage)
    with lease:
        pass


def test_a_driver_says_that_it_lives_and_learns_that_another_has_taken_over(
    tmp_path: Path, lease: Lease, said: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "FIRST_BEAT_S", 0.01)
    monkeypatch.setattr(lease_module, "BEAT_S", 0.01)
    path = tmp_path / "first" / LEASE_FILE
    with lease:
        before = path.read_text()
        waited(lambda: path.read_text() != before, "the next beat", 10)
        assert lease.taken_by is None
        # Its own beat may be under way, and would be written over what is said here.
        waited(lambda: said(host="elsewhere", pid=7) and lease.taken_by, "that it is known", 10)
        assert lease.taken_by == "process 7 on elsewhere"
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_an_object_store_does_as_well_as_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store_here():
        storage = Storage.open(f"s3://{BUCKET}/runs")
        monkeypatch.setattr(lease_module, "FIRST_BEAT_S", 0.05)
        monkeypatch.setattr(lease_module, "BEAT_S", 0.1)
        with Lease(storage, "first") as first:
            monkeypatch.setattr(lease_module, "_machine", lambda: "another container")
            with pytest.raises(InputError, match="wait for its end"), Lease(storage, "first"):
                pass
            assert first.taken_by is None
        with Lease(storage, "first"):
            pass


def test_a_session_whose_run_another_driver_has_taken_over_stops_at_once(tmp_path: Path) -> None:
    session = RunSession(TrainConfig(storage_path=str(tmp_path)), "first", quiet=True)
    assert session.stop.level() is StopLevel.NONE
    session.lease.taken_by = "process 7 on elsewhere"
    assert session.stop.level() is StopLevel.AT_ONCE


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_a_single_run_is_held_while_its_trial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_taken_over: bool
) -> None:
    """No Ray is needed: everything but session and lease is a stand-in."""

    class HeldTrial:
        def __init__(self, *_: Any, stop: StopRequests, **__: Any) -> None:
            self.stop = stop

        def run(self) -> SimpleNamespace:
            assert (tmp_path / "first" / LEASE_FILE).exists()
            if is_taken_over:
                session.lease.taken_by = "process 7 on elsewhere"
            assert (self.stop.level() is StopLevel.AT_ONCE) is is_taken_over
            return SimpleNamespace(status="stopped", last_global_step=12)

    config = TrainConfig(storage_path=str(tmp_path), name="first")
    session = RunSession(config, "first", quiet=True)
    shared = SimpleNamespace(inputs=SimpleNamespace(config=config))
    monkeypatch.setattr(train, "Shared", SimpleNamespace(put=lambda *_: shared))
    monkeypatch.setattr(train, "RunSession", lambda *_, **__: session)
    monkeypatch.setattr(session, "start", lambda *_: (None, None))
    inputs = SimpleNamespace(with_tokens=lambda _: SimpleNamespace(notes=list))
    monkeypatch.setattr(train, "check", lambda *_: inputs)
    monkeypatch.setattr(train, "decide", lambda *_: SimpleNamespace(can_scale=False))
    monkeypatch.setattr(train, "check_run", lambda *_: None)
    monkeypatch.setattr(train, "run_description", lambda *_: {})
    monkeypatch.setattr(train, "describe", lambda *_: [])
    monkeypatch.setattr(train, "Trial", HeldTrial)
    with pytest.raises(
        StoppedError,
        match="process 7 on elsewhere runs it now"
        if is_taken_over
        else "on request; step 12 is saved, and the same command goes on there",
    ):
        train.train(config, quiet=True)
    assert not (tmp_path / "first" / LEASE_FILE).exists()
