"""A Ray head in processes of its own, as `ray start` makes it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.network import free_port

MARKER = "SST2_RAY_TEST_MARKER"


@dataclass(frozen=True)
class Head:
    """Addresses at which a head answers, and its folder."""

    address: str
    jobs: str
    """URL of the job server."""
    folder: Path
    pid: int
    """Process that the head's others are below."""


@contextlib.contextmanager
def started_head(*words: str, **env: str) -> Iterator[Head]:
    """Start a head of two CPUs that asks for no token; `words`: more of `ray start`. Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        port, jobs_port = free_port(), free_port()
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2",
            f"--port={port}", f"--dashboard-port={jobs_port}",
            # Agents of other Rays on this machine have the default port.
            "--node-ip-address=127.0.0.1", f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={folder}", *words,
        ]  # fmt: skip
        with Path(folder, "head.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, MARKER: folder, "RAY_AUTH_MODE": "disabled", **env},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{jobs_port}", Path(folder), process.pid)
        finally:
            for pid in pids_of(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(30)


def pids_of(marker: str) -> list[int]:
    """List the processes whose environment holds the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{MARKER}={marker}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found
