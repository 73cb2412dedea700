"""`sst2-ray sweep`: flags, presets, config files, --resume and --dry-run."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray import formatting
from sst2_ray.config.fields import flag
from sst2_ray.config.presets import sweep_preset
from sst2_ray.config.python_words import flag_words
from sst2_ray.config.sources import SweepCommand, read_config_file, sweep_command_line
from sst2_ray.config.sweep import AXES, SweepConfig, SweepFlags, sweep_from_dict
from sst2_ray.config.train import TrainConfig, config_from_dict, numeric_fields
from sst2_ray.errors import ExitCode, InputError
from sst2_ray.own_files import CONFIG_FILE, read_own
from sst2_ray.storage import Storage, address
from sst2_ray.terminal import busy

if TYPE_CHECKING:
    from sst2_ray.sweep.result import SweepResult

PROG = "sst2-ray sweep"
_AXIS_OF = {single: axis for axis, single in AXES.items()}
"""Field of TrainConfig -> axis that varies it."""
_BESIDE = frozenset({"sweep", "config", "config_hash", "data_fingerprint"})
"""Keys of the config.json of a sweep or a run."""
_MEND = "mend it, or start the sweep anew under another --name"


def main(argv: list[str]) -> int:
    """Run `sst2-ray sweep`; return its exit code."""
    command, config = read_sweep_command(argv)
    try:
        with busy("loading Ray"):
            from sst2_ray.sweep.start import dry_run, sweep

        if command.dry_run:
            dry_run(config, as_json=command.json)
            return 0
        result = sweep(config)
        if result.exit_code:
            print(f"error: {result.name}: {_why_not_whole(result)}", file=sys.stderr)
        return result.exit_code
    except KeyboardInterrupt:
        if not command.dry_run:
            leave_config(config)
        raise


def _why_not_whole(result: SweepResult) -> str:
    """Say in one line why the exit code of a sweep is not 0, for who looks at stderr alone."""
    goes_on = f"sst2-ray sweep --resume {shlex.quote(result.sweep_dir)}"
    if result.exit_code == ExitCode.STOPPED:
        reason = {"stop": "a request to stop", "budget": "its budget"}.get(result.ended_by or "", result.ended_by)
        return f"ended by {reason}; {goes_on} goes on"
    num_failed, classes = sum(result.failures.values()), ", ".join(sorted(result.failures))
    return f"{num_failed} of {formatting.count(sum(result.counts.values()), 'trial')} failed ({classes})"


def leave_config(config: SweepConfig) -> None:
    """Leave a sweep that was interrupted before it began as a folder that --resume takes."""
    folder = Storage.open(config.base.storage_path).child(config.name)
    with contextlib.suppress(OSError):
        if not folder.exists(CONFIG_FILE):
            folder.write_json(CONFIG_FILE, {**config.to_public_dict(), "config_hash": config.trials_hash})
            goes_on = shlex.quote(address(config.base.storage_path, config.name))
            print(f"interrupted before its first trial; sst2-ray sweep --resume {goes_on} starts it", file=sys.stderr)


def read_sweep_command(argv: Sequence[str]) -> tuple[SweepCommand, SweepConfig]:
    """Read the preset or the sweep to resume, then the config file, then flags: the later wins.

    Raises InputError with one line.
    """
    with flag_words():
        return _read(argv)


def _read(argv: Sequence[str]) -> tuple[SweepCommand, SweepConfig]:
    line = sweep_command_line(PROG)
    given, flags, settings = line.read(argv, lambda values: _shown(_start(values)))
    command = SweepCommand(**given)  # type: ignore[arg-type]
    start = _start(given, settings.get("data"))
    for single in settings:
        axis = _AXIS_OF.get(single)
        if axis is not None and getattr(start, axis):
            raise InputError(f"{flag(single)}: a sweep takes {flag(axis)}, one value or several")
    base = dataclasses.replace(start.base, **settings)  # type: ignore[arg-type]
    config = dataclasses.replace(start, **flags, base=base)  # type: ignore[arg-type]
    if command.resume is not None:
        _check_unchanged(start, config)
    return command, config


def _start(given: Mapping[str, object], data: object = None) -> SweepConfig:
    """Make the config that the flags of a sweep are laid over; `data`: what `--data` names, None: it was not given."""
    resume, preset, file = given.get("resume"), given.get("preset"), given.get("config")
    start = resumed(str(resume)) if resume else _preset(str(preset), data) if preset else SweepConfig()
    return _from_file(start, str(file)) if file else start


def _preset(name: str, data: object) -> SweepConfig:
    return sweep_preset(name, data=None if data is None else str(data))


def _shown(start: SweepConfig) -> dict[str, object]:
    return {**start.base.to_dict(), **{f.name: getattr(start, f.name) for f in dataclasses.fields(SweepFlags)}}


def _from_file(start: SweepConfig, file: str) -> SweepConfig:
    """Read a config file: keys of both kinds beside each other, or the config.json of a sweep or a run."""
    values = read_config_file(file)
    if own := {"sweep", "config"} & values.keys():
        for key in values.keys() - _BESIDE:
            raise InputError(f"--config {file}: {key!r} stands beside {max(own)!r}; put it into 'sweep' or 'config'")
        config = sweep_from_dict({k: values[k] for k in own}, source=f"--config {file}")
        return config if "sweep" in own else _repeated(config.base)
    names = {f.name for f in dataclasses.fields(SweepFlags)}
    flags = {k: v for k, v in values.items() if k in names}
    base = {k: v for k, v in values.items() if k not in names}
    for key in base:
        axis = _AXIS_OF.get(str(key))
        if axis is not None and getattr(start, axis):
            raise InputError(f"--config {file}: {key}: a sweep takes {axis}, one value or several")
    merged = start.to_dict()
    merged["sweep"].update(flags)
    base_config = config_from_dict({**merged["config"], **base}, source=f"--config {file}")
    return sweep_from_dict({"sweep": merged["sweep"], "config": base_config.to_dict()}, source=f"--config {file}")


def _repeated(run: TrainConfig) -> SweepConfig:
    """Make the sweep that repeats one run under several seeds; flags vary more."""
    return SweepConfig(
        models=(run.model,),
        learning_rates=(run.learning_rate,),
        batch_sizes=(run.batch_size,),
        epochs=(run.epochs,),
        base=run,
    )


def resumed(folder: str) -> SweepConfig:
    """Read the config in a sweep's folder. Raises InputError where there is none."""
    values = read_own(
        Storage.open(folder, "--resume"), CONFIG_FILE, of=f"--resume {folder}", keys=["config"], remedy=_MEND
    )
    if values is None:
        raise InputError(f"--resume {folder}: no {CONFIG_FILE} there; give the folder of a sweep, STORAGE/NAME")
    if "sweep" not in values:
        raise InputError(f"--resume {folder}: holds a single run; the same sst2-ray train command goes on with it")
    config = sweep_from_dict({k: values[k] for k in ("sweep", "config")}, source=f"--resume {folder}")
    # The folder may have been moved since, and is known by its own name.
    storage_path, name = split_address(folder)
    return dataclasses.replace(config, base=dataclasses.replace(config.base, storage_path=storage_path, name=name))


def split_address(folder: str) -> tuple[str, str]:
    """Split the address of a sweep's folder into the storage path and the sweep's name."""
    if "://" not in folder:  # '?', '#' and '%' are letters like any other
        path = Path(folder)
        path = path if path.name not in ("", "..") else path.expanduser().resolve()
        return str(path.parent), path.name
    head, question, options = folder.partition("?")
    parent, _, name = head.rstrip("/").rpartition("/")
    return parent + question + options, name


def _check_unchanged(there: SweepConfig, config: SweepConfig) -> None:
    if config.trials_hash == there.trials_hash and config.name == there.name:
        return
    before, after = there.to_dict(), config.to_dict()
    changed = [
        f"--{key.replace('_', '-')} {before[part][key]} -> {after[part][key]}"
        for part in ("sweep", "config")
        for key in after[part]
        if before[part][key] != after[part][key] and (part == "sweep" or key in (*numeric_fields(), "name"))
    ]
    raise InputError(
        f"--resume: {', '.join(changed[:3])} would make it another sweep; start that under another --name "
        "(runs of the same configuration are ranked together all the same: sst2-ray results)"
    )
