"""`sst2-ray ls | status | logs | stop`: what storage holds, asked of it alone; no cluster is needed."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
from rich.table import Table

from sst2_ray import formatting
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.stop import STOP_FILE
from sst2_ray.storage import Storage
from sst2_ray.terminal import console

SILENT_S = 600.0
"""A run that says it runs and has written nothing for so long has most likely been killed."""

_RUNNING = Status.RUNNING


@dataclass(frozen=True, kw_only=True)
class _Where:
    storage_path: str = "runs"
    """Folder or URI that runs and sweeps were written to."""


@dataclass(frozen=True, kw_only=True)
class LsConfig(_Where):
    """Every run and sweep of a storage folder: status, trials, best accuracy, size."""


@dataclass(frozen=True, kw_only=True)
class StatusConfig(_Where):
    """The trials of one run or sweep."""

    name: Positional[str]
    """As `sst2-ray ls` shows it."""


@dataclass(frozen=True, kw_only=True)
class LogsConfig(_Where):
    """The end of a run's newest log; of a sweep with --trial, else its log files are listed."""

    name: Positional[str]
    """As `sst2-ray ls` shows it."""
    trial: str | None = None
    """A trial of a sweep."""
    rank: int = 0
    """Whose log: each worker has its own."""
    lines: int = 100
    """Lines shown; 0: all of them."""


@dataclass(frozen=True, kw_only=True)
class StopConfig(_Where):
    """Ask a run or sweep to stop: its workers end within seconds, and the same command goes on from there."""

    name: Positional[str]
    """As `sst2-ray ls` shows it."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A run or sweep and what lies below its folder."""

    name: str
    is_sweep: bool
    trials: tuple[TrialRecord, ...]
    """The latest attempt of each."""
    num_bytes: int
    written_at: dt.datetime

    @property
    def status(self) -> str:
        """In words, from its trials."""
        counts = Counter(trial.status for trial in self.trials)
        if counts[_RUNNING]:
            silent = (dt.datetime.now(dt.timezone.utc) - self.written_at).total_seconds()
            return _RUNNING if silent < SILENT_S else f"running? silent for {formatting.duration(silent)}"
        if not counts:
            return "no trial yet"
        if len(counts) == 1:
            return next(iter(counts)).replace("_", " ")
        return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.most_common())

    @property
    def best_accuracy(self) -> float | None:
        found = [trial.score for trial in self.trials if trial.score is not None]
        return max(found, default=None)


def run_folder(experiment: str, trial_id: str) -> str:
    """Of a trial, below the storage folder: a single run is its own trial."""
    return experiment if trial_id == experiment else f"{experiment}/{trial_id}"


def held(storage_path: str) -> list[Held]:
    """Every run and sweep, by name. Raises InputError where the folder holds none."""
    storage = Storage.open(storage_path)
    names = [name for name in storage.list() if storage.exists(f"{name}/config.json")]
    if not names:
        raise InputError(f"--storage-path {storage_path}: no run there; give the folder that runs were written to")
    return [_read(storage, name, trials) for name, trials in _trials(storage_path, names).items()]


def one(storage_path: str, name: str) -> Held:
    """The run or sweep of that name. Raises InputError, with the nearest names."""
    storage = Storage.open(storage_path)
    if "/" in name or not storage.exists(f"{name}/config.json"):
        names = [n for n in storage.list() if storage.exists(f"{n}/config.json")]
        remedy = did_you_mean(name, names) if names else "there is none at all; give its --storage-path"
        raise InputError(f"{name}: no such run below {storage.root}; {remedy}")
    return _read(storage, name, _trials(storage_path, [name])[name])


def _trials(storage_path: str, names: list[str]) -> Mapping[str, list[TrialRecord]]:
    found: dict[str, list[TrialRecord]] = {name: [] for name in names}
    for record in ResultsTable(storage_path).records("trials", experiment=names, attempts="latest"):
        found[record.experiment].append(record)
    return found


def _read(storage: Storage, name: str, trials: list[TrialRecord]) -> Held:
    infos = files_below(storage, name)
    return Held(
        name=name,
        is_sweep="sweep" in storage.read_json(f"{name}/config.json"),
        trials=tuple(sorted(trials, key=lambda trial: (trial.started_at or trial.written_at, trial.trial_id))),
        num_bytes=sum(info.size for info in infos),
        written_at=max(info.mtime for info in infos),
    )


def files_below(storage: Storage, folder: str) -> list[pafs.FileInfo]:
    """Every file, however deep; none where the folder does not exist."""
    selector = pafs.FileSelector(storage.path(folder), recursive=True, allow_not_found=True)
    return [info for info in storage.filesystem.get_file_info(selector) if info.type == pafs.FileType.File]


# ---- commands


def main_ls(argv: list[str]) -> int:
    config = parse(LsConfig, argv, prog="sst2-ray ls")
    runs = held(config.storage_path)
    table = _table("name", "kind", "status", "trials", "best accuracy", "size", "last written")
    for run in runs:
        kind = "sweep" if run.is_sweep else "run"
        written = f"{run.written_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(
            run.name,
            kind,
            run.status,
            str(len(run.trials)),
            _percent(run.best_accuracy),
            formatting.size(run.num_bytes),
            written,
        )
    out = console()
    out.print(table)
    out.print(
        f"{formatting.count(len(runs), 'run')}, {formatting.size(sum(run.num_bytes for run in runs))}", highlight=False
    )
    return 0


def main_status(argv: list[str]) -> int:
    config = parse(StatusConfig, argv, prog="sst2-ray status")
    run = one(config.storage_path, config.name)
    place = _last_evaluations(config)
    table = _table("trial", "attempt", "status", "epoch", "accuracy", "time", "cost", "why")
    for trial in run.trials:
        why = " ".join(filter(None, (trial.failure_class, (trial.failure_message or "").partition("\n")[0])))
        last = place.get(trial.trial_id, {})
        accuracy = trial.score if trial.status != _RUNNING else last.get("dev_accuracy")
        epoch = f"{last['epoch']:g}" if last else ""
        table.add_row(
            trial.trial_id, str(trial.attempt), trial.status.replace("_", " "), epoch, _percent(accuracy),
            formatting.duration(trial.seconds), formatting.dollars(trial.cost_usd), why,
        )  # fmt: skip
    out = console()
    out.print(table)
    out.print(f"{run.name}: {run.status}; {formatting.size(run.num_bytes)}", highlight=False, soft_wrap=True)
    return 0


def _last_evaluations(config: StatusConfig) -> dict[str, dict[str, Any]]:
    rows = ResultsTable(config.storage_path).read(
        "epochs", columns=["trial_id", "epoch", "dev_accuracy"], experiment=config.name, attempts="latest"
    )
    return {row["trial_id"]: row for row in sorted(rows.to_pylist(), key=lambda row: row["epoch"])}


def main_logs(argv: list[str]) -> int:
    config = parse(LogsConfig, argv, prog="sst2-ray logs")
    run = one(config.storage_path, config.name)
    storage = Storage.open(config.storage_path)
    if run.is_sweep and config.trial is None:
        for folder, names in _log_files(storage, run).items():
            print(f"{folder}: {', '.join(names)}")
        print(f"one of them: sst2-ray logs {run.name} --storage-path {config.storage_path} --trial TRIAL")
        return 0
    known = [trial.trial_id for trial in run.trials]
    if config.trial is not None and config.trial not in known:
        raise InputError(f"--trial {config.trial}: no such trial of {run.name}; {did_you_mean(config.trial, known)}")
    folder = f"{run.name}/{config.trial}/logs" if run.is_sweep else f"{run.name}/logs"
    names = [name for name in storage.list(folder) if name.endswith(f"-rank-{config.rank}.log")]
    if not names:
        raise InputError(f"{folder}: no log of rank {config.rank} yet")
    newest = max(names, key=lambda name: int(name.split("-")[1]))
    lines = storage.read_bytes(f"{folder}/{newest}").decode(errors="replace").splitlines()
    print("\n".join(lines[-config.lines :] if config.lines else lines))
    return 0


def _log_files(storage: Storage, run: Held) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for trial in run.trials:
        found[trial.trial_id] = storage.list(f"{run.name}/{trial.trial_id}/logs")
    return found


def main_stop(argv: list[str]) -> int:
    config = parse(StopConfig, argv, prog="sst2-ray stop")
    run = one(config.storage_path, config.name)
    if not any(trial.status == _RUNNING for trial in run.trials):
        raise InputError(f"{run.name}: nothing of it runs ({run.status})")
    Storage.open(config.storage_path).write_json(f"{run.name}/{STOP_FILE}", {"by": "sst2-ray stop"})
    print(f"{run.name}: asked to stop; see sst2-ray status {run.name} --storage-path {config.storage_path}")
    return 0


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in ("name", "kind", "status", "trial", "why") else "right")
    return table


def _percent(value: float | None) -> str:
    return formatting.percent(value) if value is not None else ""
