"""Runs and sweeps of a storage folder, read from storage alone: no cluster is needed."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.manage.stored_run import Progress, StoredRun
from sst2_ray.own_files import CONFIG_FILE, read_own
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.lease import Driver, read_driver
from sst2_ray.run.logs import DRIVER_LOG
from sst2_ray.run.progress_file import StoredProgress
from sst2_ray.run.stop import STOP_FILE
from sst2_ray.storage import Storage
from sst2_ray.sweep.budget import read_num_trials

_MOST_QUESTIONS = 16
"""Questions that an object store is asked at the same time."""

_STATE_FIELDS = ("experiment", "trial_id", "attempt", "status", "written_at", "best_dev_accuracy", "selection_accuracy")
_TRIAL_FIELDS = (
    *_STATE_FIELDS, "started_at", "failure_class", "failure_message", "seconds", "cost_usd", "export_path", "last_global_step",
)  # fmt: skip
"""Fields of TrialRecord that are read; all of them would take ten seconds for a thousand trials."""


def run_folder(experiment: str, trial_id: str) -> str:
    """Return the folder of a trial below the storage folder: a single run is its own trial."""
    return experiment if trial_id == experiment else f"{experiment}/{trial_id}"


def list_runs(storage_path: str, *, states_only: bool = False, sizes: bool | None = None) -> list[StoredRun]:
    """Read every run and sweep of a storage folder, by name. Raises InputError if it holds none.

    Args:
        storage_path: folder or URI.
        states_only: read what the state and the best accuracy of each need, and of its trials nothing more.
        sizes: list every file and add up its bytes; an object store lists a thousand at a time. None: on a disk only.
    """
    storage = Storage.open(storage_path)
    trials = ResultsTable(storage_path).read(
        "trials", columns=_STATE_FIELDS if states_only else _TRIAL_FIELDS, attempts="totals"
    )
    files: Mapping[str, Sequence[pafs.FileInfo] | None]
    if sizes or (sizes is None and storage.is_local):
        files = _files_by_run(storage)
    else:
        files = dict.fromkeys(_names(storage, known=set(trials.column("experiment").to_pylist())))
    if not files:
        remedy = _other_storage(storage) or "give the folder that runs were written to"
        raise InputError(f"--storage-path {storage_path}: no run there; {remedy}")
    return _read(storage, files, trials)


def find_run(storage_path: str, name: str) -> StoredRun:
    """Read the run or sweep of that name. Raises InputError with the nearest names."""
    storage = Storage.open(storage_path)
    if "/" in name or not storage.exists(f"{name}/{CONFIG_FILE}"):
        names = _names(storage)
        remedy = did_you_mean(name, names) if names else _other_storage(storage)
        remedy = remedy or "there is none at all; give its --storage-path"
        raise InputError(f"{name}: no such run below {storage.root}; {remedy}")
    table = ResultsTable(storage_path)
    trials = table.read("trials", columns=_TRIAL_FIELDS, experiment=name, attempts="totals")
    run = _read(storage, {name: files_below(storage, name)}, trials, _progress(table, name))[0]
    running = [trial.trial_id for trial in run.trials if trial.status == Status.RUNNING]
    found = {trial_id: StoredProgress.read(storage.child(run_folder(name, trial_id))) for trial_id in running}
    has_driver = _has_driver(storage, name)
    return replace(run, now={key: now for key, now in found.items() if now is not None}, has_driver=has_driver)


def _has_driver(storage: Storage, name: str) -> bool:
    driver = read_driver(storage.child(name))
    return driver is not None and driver.lives(Driver.here()) is not False


def _names(storage: Storage, known: Set[str] = frozenset()) -> list[str]:
    """List the names of runs and sweeps, each a folder. `known`: names of which the results table has rows."""
    return [name for name in storage.list() if name in known or storage.exists(f"{name}/{CONFIG_FILE}")]


def _other_storage(storage: Storage) -> str:
    """Name the folders of this disk below a storage path that hold runs; empty if there is none."""
    found = sorted(
        {str(path.parents[1]) for path in Path(storage.root).glob(f"*/*/{CONFIG_FILE}")} if storage.is_local else ()
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
        if any(info.path == storage.path(f"{name}/{CONFIG_FILE}") for info in infos)
    }


def _read(
    storage: Storage,
    files: Mapping[str, Sequence[pafs.FileInfo] | None],
    rows: pa.Table,
    progress: Mapping[str, Progress] | None = None,
) -> list[StoredRun]:
    """Put runs together. `files`: of each run, None where they were not listed; `rows`: of `trials`."""
    trials: dict[str, list[TrialRecord]] = {name: [] for name in files}
    for row in rows.to_pylist():
        if row["experiment"] in trials:  # the folder of a run may have been deleted
            trials[row["experiment"]].append(TrialRecord(**row))
    is_sweep = {name: _is_sweep(storage, name, trials[name]) for name in files}
    num_planned = _nums_planned(storage, [name for name in files if is_sweep[name]])
    found = [
        StoredRun(
            name=name,
            is_sweep=is_sweep[name],
            trials=tuple(sorted(trials[name], key=lambda t: (t.started_at or t.written_at, t.trial_id))),
            num_bytes=None if infos is None else sum(file.size for file in infos),
            written_at=_written_at(storage, name, trials[name], infos),
            progress=progress or {},
            num_planned=num_planned.get(name),
        )
        for name, infos in files.items()
    ]
    return [replace(run, has_driver=_has_driver(storage, run.name)) if run.num_not_begun else run for run in found]


def _nums_planned(storage: Storage, sweeps: Sequence[str]) -> dict[str, int | None]:
    """Read how many trials each sweep was to have; an object store is asked about several at once."""
    with ThreadPoolExecutor(_MOST_QUESTIONS) as pool:
        return dict(zip(sweeps, pool.map(lambda name: read_num_trials(storage.child(name)), sweeps), strict=True))


def _written_at(
    storage: Storage, name: str, trials: Sequence[TrialRecord], infos: Sequence[pafs.FileInfo] | None
) -> dt.datetime:
    """Return the time of a run's newest file, or that of its rows where it has ended and its files were not listed."""
    if infos is None and trials and all(trial.status != Status.RUNNING for trial in trials):
        return max(trial.written_at for trial in trials)
    return max(file.mtime for file in (infos if infos is not None else files_below(storage, name)))


def _is_sweep(storage: Storage, name: str, trials: Sequence[TrialRecord]) -> bool:
    """Tell a sweep from a run; a single run is its own trial."""
    there = None if trials else read_own(storage.child(name), CONFIG_FILE, of=name, remedy="mend or delete it")
    return trials[0].trial_id != name if trials else "sweep" in (there or ())


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
