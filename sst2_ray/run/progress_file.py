"""A trial's progress on storage: written by its driver every few seconds, read by `sst2-ray status` and the next driver."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from sst2_ray import formatting
from sst2_ray.run.messages import Heartbeat, Progress
from sst2_ray.storage import Storage
from sst2_ray.training.names import PHASE_WORDS, Phase
from sst2_ray.training.outcome import PhaseSeconds

PROGRESS_FILE = "progress.json"
"""File below the folder of a trial, while it runs."""

WRITE_EVERY_S, UPLOAD_EVERY_S = 3.0, 15.0
"""Seconds between two writes: to a disk, to an object store."""


@dataclass(frozen=True, kw_only=True)
class StoredProgress:
    """The progress of a running trial when its driver last wrote it."""

    written_at: str
    """ISO time, UTC."""
    attempt: int
    progress: Progress

    @classmethod
    def read(cls, run: Storage) -> StoredProgress | None:
        """Read the progress of the trial in the folder `run`; None where there is none that can be read."""
        try:
            found = run.read_json(PROGRESS_FILE) if run.exists(PROGRESS_FILE) else None
            return None if found is None else cls._of(**found)
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def _of(
        cls, *, written_at: str, attempt: int, phase: str, phase_seconds: dict[str, float], **values: Any
    ) -> StoredProgress:
        dt.datetime.fromisoformat(written_at)
        progress = Progress(phase=Phase(phase), phase_seconds=PhaseSeconds(**phase_seconds), **values)
        return cls(written_at=written_at, attempt=attempt, progress=progress)

    @property
    def age_s(self) -> float:
        """Return the seconds since it was written, by this machine's clock."""
        return (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(self.written_at)).total_seconds()

    def words(self) -> str:
        """Describe it in one line."""
        now = self.progress
        said = [PHASE_WORDS.get(now.phase, str(now.phase))]
        if now.total_steps is not None:
            said = [f"step {now.global_step:,}/{now.total_steps:,}", *(said if now.phase != Phase.TRAINING else [])]
        if now.train_loss is not None:
            said.append(f"loss {now.train_loss:.3f}")
        if now.examples_per_sec is not None:
            said.append(f"{formatting.number(now.examples_per_sec)} examples/s")
        if now.seconds_left is not None:
            said.append(f"{formatting.duration(now.seconds_left)} left")
        if now.saved_step is not None:
            said.append(f"step {now.saved_step:,} saved")
        if self.age_s > 2 * UPLOAD_EVERY_S:
            said.append(f"heard {formatting.duration(self.age_s)} ago")
        return ", ".join(said)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"written_at": self.written_at, "attempt": self.attempt, **asdict(self.progress)}


class ProgressFile:
    """The writer of an attempt's progress. Storage that hangs or fails costs the attempt nothing."""

    def __init__(self, run: Storage, attempt: int) -> None:
        """Prepare to write below `run`, the folder of the trial."""
        self._run, self._attempt = run.with_retries(0.0), attempt
        self._every_s = WRITE_EVERY_S if run.is_local else UPLOAD_EVERY_S
        self._written_at = float("-inf")
        self._thread: threading.Thread | None = None

    def update(self, progress: Progress | None, heartbeat: Heartbeat | None) -> None:
        """Write what is known, if a write is due and none is under way.

        Args:
            progress: of rank 0.
            heartbeat: of rank 0; it knows of evaluations and checkpoints between two steps.
        """
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or time.monotonic() - self._written_at < self._every_s:
            return
        self._written_at = time.monotonic()
        now = progress or Progress(phase=Phase.START_UP)
        if now.phase is Phase.TRAINING and heartbeat and heartbeat.phase in (Phase.EVALUATION, Phase.CHECKPOINT):
            now = replace(now, phase=heartbeat.phase)
        written_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        stored = StoredProgress(written_at=written_at, attempt=self._attempt, progress=now)
        self._thread = threading.Thread(target=self._write, args=(stored,), name="progress-file", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Delete the file: the results table tells the rest."""
        if self._thread is not None:
            self._thread.join(self._every_s)
        with contextlib.suppress(OSError):
            self._run.delete(PROGRESS_FILE)

    def _write(self, stored: StoredProgress) -> None:
        with contextlib.suppress(OSError):
            self._run.write_json(PROGRESS_FILE, stored.to_dict())
