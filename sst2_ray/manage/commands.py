"""`sst2-ray ls | status | logs | stop`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from rich.text import Text

from sst2_ray import formatting
from sst2_ray.config.fields import AlsoPositional, Folder, Name, NotNegative, Positional, RunName
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.formatting import without_secret
from sst2_ray.manage.cells import HELD_OUT, TRIAL_COLUMNS, percent
from sst2_ray.manage.runs import (
    find_run,
    last_line,
    list_runs,
    request_stop,
    run_folder,
)
from sst2_ray.manage.stored_run import StoredRun
from sst2_ray.run.logs import DRIVER_LOG
from sst2_ray.storage import Storage
from sst2_ray.tables import Column, print_table
from sst2_ray.terminal import busy, console

_WATCH_S = 5.0
_RUN_COLUMNS = (
    Column(title="name", align="left"),
    Column(title="kind", rank=4, align="left"),
    Column(title="status", rank=1, align="left", min_width=9),
    Column(title="trials", rank=3),
    Column(title="best, %", rank=1),
    Column(title="size", rank=5),
    Column(title="written (UTC)", rank=2),
)


@dataclass(frozen=True, kw_only=True)
class _StorageFlags:
    storage_path: Folder = "runs"
    """Folder or URI that runs and sweeps were written to."""


@dataclass(frozen=True, kw_only=True)
class _TableFlags(_StorageFlags):
    wide: bool = False
    """Show every column, however wide the table gets."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True)
class LsConfig(_TableFlags):
    """List every run and sweep of a storage folder: status, trials, best accuracy, size."""

    storage_path: Annotated[Folder, AlsoPositional()] = "runs"
    """Folder or URI that runs and sweeps were written to."""
    sizes: bool = False
    """In an object store too, add up the sizes of all files, which takes it a second per few thousand of them."""


@dataclass(frozen=True, kw_only=True)
class StatusConfig(_TableFlags):
    """Show the trials of one run or sweep; without a name, list what runs."""

    name: Positional[RunName | None] = None
    """Run or sweep, as `sst2-ray ls` lists it."""
    watch: bool = False
    """Show it again every 5 seconds until nothing of it runs."""


@dataclass(frozen=True, kw_only=True)
class LogsConfig(_StorageFlags):
    """Show the end of a run's log: what the terminal showed, or with --rank the log of a worker."""

    name: Positional[RunName]
    """Run or sweep, as `sst2-ray ls` lists it."""
    trial: Name | None = None
    """Trial of a sweep."""
    rank: NotNegative[int] | None = None
    """Worker whose log of the newest attempt is shown; None: the driver's log, or rank 0 if there is none."""
    lines: NotNegative[int] = 100
    """Lines shown; 0: all of them."""


@dataclass(frozen=True, kw_only=True)
class StopConfig(_StorageFlags):
    """Ask a run or sweep to stop: its workers end within seconds, and the same command resumes it."""

    name: Positional[RunName]
    """Run or sweep, as `sst2-ray ls` lists it."""


def main_ls(argv: list[str]) -> int:
    """Run `sst2-ray ls`."""
    config = parse(LsConfig, argv, prog="sst2-ray ls")
    with busy(f"reading {config.storage_path}"):
        runs = list_runs(config.storage_path, states_only=True, sizes=config.sizes or None)
    _show_runs(console(), runs, config)
    return 0


def _show_runs(out: Console, runs: Sequence[StoredRun], config: _TableFlags) -> None:
    if config.json:
        print(json.dumps([run.to_dict(with_trials=False) for run in runs], indent=1))
        return
    rows = [
        [
            run.name,
            run.kind,
            run.status,
            str(len(run.trials)),
            percent(run.best_accuracy, held_out=run.best_is_held_out),
            formatting.NONE if run.num_bytes is None else formatting.size(run.num_bytes),
            f"{run.written_at:%Y-%m-%d %H:%M}",
        ]
        for run in runs
    ]
    print_table(out, _RUN_COLUMNS, rows, wide=config.wide)
    _explain_marks(out, rows)
    sizes = [run.num_bytes for run in runs if run.num_bytes is not None]
    total = f", {formatting.size(sum(sizes))}" if sizes else ""
    out.print(Text(f"{formatting.count(len(runs), 'run')}{total}"))
    if not sizes and isinstance(config, LsConfig):
        out.print(Text("sizes in an object store: sst2-ray ls --sizes", style="dim"))


def main_status(argv: list[str]) -> int:
    """Run `sst2-ray status`."""
    config = parse(StatusConfig, argv, prog="sst2-ray status")
    out = console()
    try:
        while _show_status(out, config) and config.watch:
            time.sleep(_WATCH_S)
            if out.is_terminal and not config.json:
                out.clear()
    except KeyboardInterrupt:
        if not config.watch:
            raise
    return 0


def _show_status(out: Console, config: StatusConfig) -> bool:
    """Show one run, or all that run. Returns True if something still runs."""
    if config.name is not None:
        with busy(f"reading {config.storage_path}"):
            run = find_run(config.storage_path, config.name)
        if config.json:
            print(json.dumps(run.to_dict(), indent=1))
        else:
            if run.trials:
                print_table(out, TRIAL_COLUMNS, run.rows(), wide=config.wide)
                _explain_marks(out, run.rows())
            for line in run.now_lines():
                out.print(Text(line))
            out.print(Text(run.summary()))
            if run.is_sweep or not run.now:
                _show_last_lines(out, [run], config.storage_path)
        return run.is_running
    with busy(f"reading {config.storage_path}"):
        runs = list_runs(config.storage_path, states_only=True)
    running = [run for run in runs if run.is_running]
    if running or config.json:
        _show_runs(out, running, config)
        if not config.json:
            _show_last_lines(out, running, config.storage_path)
    else:
        newest = max(runs, key=lambda run: run.written_at)
        out.print(Text(f"nothing runs in {without_secret(config.storage_path)}; last: {newest.summary()}"))
    return bool(running)


def _explain_marks(out: Console, rows: Sequence[Sequence[str]]) -> None:
    if any(cell.endswith("*") for row in rows for cell in row):
        out.print(Text(HELD_OUT, style="dim"))


def _show_last_lines(out: Console, runs: Sequence[StoredRun], storage_path: str) -> None:
    """Show the newest line of the driver's log of each run that runs: step, loss, rate and time left while it trains."""
    for run in runs:
        line = last_line(storage_path, run.name) if run.is_running else None
        if line is not None:
            out.print(Text(f"{run.name}: {line}"))


def main_logs(argv: list[str]) -> int:
    """Run `sst2-ray logs`."""
    config = parse(LogsConfig, argv, prog="sst2-ray logs")
    with busy(f"reading {config.storage_path}"):
        run = find_run(config.storage_path, config.name)
    storage = Storage.open(config.storage_path)
    trials = [trial.trial_id for trial in run.trials]
    if config.trial is not None and config.trial not in trials:
        raise InputError(f"--trial {config.trial}: no such trial of {run.name}; {did_you_mean(config.trial, trials)}")
    place = run_folder(run.name, config.trial or run.name)
    folder = f"{place}/logs"
    if config.rank is None and storage.exists(f"{place}/{DRIVER_LOG}"):
        _print_end(storage, f"{place}/{DRIVER_LOG}", config.lines)
    elif run.is_sweep and config.trial is None:
        for trial in trials:
            print(f"{trial}: {', '.join(storage.list(f'{run.name}/{trial}/logs'))}")
        shown = without_secret(config.storage_path)
        print(f"one of them: sst2-ray logs {run.name} --storage-path {shown} --trial TRIAL")
    else:
        names = [name for name in storage.list(folder) if name.endswith(f"-rank-{config.rank or 0}.log")]
        if not names:
            raise InputError(f"{folder}: no log of rank {config.rank or 0} yet")
        newest = max(names, key=lambda name: int(name.split("-")[1]))
        _print_end(storage, f"{folder}/{newest}", config.lines)
    return 0


def _print_end(storage: Storage, name: str, num_lines: int) -> None:
    lines = storage.read_bytes(name).decode(errors="replace").splitlines()
    print("\n".join(lines[-num_lines:] if num_lines else lines))


def main_stop(argv: list[str]) -> int:
    """Run `sst2-ray stop`."""
    config = parse(StopConfig, argv, prog="sst2-ray stop")
    with busy(f"reading {config.storage_path}"):
        request_stop(config.storage_path, config.name)
    shown = without_secret(config.storage_path)
    print(f"{config.name}: asked to stop; see sst2-ray status {config.name} --storage-path {shown}")
    return 0
