"""Trackers (TensorBoard, MLflow, Weights & Biases, JSON Lines) of a run or a sweep.

A tracker never ends a run and never keeps it waiting. The driver appends events to a file; for each tracker a process of its
own reads the file and passes the events on (`process`). Whatever that process waits for, it waits alone: the driver
says once that a tracker does not answer, and at the end gives it `GIVE_UP_S`. The file keeps what was not sent, and the next
session of the same run sends it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sst2_ray.errors import InputError
from sst2_ray.records import EpochRecord, Status
from sst2_ray.run.tracking.process import EVENTS_FILE, FOLDER, State
from sst2_ray.storage import Storage

GIVE_UP_S = 30.0
"""Seconds that trackers have at the end of a run for what they were not told yet."""

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_trackers(names: Sequence[str], folder: Storage) -> None:
    """Raise InputError where a tracker's package or address is missing."""
    for name in names:
        package = PACKAGES.get(name)
        if name == "mlflow" and _mlflow_address().startswith(("http://", "https://")):
            continue  # spoken to without the package
        if package is not None and importlib.util.find_spec(package) is None:
            raise InputError(f"--trackers {name}: {package} is not installed; pip install {package}")
    if "mlflow" in names and not folder.is_local and not _mlflow_address():
        raise InputError("--trackers mlflow: set MLFLOW_TRACKING_URI, MLflow cannot write to this storage by itself")
    if "wandb" in names and not {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ):
        raise InputError("--trackers wandb: set WANDB_API_KEY, or WANDB_MODE=offline")


def tracker_rows(names: Sequence[str], folder: str) -> list[tuple[str, str]]:
    """Return rows for the closing table: how to look at what was tracked. `folder`: address of the run's or sweep's folder."""
    rows = {
        "tensorboard": ("TensorBoard", f"tensorboard --logdir {shlex.quote(f'{folder}/tensorboard')}"),
        "mlflow": (
            "MLflow",
            _mlflow_address() or f"mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{folder}/mlflow.db')}",
        ),
        "wandb": ("W&B", "project sst2-ray, or `wandb sync` where it ran offline"),
        "jsonl": ("events", f"{folder}/{FOLDER}/{EVENTS_FILE}"),
    }
    return [rows[name] for name in names]


def _mlflow_address() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "")


class Trackers:
    """The trackers of a run or a sweep; `with` it around all that is tracked.

    Args:
        names: Trackers, as --trackers names them.
        folder: Folder of the run or the sweep.
        experiment: Its name; runs are grouped by it.
        say: Shows a line to the user.
        give_up_s: Seconds that trackers have at the end.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Storage,
        experiment: str,
        say: Callable[[str], None],
        *,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self._names, self._folder, self._experiment, self._say = tuple(names), folder, experiment, say
        self._give_up_s = give_up_s
        self._lock = threading.Lock()
        self._senders: list[_Sender] = []
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._home = Path()
        self._open: set[str] = set()

    def __enter__(self) -> Trackers:
        if not self._names:
            return self
        if self._folder.is_local:
            self._home = Path(self._folder.root)
        else:  # an object store cannot append: what is here is copied there at the end
            self._scratch = tempfile.TemporaryDirectory(prefix="sst2-ray-trackers-")
            self._home = Path(self._scratch.name)
            with contextlib.suppress(OSError):  # what an earlier session has not sent
                if self._folder.exists(FOLDER):
                    self._folder.download(FOLDER, self._home / FOLDER)
        try:
            (self._home / FOLDER).mkdir(parents=True, exist_ok=True)
            self._events.touch()
            self._senders = [
                _Sender(name, self._home, [self._experiment, str(self._give_up_s)], self._say)
                for name in self._names
                if name != "jsonl"
            ]
        except OSError as error:
            self._say(f"trackers: cannot be started ({error}); the run goes on without them")
            self._names = ()
        return self

    def __exit__(self, *_: object) -> None:
        for run in sorted(self._open):
            self.end(run, Status.FAILED)
        deadline = time.monotonic() + self._give_up_s
        for sender in self._senders:
            sender.finish()
        for sender in self._senders:
            sender.wait(deadline, self._events)
        if self._scratch is not None:
            for name in (FOLDER, "tensorboard", "wandb"):
                with contextlib.suppress(OSError):
                    if (self._home / name).exists():
                        self._folder.upload(self._home / name, name)
            self._scratch.cleanup()

    @property
    def _events(self) -> Path:
        return self._home / FOLDER / EVENTS_FILE

    def start(self, run: str, params: Mapping[str, object]) -> None:
        """Begin a run, or go on with one; `params`: its settings."""
        self._open.add(run)
        self._append({"event": "start", "run": run, "params": dict(params)})

    def log(self, run: str, record: EpochRecord) -> None:
        """Track an evaluation."""
        values = dataclasses.asdict(record)
        metrics = {
            name: value
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value) and name not in ("global_step", "attempt")
        }
        names = {"dev_loss": "loss", "dev_accuracy": "accuracy", "dev_f1": "f1"}
        named = {names.get(name, name): value for name, value in metrics.items()}
        self._append({"event": "evaluation", "run": run, "step": record.global_step, "metrics": named})

    def end(self, run: str, status: str) -> None:
        """End a run; `status`: of its last attempt. A run that nobody ends has failed."""
        self._open.discard(run)
        self._append({"event": "end", "run": run, "status": str(status)})

    def _append(self, event: dict[str, object]) -> None:
        if not self._names:
            return
        with self._lock, contextlib.suppress(OSError), self._events.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**event, "at": time.time()}) + "\n")


class _Sender:
    """The process of one tracker, seen from the driver."""

    def __init__(self, name: str, home: Path, options: Sequence[str], say: Callable[[str], None]) -> None:
        self.name, self._say = name, say
        self.state = home / FOLDER / f"{name}.json"
        self._has_failed = False
        with (home / FOLDER / f"{name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sst2_ray.run.tracking.process", name, str(home), *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,  # Ctrl-C is the driver's
                text=True,
            )
        threading.Thread(target=self._listen, name=f"tracker-{name}", daemon=True).start()

    def _listen(self) -> None:
        """Say the first problem, and that it is over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            problem: str | None = json.loads(line)["problem"]
            if problem and not self._has_failed:
                self._say(f"{self.name}: {problem}; the run goes on, what it is not told is kept and sent later")
            elif not problem and self._has_failed:
                self._say(f"{self.name}: answers again")
            self._has_failed = bool(problem)

    def finish(self) -> None:
        """Tell the process that no more events come."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self, deadline: float, events: Path) -> None:
        """Wait until everything is sent, at most until `deadline`, and leave no process behind."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            unsent = events.read_bytes()[State.read(self.state).position :].count(b"\n")
            if unsent:
                self._say(f"{self.name}: given up; {unsent} events were not sent, {events} holds them")
