"""Sources of a config: a preset, then a config file, then flags; the later wins."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sst2_ray.config.fields import File, Folder, Name, Positive, group
from sst2_ray.config.flags import CommandLine
from sst2_ray.config.presets import SWEEP_PRESETS, TRAIN_PRESETS, train_preset
from sst2_ray.config.python_words import flag_words
from sst2_ray.config.registry import DATASETS, MODELS
from sst2_ray.config.sweep import ALWAYS_VARIED, SweepFlags
from sst2_ray.config.train import TrainConfig, config_from_dict
from sst2_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
@group("This command")
class StartFlags:
    """Flags that say what a command starts from and how far it goes."""

    preset: Name | None = None
    """Named experiment to start from; config file and flags are laid over it."""
    config: File | None = None
    """YAML or JSON file of settings, also the config.json of a run; flags are laid over it."""
    dry_run: bool = False
    """Show the plan; start and write nothing."""
    json: bool = False
    """With --dry-run: print the whole config and the plan as JSON, and nothing else."""

    def __post_init__(self) -> None:
        if self.json and not self.dry_run:
            raise InputError("--json: is for plans; give --dry-run with it")


@dataclass(frozen=True, kw_only=True)
@group("This command")
class CalibrationFlags:
    """Flags of the forecast of a run."""

    calibrate: bool = False
    """Show the plan, measure a few steps on this machine's CPUs, and say how long the run would take."""
    network_gbit_per_s: Positive[float] | None = None
    """With --dry-run: rate of the network between the machines, for the time that their messages take."""
    plan_gpu: Literal["A100", "A100-40G", "A100-80G", "H100", "H200", "L4", "L40S"] | None = None
    """With --dry-run: plan for machines with this GPU, started on demand, in place of this machine."""
    plan_gpus_per_node: Positive[int] = 1
    """With --plan-gpu: GPUs of one such machine."""


@dataclass(frozen=True, kw_only=True)
class TrainCommand(CalibrationFlags, StartFlags):
    """Fine-tune one model. The same command resumes a run that was interrupted."""

    def __post_init__(self) -> None:
        if self.network_gbit_per_s is not None and not (self.dry_run or self.calibrate):
            raise InputError("--network-gbit-per-s: is for plans; give --dry-run with it")
        if self.plan_gpu is not None and (self.calibrate or not self.dry_run):
            raise InputError("--plan-gpu: is for plans on paper; give --dry-run with it, and not --calibrate")
        if self.calibrate and not self.dry_run:
            object.__setattr__(self, "dry_run", True)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
@group("This command")
class ResumeFlags:
    """Flag of a sweep that goes on."""

    resume: Folder | None = None
    """Folder of an interrupted sweep, STORAGE/NAME; it goes on with its own config."""


@dataclass(frozen=True, kw_only=True)
class SweepCommand(ResumeFlags, StartFlags):
    """Find learning rate and batch size, under several seeds. Flags of `sst2-ray train` hold for all trials."""

    def __post_init__(self) -> None:
        if self.resume is not None and (self.preset or self.config):
            raise InputError("--resume goes on with a sweep's own config: --preset and --config cannot stand beside it")
        super().__post_init__()


def train_command_line(prog: str) -> CommandLine:
    """Return the flags of `sst2-ray train`."""
    return CommandLine(
        prog=prog,
        classes=(TrainCommand, TrainConfig),
        known_values={"preset": tuple(TRAIN_PRESETS), "model": tuple(MODELS), "data": DATASETS},
        description=f"{inspect.getdoc(TrainCommand)} Presets: {', '.join(TRAIN_PRESETS)}.",
        first=(
            "preset", "model", "data", "learning_rate", "batch_size", "epochs", "num_workers", "name", "storage_path",
            "dry_run",
        ),
        examples=(
            "# a first model in minutes, without a model hub",
            f"{prog} --preset demo",
            "# your own sentences",
            f"{prog} --data reviews.csv --model modernbert-base",
            "# what it would do, and nothing else",
            f"{prog} --preset paper --num-workers 8 --dry-run",
        ),
    )  # fmt: skip


def sweep_command_line(prog: str) -> CommandLine:
    """Return the flags of `sst2-ray sweep`."""
    return CommandLine(
        prog=prog,
        classes=(SweepCommand, SweepFlags, TrainConfig),
        known_values={"preset": tuple(SWEEP_PRESETS), "models": tuple(MODELS), "data": DATASETS},
        description=f"{inspect.getdoc(SweepCommand)} Presets: {', '.join(SWEEP_PRESETS)}.",
        first=(
            "preset", "models", "data", "learning_rates", "batch_sizes", "num_seeds", "name", "storage_path", "resume",
            "dry_run",
        ),
        hidden=ALWAYS_VARIED,
        examples=(
            "# two models, 12 short trials in minutes, without a model hub",
            f"{prog} --preset demo",
            "# two models on your own sentences",
            f"{prog} --data reviews.csv --models modernbert-base sbert",
            "# go on with a sweep that was interrupted",
            f"{prog} --resume runs/NAME",
        ),
    )  # fmt: skip


def read_train_command(argv: Sequence[str], *, prog: str) -> tuple[TrainCommand, TrainConfig]:
    """Read the command line of `sst2-ray train`. Raises InputError with one line."""
    with flag_words():
        given, settings = train_command_line(prog).read(argv, lambda values: _base(values).to_dict())
        command = TrainCommand(**given)  # type: ignore[arg-type]
        base = _base(given, settings.get("data"))
        return command, dataclasses.replace(base, **settings)  # type: ignore[arg-type]


def _base(given: Mapping[str, object], data: object = None) -> TrainConfig:
    """Make the config that flags are laid over; `data`: what `--data` names, None: it was not given."""
    preset, file = given.get("preset"), given.get("config")
    data = None if data is None else str(data)
    base = train_preset(str(preset), data=data) if preset is not None else TrainConfig()
    if file is None:
        return base
    values = read_config_file(str(file))
    if "config" in values:  # a run's own config.json is a config file as well
        values = _mapping(values["config"], str(file))
    return config_from_dict({**base.to_dict(), **values}, source=f"--config {file}")


def read_config_file(file: str) -> dict[str, Any]:
    """Read the keys and values of a YAML or JSON file. Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config {file}: cannot be read (no such file)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {file}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"--config {file}: not YAML ({' '.join(str(error).split())})") from None
    return _mapping(values, file)


def _mapping(values: object, file: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"--config {file}: must hold keys and values, one a line, e.g. learning_rate: 8e-5")
    return values
