"""Workers that need not import anything: forked from one process that has (see fork_worker)."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.launch import fork_worker

MODULES = (
    "ray.train.torch",
    "ray.tune",
    "torch",
    "transformers",
    "deepspeed",
    "scipy.stats",
    "sst2_ray.launch.trial",
    "sst2_ray.launch.worker",
)
"""What drivers, controllers and training workers import, in one process."""

SWITCH = "SST2_RAY_FORK_WORKERS"
"""1: workers are forked. Otherwise every worker imports for itself."""

# Each would start threads at import, and a process with threads is not forked.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


@dataclass(frozen=True)
class ForkServer:
    """Where workers are forked, see `fork_worker`. Ray is told first and the server started when Ray runs: part of
    what Ray hands to its processes is read when they import it."""

    path: str
    """Of its socket, in a folder for this user alone that the server deletes. Short: there are 107 bytes for it."""

    @classmethod
    def make(cls) -> ForkServer | None:
        """None where workers start the plain way."""
        if not sys.platform.startswith("linux") or os.environ.get(SWITCH) != "1":
            return None
        return cls(f"{tempfile.mkdtemp(prefix='sst2-ray-')}/socket")

    @property
    def py_executable(self) -> str:
        """What Ray starts instead of Python. Where no server answers, on other nodes as well, it becomes Python."""
        return shlex.join([sys.executable, "-I", "-S", str(fork_worker.__file__), self.path])

    def start(self, environment: dict[str, str]) -> None:
        """Returns at once; workers that come before everything is imported start the plain way. `environment`: of the workers."""
        # Modules are found where this process finds them.
        search = os.pathsep.join(dict.fromkeys(folder or str(Path.cwd()) for folder in sys.path))
        here = {**os.environ, **environment, **_ONE_THREAD, "PYTHONPATH": search}
        # The other end of its standard input closes when this process ends, however it ends: so does the server then.
        stdin, _never_closed = os.pipe()
        with Path(f"{self.path}.log").open("wb") as log:
            subprocess.Popen(
                [sys.executable, str(fork_worker.__file__), "serve", self.path, *MODULES],
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=here,
                start_new_session=True,  # Ctrl-C is for the driver
            )
        os.close(stdin)
