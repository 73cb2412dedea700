"""Runs and sweeps of a storage folder, read from storage alone: no cluster is needed."""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from sst2_ray import formatting
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.manage.cells import TRIAL_COLUMNS, percent
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.lease import Driver, read_driver
from sst2_ray.run.logs import DRIVER_LOG
from sst2_ray.run.progress_file import StoredProgress
from sst2_ray.run.stop import STOP_FILE
from sst2_ray.storage import Storage
from sst2_ray.terminal import html_table

SILENT_S = 600.0
"""Seconds without a written file after which a run that counts as running has most likely been killed."""

_STATE_FIELDS = ("experiment", "trial_id", "attempt", "status", "written_at", "best_dev_accuracy", "selection_accuracy")
_TRIAL_FIELDS = (
    *_STATE_FIELDS, "started_at", "failure_class", "failure_message", "seconds", "cost_usd", "export_path", "last_global_step",
)  # fmt: skip
"""Fields of TrialRecord that are read; all of them would take ten seconds for a thousand trials."""


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
    num_bytes: int
    written_at: dt.datetime
    """Time of the newest file."""
    progress: Mapping[str, Progress]
    """Last evaluation of each trial, by name; `list_runs` does not read them."""
    now: Mapping[str, StoredProgress] = field(default_factory=dict)
    """Position of each running trial, by name; `list_runs` does not read them."""

    has_driver: bool = False
    """A driver holds its lease, as between two trials of a sweep, and is not known to be dead; `list_runs` does not look."""

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
            return Status.RUNNING if silent_s < SILENT_S else f"running? silent for {formatting.duration(silent_s)}"
        if not counts:
            return "no trial yet"
        if len(counts) == 1:
            return next(iter(counts)).replace("_", " ")
        return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.most_common())

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
        return f"{self.name}: {self.kind}{trials}, {self.status}{best}; {formatting.size(self.num_bytes)}"

    def __repr__(self) -> str:
        return f"<{self.summary()}>"

    def _repr_html_(self) -> str:
        return html_table(TRIAL_COLUMNS, self.rows(), caption=self.summary())


def run_folder(experiment: str, trial_id: str) -> str:
    """Return the folder of a trial below the storage folder: a single run is its own trial."""
    return experiment if trial_id == experiment else f"{experiment}/{trial_id}"


def list_runs(storage_path: str, *, states_only: bool = False) -> list[StoredRun]:
    """Read every run and sweep of a storage folder, by name. Raises InputError if it holds none.

    `states_only`: read what the state and the best accuracy of each need, and of its trials nothing more.
    """
    storage = Storage.open(storage_path)
    files = _files_by_run(storage)
    if not files:
        remedy = _other_storage(storage) or "give the folder that runs were written to"
        raise InputError(f"--storage-path {storage_path}: no run there; {remedy}")
    trials = ResultsTable(storage_path).read(
        "trials", columns=_STATE_FIELDS if states_only else _TRIAL_FIELDS, attempts="totals"
    )
    return _read(storage, files, trials)


def find_run(storage_path: str, name: str) -> StoredRun:
    """Read the run or sweep of that name. Raises InputError with the nearest names."""
    storage = Storage.open(storage_path)
    if "/" in name or not storage.exists(f"{name}/config.json"):
        names = _names(storage)
        remedy = did_you_mean(name, names) if names else _other_storage(storage)
        remedy = remedy or "there is none at all; give its --storage-path"
        raise InputError(f"{name}: no such run below {storage.root}; {remedy}")
    table = ResultsTable(storage_path)
    trials = table.read("trials", columns=_TRIAL_FIELDS, experiment=name, attempts="totals")
    run = _read(storage, {name: files_below(storage, name)}, trials, _progress(table, name))[0]
    running = [trial.trial_id for trial in run.trials if trial.status == Status.RUNNING]
    found = {trial_id: StoredProgress.read(storage.child(run_folder(name, trial_id))) for trial_id in running}
    driver = read_driver(storage.child(name))
    has_driver = driver is not None and driver.lives(Driver.here()) is not False
    return replace(run, now={key: now for key, now in found.items() if now is not None}, has_driver=has_driver)


def _names(storage: Storage) -> list[str]:
    return [name for name in storage.list() if storage.exists(f"{name}/config.json")]


def _other_storage(storage: Storage) -> str:
    """Name the folders of this disk below a storage path that hold runs; empty if there is none."""
    found = sorted(
        {str(path.parents[1]) for path in Path(storage.root).glob("*/*/config.json")} if storage.is_local else ()
    )
    return f"did you mean --storage-path {' or '.join(map(os.path.relpath, found[:3]))}?" if found else ""


def _files_by_run(storage: Storage) -> dict[str, list[pafs.FileInfo]]:
    """List the files of every run and sweep, in the order of their names.

    It is one listing of the whole folder: in an object store a thousand questions take longer than a thousand answers.
    """
    found: dict[str, list[pafs.FileInfo]] = {}
    start = len(storage.root) + 1
    for info in files_below(storage, ""):
        found.setdefault(info.path[start:].partition("/")[0], []).append(info)
    return {
        name: infos
        for name, infos in sorted(found.items())
        if any(info.path == storage.path(f"{name}/config.json") for info in infos)
    }


def _read(
    storage: Storage,
    files: Mapping[str, Sequence[pafs.FileInfo]],
    rows: pa.Table,
    progress: Mapping[str, Progress] | None = None,
) -> list[StoredRun]:
    """Put runs together. `files`: of each run; `rows`: of `trials`."""
    trials: dict[str, list[TrialRecord]] = {name: [] for name in files}
    for row in rows.to_pylist():
        if row["experiment"] in trials:  # the folder of a run may have been deleted
            trials[row["experiment"]].append(TrialRecord(**row))
    return [
        StoredRun(
            name=name,
            is_sweep=_is_sweep(storage, name, trials[name]),
            trials=tuple(sorted(trials[name], key=lambda t: (t.started_at or t.written_at, t.trial_id))),
            num_bytes=sum(file.size for file in infos),
            written_at=max(file.mtime for file in infos),
            progress=progress or {},
        )
        for name, infos in files.items()
    ]


def _is_sweep(storage: Storage, name: str, trials: Sequence[TrialRecord]) -> bool:
    """Tell a sweep from a run; a single run is its own trial."""
    return trials[0].trial_id != name if trials else "sweep" in storage.read_json(f"{name}/config.json")


def _progress(table: ResultsTable, name: str) -> dict[str, Progress]:
    columns = ["trial_id", "epoch", "dev_accuracy"]
    rows = table.read("epochs", columns=columns, experiment=name, attempts="latest").to_pylist()
    last = sorted(rows, key=lambda row: row["epoch"])
    return {row["trial_id"]: Progress(epoch=row["epoch"], accuracy=row["dev_accuracy"]) for row in last}


def files_below(storage: Storage, folder: str) -> list[pafs.FileInfo]:
    """List every file below a folder ("": the storage folder), however deep; none if it does not exist."""
    selector = pafs.FileSelector(storage.path(folder) if folder else storage.root, recursive=True, allow_not_found=True)
    return [info for info in storage.filesystem.get_file_info(selector) if info.type == pafs.FileType.File]


def request_stop(storage_path: str, name: str) -> None:
    """Ask a run or sweep to stop; its driver reads the request from storage. Raises InputError if nothing of it runs."""
    run = find_run(storage_path, name)
    if not run.is_running:
        raise InputError(f"{run.name}: nothing of it runs ({run.status})")
    Storage.open(storage_path).write_json(f"{run.name}/{STOP_FILE}", {"by": "sst2-ray stop"})


def last_line(storage_path: str, name: str) -> str | None:
    """Read the time and text of the newest line of a driver's log; None if there is none yet."""
    storage = Storage.open(storage_path)
    if not storage.exists(f"{name}/{DRIVER_LOG}"):
        return None
    lines = storage.read_bytes(f"{name}/{DRIVER_LOG}").decode(errors="replace").splitlines()
    stamp, _, rest = (lines or [""])[-1].partition(" ")
    return f"{stamp} {rest.partition(': ')[2] or rest}" if lines else None
