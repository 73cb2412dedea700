"""A run or sweep as its folder and its rows tell of it: state, table of trials, summary."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sst2_ray import formatting
from sst2_ray.manage.cells import TRIAL_COLUMNS, percent
from sst2_ray.records import Status, TrialRecord
from sst2_ray.run.progress_file import StoredProgress
from sst2_ray.tables import html_table

SILENT_S = 600.0
"""Seconds without a written file after which a run that counts as running has most likely been killed."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The last evaluation of a trial."""

    epoch: float
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A run or sweep and what its folder holds."""

    name: str
    is_sweep: bool
    trials: tuple[TrialRecord, ...]
    """The latest attempt of each trial, with the time and cost of all that have ended, without the fields that nothing here
    needs; a single run is its own trial."""
    num_bytes: int | None
    """Bytes of its files; None: they were not listed."""
    written_at: dt.datetime
    """Time of the newest file, or row."""
    progress: Mapping[str, Progress]
    """Last evaluation of each trial, by name; `list_runs` does not read them."""
    now: Mapping[str, StoredProgress] = field(default_factory=dict)
    """Position of each running trial, by name; `list_runs` does not read them."""

    num_planned: int | None = None
    """Trials that the sweep was to have; None: not known, as of a single run."""
    has_driver: bool = False
    """A driver holds its lease, as between two trials of a sweep, and is not known to be dead; `list_runs` looks where trials are
    known to be left."""

    @property
    def is_running(self) -> bool:
        """Tell if a trial has started and not ended, or a driver is at work; it may have been killed since."""
        return self.has_driver or any(trial.status == Status.RUNNING for trial in self.trials)

    @property
    def status(self) -> str:
        """Return the state of the trials in words."""
        counts = Counter(trial.status for trial in self.trials)
        if self.is_running:
            silent_s = (dt.datetime.now(dt.UTC) - self.written_at).total_seconds()
            far = f", {self._num_over} of {self.num_planned} trials" if self.num_planned else ""
            silent = "" if silent_s < SILENT_S else f"? silent for {formatting.duration(silent_s)}"
            return f"{Status.RUNNING}{silent}{far}"
        if not counts:
            return "no trial yet"
        if self.num_not_begun:
            return f"{Status.STOPPED}, {self._num_over} of {self.num_planned} trials"
        if len(counts) == 1:
            return next(iter(counts)).replace("_", " ")
        return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.most_common())

    @property
    def _num_over(self) -> int:
        """Count the trials that came to an end of their own."""
        return sum(trial.status not in (Status.RUNNING, Status.STOPPED, Status.LOST) for trial in self.trials)

    @property
    def num_not_begun(self) -> int:
        """Count the planned trials that have no row; 0 where their number is not known."""
        return max(0, (self.num_planned or 0) - len(self.trials))

    @property
    def best_accuracy(self) -> float | None:
        """Return the best accuracy of the trials; see TrialRecord.accuracy."""
        return max((trial.accuracy for trial in self.trials if trial.accuracy is not None), default=None)

    @property
    def best_is_held_out(self) -> bool:
        """Tell whether that is of the held-out part of train."""
        return any(trial.selection_accuracy == self.best_accuracy is not None for trial in self.trials)

    def to_dict(self, *, with_trials: bool = True) -> dict[str, object]:
        """Return plain JSON values."""
        trials = {"trials": [self._trial_dict(trial) for trial in self.trials]} if with_trials else {}
        return {
            "name": self.name,
            "kind": self.kind,
            "status": self.status,
            "best_accuracy": self.best_accuracy,
            "num_bytes": self.num_bytes,
            "written_at": self.written_at.isoformat(),
            "num_trials": len(self.trials),
            "num_planned": self.num_planned,
            **trials,
        }

    def _trial_dict(self, trial: TrialRecord) -> dict[str, object]:
        last, now = self.progress.get(trial.trial_id), self.now.get(trial.trial_id)
        return {
            "trial": trial.trial_id,
            "attempt": trial.attempt,
            "status": trial.status,
            "epoch": last.epoch if last else None,
            "accuracy": self._accuracy(trial),
            "seconds": trial.seconds,
            "cost_usd": trial.cost_usd,
            "failure_class": trial.failure_class,
            "failure_message": trial.failure_message,
            "progress": now.to_dict() if now else None,
        }

    @property
    def kind(self) -> str:
        """Return `sweep` or `run`."""
        return "sweep" if self.is_sweep else "run"

    def _accuracy(self, trial: TrialRecord) -> float | None:
        last = self.progress.get(trial.trial_id)
        return trial.accuracy if trial.status != Status.RUNNING else last.accuracy if last else None

    def rows(self) -> list[list[str]]:
        """Return the cells of TRIAL_COLUMNS, a row for each trial."""
        rows = []
        for trial in self.trials:
            last, now = self.progress.get(trial.trial_id), self.now.get(trial.trial_id)
            epoch = f"{last.epoch:g}" if last else ""
            if now and now.progress.epoch is not None:
                epoch = f"{now.progress.epoch:.2f}"
            message = (trial.failure_message or "").partition("\n")[0]
            if trial.status == Status.STOPPED and trial.last_global_step:
                message = f"at step {trial.last_global_step:,}, which is saved; the same command goes on there"
            rows.append(
                [
                    trial.trial_id,
                    str(trial.attempt),
                    trial.status.replace("_", " "),
                    epoch,
                    percent(self._accuracy(trial), held_out=trial.selection_accuracy is not None),
                    formatting.duration(trial.seconds),
                    formatting.dollars(trial.cost_usd),
                    " ".join(filter(None, (trial.failure_class, message))),
                ]
            )
        return rows

    def now_lines(self) -> list[str]:
        """Describe how far each running trial is, a line for each."""
        return [f"{name}: {now.words()}" if self.is_sweep else now.words() for name, now in self.now.items()]

    def summary(self) -> str:
        """Return the run in one line."""
        where = " on the held-out part of train" if self.best_is_held_out else ""
        best = f"; best accuracy {percent(self.best_accuracy)} %{where}" if self.best_accuracy is not None else ""
        trials = f", {formatting.count(len(self.trials), 'trial')}" if self.is_sweep else ""
        size = f"; {formatting.size(self.num_bytes)}" if self.num_bytes is not None else ""
        return f"{self.name}: {self.kind}{trials}, {self.status}{best}{size}"

    def __repr__(self) -> str:
        return f"<{self.summary()}>"

    def _repr_html_(self) -> str:
        return html_table(TRIAL_COLUMNS, self.rows(), caption=self.summary())
