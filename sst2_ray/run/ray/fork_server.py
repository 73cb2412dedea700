"""The driver's side of workers that need not import anything: they are forked from a process that has (fork_worker)."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Client
from pathlib import Path
from typing import TypeVar

from sst2_ray.errors import StoppedError
from sst2_ray.run.ray import fork_worker, setup_worker

T = TypeVar("T")

BEFORE_RAY = (
    "torch", "transformers", "deepspeed", "pandas", "sst2_ray.training.attempt", "sst2_ray.run.supervisor", "sst2_ray.run.worker",
)  # fmt: skip
"""Imports of drivers, controllers and training workers besides Ray: most of them."""

WITH_RAY = ("ray.train.torch", "ray.tune")
"""The rest, in which Ray's library reads some of what Ray gives to a worker: imported when that is known."""

SWITCH = "SST2_RAY_FORK_WORKERS"
"""0: every worker imports for itself."""

NO_CUDA = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Setting with which torch looks for a GPU without starting CUDA: a process that has touched it is not forked."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Libraries that would start threads at import: a process with threads is not forked."""


class NotServedError(Exception):
    """No server does what it was called for."""


@dataclass(frozen=True)
class ForkServer:
    """A process that forks workers, see `fork_worker`.

    It is started before Ray, so that both start at the same time, and told what Ray gives its workers when Ray runs.
    """

    path: str
    """Path of its socket, in a folder for this user alone that the server deletes. Short: it may have 107 bytes."""
    stdin: int
    """Other end of its standard input, open as long as it is needed: the server ends when this process does, however it ends."""
    process: subprocess.Popen[bytes]
    ended: threading.Event = field(default_factory=threading.Event)
    """Set by `end`, in whatever thread."""

    @classmethod
    def start(cls, environment: dict[str, str], folder: str | None = None) -> ForkServer | None:
        """Start a server; it is not waited for.

        Args:
            environment: variables of the workers.
            folder: for its socket's own folder, with a short path; None: the system's for temporary files.

        Returns:
            The server; None where workers start the plain way.
        """
        if not sys.platform.startswith("linux") or os.environ.get(SWITCH) == "0":
            return None
        path = f"{tempfile.mkdtemp(prefix='sst2-ray-', dir=folder)}/socket"
        # Modules are found where this process finds them.
        search = os.pathsep.join(dict.fromkeys(folder or str(Path.cwd()) for folder in sys.path))
        stdin, other_end = os.pipe()
        with contextlib.ExitStack() as undo, Path(f"{path}.log").open("wb") as log:
            undo.callback(shutil.rmtree, Path(path).parent, ignore_errors=True)
            undo.callback(os.close, other_end)
            undo.callback(os.close, stdin)
            process = subprocess.Popen(
                [sys.executable, str(fork_worker.__file__), "serve", path, *BEFORE_RAY],
                stdin=stdin,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment, **ONE_THREAD, **NO_CUDA, "PYTHONPATH": search},
                start_new_session=True,  # Ctrl-C is for the driver
            )
            undo.pop_all()
        os.close(stdin)
        return cls(path, other_end, process)

    @property
    def py_executable(self) -> str:
        """Return the command that Ray starts instead of Python; where no server answers, it becomes Python."""
        return shlex.join([sys.executable, "-I", "-S", str(fork_worker.__file__), self.path])

    def call(self, work: Callable[[], T]) -> T:
        """Call `work` in a fork of the server, which has imported transformers; both it and its result are pickled.

        Raises:
            NotServedError: The server does not do it, as when Ray runs already.
            StoppedError: The server was ended meanwhile, with the command.
            Exception: What `work` raises.
        """
        try:
            with Client(f"{self.path}{fork_worker.CALLS}", "AF_UNIX") as connection:
                connection.send((dict(os.environ), work))
                is_result, found = connection.recv()
        except (OSError, EOFError):
            if self.ended.is_set():
                raise StoppedError("stopped before the tokens were made") from None
            raise NotServedError from None
        if not is_result:
            raise found
        result: T = found
        return result

    def end(self) -> None:
        """End the server at once, in the middle of its imports too, where there will be no Ray; nothing of it is left."""
        self.ended.set()
        if self.process.returncode is None:  # otherwise its number may be another's
            with contextlib.suppress(ProcessLookupError):  # its parent ignores SIGCHLD
                os.killpg(self.process.pid, signal.SIGKILL)  # with what it has forked for calls
            self.process.wait()
        os.close(self.stdin)
        shutil.rmtree(Path(self.path).parent, ignore_errors=True)

    def ray_runs(self, own: dict[str, str]) -> None:
        """Have the server import the rest and fork. `own`: variables that Ray gives to every worker alike."""
        ray = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        told = {"environ": {**ray, **own}, "modules": WITH_RAY}
        with contextlib.suppress(BrokenPipeError):  # a server that has ended leaves the workers to start by themselves
            os.write(self.stdin, json.dumps(told).encode() + b"\n")


@contextlib.contextmanager
def light_setup() -> Iterator[None]:
    """Have a Ray that is started meanwhile set its workers up with `setup_worker`."""
    from ray._private import ray_constants

    before = ray_constants.SETUP_WORKER_FILENAME
    if sys.platform.startswith("linux"):
        ray_constants.SETUP_WORKER_FILENAME = str(setup_worker.__file__)  # joined to a folder, an absolute path stays
    try:
        yield
    finally:
        ray_constants.SETUP_WORKER_FILENAME = before
