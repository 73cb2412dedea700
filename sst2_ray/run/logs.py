"""The logs of a run: one logger for the package, and a file of each process below the run's folder.

`logs/driver.log` holds what the terminal shows, `logs/attempt-A-rank-R.log` what a worker logs and, beside it, whatever
libraries print in that process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, Metric, score_of, shown
from sst2_ray.records import EpochRecord
from sst2_ray.run.messages import Progress
from sst2_ray.storage import Storage

LOGGER = logging.getLogger("sst2_ray")

DRIVER_LOG = "logs/driver.log"

UPLOAD_EVERY_S = 60.0
"""Seconds between two uploads of a log to an object store; on a disk the log is written where it stays."""

_MOST_BUFFERED = 10_000
"""Records kept until the run's folder may be written to."""


class LogFile:
    """A log below a run's folder: written on a local disk, uploaded now and then where storage is an object store."""

    def __init__(self, run: Storage, name: str) -> None:
        """Make the file's folder. `name`: path below the run's folder."""
        self._run, self._name = run, name
        self._scratch = None if run.is_local else tempfile.TemporaryDirectory()
        self.path = Path(self._scratch.name) / Path(name).name if self._scratch else Path(run.path(name))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._scratch is not None:
            # An object store cannot append: the log goes on with what an earlier session left.
            stored = run.with_retries(0.0)
            with contextlib.suppress(OSError):
                if stored.exists(name):
                    stored.download(name, self.path)
        self._ended = threading.Event()

    def keep(self, *, retry: bool = False) -> None:
        """Put the log on storage as it is now; storage that cannot be reached is left alone. `retry`: as the run does."""
        if self._scratch is not None:
            storage = self._run if retry else self._run.with_retries(0.0)
            with contextlib.suppress(OSError):
                storage.upload(self.path, self._name)

    def __enter__(self) -> LogFile:
        if self._scratch is not None:
            threading.Thread(target=self._keep_now_and_then, name=f"upload {self._name}", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self.keep(retry=kind is None)  # it may be the storage that failed, and the user wants to know why
        if self._scratch is not None:
            self._scratch.cleanup()

    def _keep_now_and_then(self) -> None:
        while not self._ended.wait(UPLOAD_EVERY_S):
            self.keep()


class DriverLog:
    """The log of a driver: kept in memory until the run's folder is this driver's, then written to `DRIVER_LOG`."""

    def __init__(self) -> None:
        """Prepare a log. Nothing is kept before `begin`."""
        self._buffer = MemoryHandler(_MOST_BUFFERED, flushLevel=logging.CRITICAL + 1)
        self._stack = contextlib.ExitStack()

    def begin(self) -> None:
        """Begin to keep the records of `LOGGER`."""
        _attach(self._buffer)

    def open(self, folder: Storage) -> None:
        """Write what was kept, and what comes, to the log of a run."""
        with contextlib.suppress(OSError):  # a full disk: the run says so where it matters
            file = self._stack.enter_context(LogFile(folder, DRIVER_LOG))
            handler = handler_to(file.path, "driver")
            self._stack.callback(handler.close)
            self._buffer.setTarget(handler)
            self._buffer.flushLevel = logging.NOTSET
            self._buffer.flush()

    def write(self, text: str) -> None:
        """Log the lines of what the terminal shows."""
        for line in text.splitlines():
            if line.strip():
                LOGGER.info("%s", line.rstrip())

    def close(self) -> None:
        """Write and upload the rest."""
        _detach(self._buffer)
        self._buffer.setTarget(None)
        self._stack.close()


def _attach(handler: logging.Handler) -> None:
    """Send the package's records to a log, and not to the root's handlers as well: Ray has some in its workers."""
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def _detach(handler: logging.Handler) -> None:
    LOGGER.removeHandler(handler)
    LOGGER.propagate = not LOGGER.handlers


class _QuietFileHandler(logging.FileHandler):
    """A file handler that drops what a full disk does not take: a log is not worth a run."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""

    def close(self) -> None:
        """Close the file, though it may not take what is left."""
        with contextlib.suppress(OSError):
            super().close()


def handler_to(path: Path, place: str) -> logging.Handler:
    """Make a handler that appends lines of time (UTC), level, place and message. `place`: driver, or attempt and rank."""
    handler = _QuietFileHandler(path, encoding="utf-8")
    formatter = logging.Formatter(f"%(asctime)s %(levelname)s {place}: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler


@contextlib.contextmanager
def worker_log(run: Storage, *, attempt: int, rank: int) -> Iterator[LogFile]:
    """Send a worker's records, stdout and stderr, libraries' C code included, to a log of the run."""
    name = f"logs/attempt-{attempt}-rank-{rank}.log"
    with LogFile(run, name) as log, _redirected(log.path), _logged(log.path, f"attempt {attempt} rank {rank}"):
        yield log


@contextlib.contextmanager
def _logged(path: Path, place: str) -> Iterator[None]:
    handler = handler_to(path, place)
    _attach(handler)
    try:
        yield
    finally:
        _detach(handler)
        handler.close()


@contextlib.contextmanager
def _redirected(path: Path) -> Iterator[None]:
    """Send this process's stdout and stderr to a file, and there the traceback of what ends it."""
    saved = [os.dup(1), os.dup(2)]
    with path.open("ab", buffering=0) as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            faulthandler.enable(file)
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk must not hide what was raised
                file.write(traceback.format_exc().encode())
            raise
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            faulthandler.disable()
            for number, target in zip(saved, (1, 2), strict=True):
                os.dup2(number, target)
                os.close(number)


# ---- lines that the terminal and the logs share


def epoch_line(record: EpochRecord, *, is_best: bool, metric: Metric = "accuracy") -> str:
    """Describe an evaluation in one line; `metric`: the one that the run is chosen by."""
    by, scores = "", ""
    if record.dev_accuracy is not None:
        scores = f"accuracy {formatting.percent(record.dev_accuracy)} %  F1 {formatting.percent(record.dev_f1)} %  "
    if metric not in ("accuracy", "f1", "loss"):
        by = f"{METRIC_NAMES[metric]} {shown(metric, score_of(record, metric))}  "
    return (
        f"epoch {record.epoch:g}  step {record.global_step}  train loss {record.train_loss:.4f}  "
        f"{record.split} loss {record.dev_loss:.4f}  {scores}{by}"
        f"{record.examples_per_sec:.0f} examples/s{'  best so far' if is_best else ''}"
    )


def step_line(progress: Progress) -> str:
    """Describe how far training is in one line, with loss and speed of the last minute."""
    place = f"epoch {progress.epoch:.2f}  step {progress.global_step:,}/{progress.total_steps:,}"
    words = rate_words(progress)
    return f"{place}  last minute: {words}" if words else place


def rate_words(progress: Progress) -> str:
    """Describe loss and speed of the last minute and the time that is left, as far as they are known."""
    loss, speed, left_s = progress.train_loss, progress.examples_per_sec, progress.seconds_left
    known = [f"loss {loss:.3f}"] if loss is not None else []
    known += [f"{formatting.number(speed)} examples/s"] if speed else []
    return "  ".join([*known, *([f"{formatting.duration(left_s)} left"] if left_s is not None else [])])
