"""The lease of a run or a sweep: one driver at a time."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sst2_ray.errors import InputError
from sst2_ray.storage import Storage

LEASE_FILE = "running.json"
"""File below the folder of a run or a sweep, while a driver runs it."""

BEAT_S = 10.0
"""Seconds between two writes of the lease."""

WATCH_S = 15.0
"""Seconds for which the lease of a driver on another machine is watched before anything is started: it changes meanwhile
if that driver lives."""

DEAD_AFTER_S = 60.0
"""Seconds without a change, by this machine's own clock, after which a driver on another machine counts as dead."""

FIRST_BEAT_S = 1.0
"""Seconds until the first renewal: of two drivers that started at once, one learns that the other has the run before its workers start."""

_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The content of a lease: who runs the run."""

    owner: str
    """Differs between any two leases."""
    host: str
    pid: int
    machine: str
    """Machine on which `pid` names this process: boot, container, user; empty: not known."""
    process_started: str | None
    """Start of the process in the kernel's ticks, since process ids are used again."""
    since: str
    beat: int
    """Counts the writes: a live driver's changes. Clocks of two machines are never compared."""

    @classmethod
    def here(cls) -> Driver:
        """Describe this process."""
        pid = os.getpid()
        return cls(
            owner=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=pid,
            machine=_machine(),
            process_started=_process_started(pid),
            since=dt.datetime.now(dt.UTC).isoformat(),
            beat=0,
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def lives(self, observer: Driver) -> bool | None:
        """Tell whether this driver lives, seen from the process `observer`; None: that cannot be seen from there."""
        if not observer.machine or (self.host, self.machine) != (observer.host, observer.machine):
            return None
        # An earlier run of the same process, whose file could not be deleted, is over.
        return self.pid != observer.pid and _process_started(self.pid) == self.process_started


def read_driver(run: Storage) -> Driver | None:
    """Read the lease in the folder of a run or a sweep; None where there is none that can be read."""
    run = run.with_retries(0.0)
    try:
        found = run.read_json(LEASE_FILE) if run.exists(LEASE_FILE) else None
    except (FileNotFoundError, ValueError):
        return None
    names = {field.name for field in fields(Driver)}
    return Driver(**{name: found[name] for name in names}) if isinstance(found, dict) and names <= set(found) else None


class Lease:
    """Keeps a second driver off a run or a sweep while the first one is in `with Lease(...)`.

    An object store has no locks: a file in the run's folder says who runs it, and is written anew every `BEAT_S`. A driver
    that was killed on this machine is known to be dead at once; on another one its file is watched. `taken_by` names the
    driver that has taken the run over meanwhile (this machine slept, or both started at once): this one must end then.
    """

    def __init__(self, storage: Storage, name: str, announce: Callable[[str], None] = lambda _: None) -> None:
        """Prepare a lease. Nothing is read or written.

        Args:
            storage: that holds the run or sweep.
            name: of the run or sweep.
            announce: shows a line where a driver on another machine has to be watched.
        """
        self.run, self.name, self._announce = storage.child(name), name, announce
        self.taken_by: str | None = None
        self._me = Driver.here()
        self._seen: tuple[Driver, float] | None = None
        self._num_beats = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{name}", daemon=True)

    def check(self, watch_s: float | None = None) -> None:
        """Raise InputError where another driver runs it.

        Args:
            watch_s: seconds, since it was first seen, for which the lease of a driver on another machine is watched;
                None: `WATCH_S`.
        """
        while (other := self._other()) is not None:
            lives = other.lives(self._me)
            if lives is False:
                return
            if self._seen is None and lives is None:
                self._announce(f"{other} may run {self.name}: watching for up to {DEAD_AFTER_S:.0f} s whether it does")
            first, since = self._seen = self._seen or (other, time.monotonic())
            if lives or other != first:
                raise InputError(self._refusal(other))
            if time.monotonic() - since >= (WATCH_S if watch_s is None else watch_s):
                return
            time.sleep(_POLL_S)

    def __enter__(self) -> Lease:
        self.check(DEAD_AFTER_S)
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
                    self.taken_by = str(other)
                    return
                self._write(storage)

    def _write(self, storage: Storage) -> None:
        self._num_beats += 1
        storage.write_json(LEASE_FILE, {**asdict(self._me), "beat": self._num_beats})

    def _other(self) -> Driver | None:
        """Read the lease of another driver; None where there is none."""
        found = read_driver(self.run)
        return found if found is not None and found.owner != self._me.owner else None

    def _refusal(self, other: Driver) -> str:
        since = dt.datetime.fromisoformat(other.since)
        return (
            f"--name {self.name}: {other} has run it since {since:%Y-%m-%d %H:%M:%S} UTC "
            f"({self.run.path(LEASE_FILE)}); wait for its end, end it with "
            f"`sst2-ray stop {self.name}` (and the same --storage-path), or choose another --name"
        )


def _machine() -> str:
    """Name this boot, container and user, in which a process id means the same process; empty where not known."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():  # not Linux
        return ""
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()} {os.getuid()}"


def _process_started(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
