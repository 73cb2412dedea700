"""`sst2-ray sweep`: flags, presets, config files, --resume and --dry-run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sst2_ray.config.flags import parse, take
from sst2_ray.config.presets import SWEEP_PRESETS, sweep_preset
from sst2_ray.config.sources import read_config_file
from sst2_ray.config.sweep import AXES, SweepConfig, SweepFlags, sweep_from_dict
from sst2_ray.config.train import TrainConfig, config_from_dict
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.storage import Storage

PROG = "sst2-ray sweep"
_FLAGS = {f.name.replace("_", "-") for f in dataclasses.fields(SweepFlags)}
_BASE = {f.name.replace("_", "-") for f in dataclasses.fields(TrainConfig)}
_SINGLE = {single.replace("_", "-"): axis.replace("_", "-") for axis, single in AXES.items()}
_WHERE_ONLY = {f.name for f in dataclasses.fields(TrainConfig) if not f.metadata.get("affects_numbers", True)}


def main(argv: list[str]) -> int:
    """Run the sweep; returns its exit code."""
    dry = "--dry-run" in argv
    config = config_from_argv([word for word in argv if word != "--dry-run"])
    from sst2_ray.sweep.start import dry_run, sweep

    if dry:
        dry_run(config)
        return 0
    return sweep(config).exit_code


def config_from_argv(argv: Sequence[str]) -> SweepConfig:
    """Read the preset or the sweep to resume, then the config file, then flags: the later wins."""
    resume, rest = take(argv, "--resume")
    preset, rest = take(rest, "--preset")
    file, rest = take(rest, "--config")
    rest = spread_range(rest)
    if resume is not None and (preset or file):
        raise InputError("--resume goes on with a sweep's own config: --preset and --config cannot stand beside it")
    start = resumed(resume) if resume else sweep_preset(preset) if preset else SweepConfig()
    if file:
        start = _from_file(start, file)
    flags, base_words = _split(rest, start)
    description = (
        f"Find learning rate and batch size, under several seeds. --preset NAME ({', '.join(SWEEP_PRESETS)}), --config "
        "FILE.yaml, --resume FOLDER goes on with a sweep, --dry-run shows the plan and starts nothing. Every other flag of "
        "`sst2-ray train` holds for all trials (--data, --evaluations-per-epoch, --selection-fraction, --price-per-hour...)."
    )
    own = SweepFlags(**{f.name: getattr(start, f.name) for f in dataclasses.fields(SweepFlags)})
    parsed = parse(SweepFlags, flags, prog=PROG, description=description, default=own)
    base = parse(TrainConfig, base_words, prog=PROG, default=start.base)
    values = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(SweepFlags)}
    config = SweepConfig(**values, base=base)
    if resume is not None:
        _check_unchanged(start, config)
    return config


def _split(words: Sequence[str], start: SweepConfig) -> tuple[list[str], list[str]]:
    """Split into words of SweepFlags and of TrainConfig; a flag takes the words up to the next one."""
    mine: list[str] = []
    base: list[str] = []
    target = mine
    for word in words:
        if word.startswith("-") and not _is_number(word):
            name = word.lstrip("-").split("=")[0].replace("_", "-")
            bare = name.removeprefix("no-")
            if name in _FLAGS or word in ("-h", "--help"):
                target = mine
            elif name in _SINGLE and not getattr(start, _SINGLE[name].replace("-", "_")):
                target = base  # an axis that is not varied: one value for all trials
            elif name in _SINGLE:
                raise InputError(f"--{name}: a sweep takes --{_SINGLE[name]}, one value or several")
            elif name in _BASE or bare in _BASE:
                target = base
            else:
                near = did_you_mean(f"--{name}", [f"--{known}" for known in _FLAGS | (_BASE - set(_SINGLE))])
                raise InputError(f"unknown flag --{name}; {near if near.startswith('did') else f'see {PROG} --help'}")
        target.append(word)
    return mine, base


def spread_range(argv: Sequence[str]) -> list[str]:
    """Spell `--num-workers 2:8` as the two flags that it stands for."""
    workers, rest = take(argv, "--num-workers")
    if workers is None:
        return rest
    fewest, colon, most = workers.partition(":")
    return [*rest, "--num-workers", fewest, *(["--max-workers", most] if colon else [])]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _from_file(start: SweepConfig, file: str) -> SweepConfig:
    """Read a config file: keys of both kinds beside each other, or a sweep's own config.json."""
    values = read_config_file(file)
    if "sweep" in values:
        for key in values.keys() - {"sweep", "config", "config_hash"}:
            raise InputError(f"--config {file}: {key!r} stands beside 'sweep'; put it into 'sweep' or 'config'")
        return sweep_from_dict({k: values[k] for k in ("sweep", "config") if k in values}, source=f"--config {file}")
    names = {f.name for f in dataclasses.fields(SweepFlags)}
    flags = {k: v for k, v in values.items() if k in names}
    base = {k: v for k, v in values.items() if k not in names}
    for key in base:
        axis = _SINGLE.get(key.replace("_", "-"), "").replace("-", "_")
        if axis and getattr(start, axis):
            raise InputError(f"--config {file}: {key}: a sweep takes {axis}, one value or several")
    merged = start.to_dict()
    merged["sweep"].update(flags)
    base_config = config_from_dict({**merged["config"], **base}, source=f"--config {file}")
    return sweep_from_dict({"sweep": merged["sweep"], "config": base_config.to_dict()}, source=f"--config {file}")


def resumed(folder: str) -> SweepConfig:
    """Read the config in a sweep's folder. Raises InputError where there is none."""
    sweep = Storage.open(folder)
    if not sweep.exists("config.json"):
        raise InputError(f"--resume {folder}: no config.json there; give the folder of a sweep, STORAGE/NAME")
    values = sweep.read_json("config.json")
    if "sweep" not in values:
        raise InputError(f"--resume {folder}: holds a single run; the same sst2-ray train command goes on with it")
    config = sweep_from_dict({k: values[k] for k in ("sweep", "config")}, source=f"--resume {folder}")
    # The folder may have been moved since, and is known by its own name.
    head, _, query = folder.partition("?")
    parent, _, name = head.rstrip("/").rpartition("/")
    base = dataclasses.replace(
        config.base,
        storage_path=(parent or ("." if "://" not in folder else head)) + (f"?{query}" if query else ""),
        name=name,
    )
    return dataclasses.replace(config, base=base)


def _check_unchanged(there: SweepConfig, config: SweepConfig) -> None:
    if config.trials_hash == there.trials_hash and config.name == there.name:
        return
    before, after = there.to_dict(), config.to_dict()
    changed = [
        f"--{key.replace('_', '-')} {before[part][key]} -> {after[part][key]}"
        for part in ("sweep", "config")
        for key in after[part]
        if before[part][key] != after[part][key] and (part == "sweep" or key not in _WHERE_ONLY or key == "name")
    ]
    raise InputError(
        f"--resume: {', '.join(changed[:3])} would make it another sweep; start that under another --name "
        "(runs of the same configuration are ranked together all the same: sst2-ray results)"
    )
