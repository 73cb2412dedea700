"""Who runs a run or a sweep now: one driver at a time."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

from sst2_ray.errors import InputError
from sst2_ray.storage import Storage

LEASE_FILE = "running.json"
"""Below the folder of a run or a sweep, while a driver runs it."""

BEAT_S, DEAD_AFTER_S = 10.0, 60.0
"""A driver says so often that it lives; on another machine it counts as dead when it has not for so long."""

FIRST_BEAT_S = 1.0
"""Of two drivers that started at once, one learns after so long that the other has the run: before its workers start."""


class Lease:
    """Keeps a second driver off a run or a sweep, while the first one is in `with Lease(...)`.

    An object store has no locks: a file in the run's folder says who runs it, and is written anew every `BEAT_S`. A driver
    that was killed on this machine is known to be dead at once, on another one after `DEAD_AFTER_S`. `taken_by`: the driver
    that has taken the run over meanwhile (this machine slept, or both started at once); this one must end then.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.run, self.name = storage.child(name), name
        self.taken_by: str | None = None
        pid = os.getpid()
        self._me = {"owner": uuid.uuid4().hex, "host": socket.gethostname(), "pid": pid, "since": _now().isoformat()}
        self._me |= {"machine": _machine(), "process_started": _process_started(pid)}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{name}", daemon=True)

    def check(self) -> None:
        """Raises InputError where another driver runs it."""
        other = self._other()
        if other is not None and self._lives(other):
            since = dt.datetime.fromisoformat(other["since"])
            raise InputError(
                f"--name {self.name}: {_who(other)} has run it since {since:%Y-%m-%d %H:%M:%S} UTC "
                f"({self.run.path(LEASE_FILE)}); wait for its end (a minute, where it was killed), end it with "
                f"`sst2-ray stop {self.name}`, or choose another --name"
            )

    def __enter__(self) -> Lease:
        self.check()
        self._write(self.run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(BEAT_S)  # it may be writing, or waiting for a storage that hangs
        with contextlib.suppress(OSError):  # what is left behind counts as dead
            if self._other() is None:
                self.run.with_retries(0.0).delete(LEASE_FILE)

    def _beat(self) -> None:
        wait_s, storage = FIRST_BEAT_S, self.run.with_retries(0.0)
        while not self._ended.wait(wait_s):
            wait_s = BEAT_S
            with contextlib.suppress(OSError):  # an outage: the workers wait it out, or end the run
                other = self._other()
                if other is not None:
                    self.taken_by = _who(other)
                    return
                self._write(storage)

    def _write(self, storage: Storage) -> None:
        storage.write_json(LEASE_FILE, {**self._me, "beat": _now().isoformat()})

    def _other(self) -> dict[str, Any] | None:
        """What another driver has written; None where there is none, or nothing that can be read."""
        run = self.run.with_retries(0.0)
        try:
            found = run.read_json(LEASE_FILE) if run.exists(LEASE_FILE) else None
        except (FileNotFoundError, ValueError):
            return None
        is_other = isinstance(found, dict) and {*self._me, "beat"} <= set(found) and found["owner"] != self._me["owner"]
        return found if is_other else None

    def _lives(self, other: dict[str, Any]) -> bool:
        here = [self._me["host"], self._me["machine"]]
        if self._me["machine"] and [other["host"], other["machine"]] == here:
            # This process itself: an earlier run of it, whose file could not be deleted.
            is_earlier = other["pid"] == self._me["pid"]
            return not is_earlier and _process_started(other["pid"]) == other["process_started"]
        return (_now() - dt.datetime.fromisoformat(other["beat"])).total_seconds() < DEAD_AFTER_S


def _who(driver: dict[str, Any]) -> str:
    return f"process {driver['pid']} on {driver['host']}"


def _machine() -> str:
    """Where a process id means the same process, and can be seen: this boot, this container, this user. Empty: not known."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():  # not Linux
        return ""
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()} {os.getuid()}"


def _process_started(pid: int) -> str | None:
    """When, in the kernel's ticks: process ids are used again. None where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)
