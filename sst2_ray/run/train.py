"""The main job: one fine-tuning run on a Ray cluster. `jobs/train.py`, `sst2-ray train` and `sst2_ray.train` are this."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sst2_ray.config.flags import parse, take
from sst2_ray.config.presets import TRAIN_PRESETS, train_preset
from sst2_ray.config.train import TrainConfig, config_from_dict
from sst2_ray.errors import InputError, StoppedError
from sst2_ray.records import Status, TrialRecord
from sst2_ray.run.display import RunDisplay
from sst2_ray.run.planning.forecast import forecast
from sst2_ray.run.planning.placement import Placement, decide
from sst2_ray.run.planning.summary import describe
from sst2_ray.run.prepare import check, check_run, prepare, run_description
from sst2_ray.run.session import RunSession
from sst2_ray.run.supervisor import Shared, Trial
from sst2_ray.storage import address
from sst2_ray.terminal import console, show_plan
from sst2_ray.training.names import EXPORT_FOLDER


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to."""

    name: str
    status: str
    """succeeded, also where patience ran out before the last epoch."""
    eval_split: str
    """What dev is, e.g. 'SST-2 dev' or 'hold-out of rotten-tomatoes'."""
    best_dev_accuracy: float
    best_dev_f1: float
    best_dev_loss: float
    best_epoch: float
    last_dev_accuracy: float | None
    """None where the epoch was chosen on a held-out part of train and dev was scored once."""
    examples_per_sec: float
    seconds: float
    startup_seconds: float | None
    peak_memory_gib: float
    world_size: int
    model_label: str
    model_dir: str
    """Folder of the exported best model."""
    run_dir: str
    results_dir: str


def train(config: TrainConfig, *, quiet: bool = False) -> TrainResult:
    """Fine-tune as `config` says, and go on where an interrupted run of the same name stopped.

    Blocks until the run has ended; Ray is joined or started, and left running in this process. Raises InputError before
    anything is started or written, InfeasibleError where the workers can never be placed, RunFailedError where the run
    failed.
    """
    with RunSession(config, config.run_name, quiet=quiet) as session:
        session.lease.check()
        inputs = check(config)
        done = check_run(session.storage_at_start, inputs)
        if done is not None:
            session.note(f"{config.run_name} is finished already: nothing to do")
            return TrainResult(**done)
        cluster, prepared = session.start(lambda view: decide(config, view), lambda: prepare(inputs))
        placement = decide(config, cluster)
        session.show_plan(describe(prepared, placement), prepared.notes())
        with session.running():
            session.folder.write_json("config.json", run_description(inputs))
            return _run(session, Shared.put(prepared), placement)


def _run(session: RunSession, shared: Shared, placement: Placement) -> TrainResult:
    """Run the trial of a session to its end. Raises StoppedError where it was stopped before."""
    name = session.name
    with RunDisplay(session.out, name) as display, session.signals.graceful():
        trial = Trial(
            shared,
            placement,
            display,
            session.workspace,
            experiment=name,
            trial_id=name,
            stop=session.stop,
        )
        record = trial.run()
    if record.status == Status.STOPPED:
        raise StoppedError(f"{name}: {_why_stopped(session, record)}")
    result = _result(record, shared.inputs.resolved.info.label, session.config.storage_path)
    session.folder.write_json("result.json", dataclasses.asdict(result))
    trial.drop_checkpoints(record)
    return result


def _why_stopped(session: RunSession, record: TrialRecord) -> str:
    """Say who stopped a run and where the same command goes on."""
    if session.lease.taken_by:
        return f"stopped, since {session.lease.taken_by} runs it now"
    if record.last_global_step is None:
        return "stopped on request before its first checkpoint; the same command starts it again"
    return f"stopped on request; step {record.last_global_step} is saved, and the same command goes on there"


def _result(record: TrialRecord, label: str, storage_path: str) -> TrainResult:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(TrainResult) if hasattr(record, f.name)}
    return TrainResult(
        **values,
        name=record.experiment,
        model_label=label,
        model_dir=address(storage_path, f"{record.experiment}/{EXPORT_FOLDER}"),
        run_dir=address(storage_path, record.experiment),
        results_dir=address(storage_path, "results"),
    )


def show_result(result: TrainResult) -> None:
    """The closing table."""
    last = f"{result.last_dev_accuracy:.4f}" if result.last_dev_accuracy is not None else "not scored"
    start = f", first step after {result.startup_seconds:.1f} s" if result.startup_seconds else ""
    show_plan(
        console(),
        [
            ("", ""),
            ("run", f"{result.name}: {result.status.replace('_', ' ')}"),
            ("model", result.model_label),
            ("evaluated on", result.eval_split),
            ("accuracy", f"{result.best_dev_accuracy:.4f} (best, epoch {result.best_epoch:g}); last {last}"),
            ("F1 / loss", f"{result.best_dev_f1:.4f} / {result.best_dev_loss:.4f}"),
            ("speed", f"{result.examples_per_sec:.0f} examples/s, {result.seconds:.0f} s in all{start}"),
            ("memory", f"peak {result.peak_memory_gib:.2f} GiB a worker, {result.world_size} worker(s)"),
            ("model folder", result.model_dir),
            ("run folder", f"{result.run_dir} (config.json, logs/)"),
            ("results table", result.results_dir),
            ("try it", f'sst2-ray predict --model-dir {shlex.quote(result.model_dir)} --text "..."'),
        ],
    )


def config_from_argv(argv: Sequence[str], *, prog: str) -> TrainConfig:
    """Preset, then config file, then flags: the later wins."""
    preset, rest = take(argv, "--preset")
    file, rest = take(rest, "--config")
    base = train_preset(preset) if preset else TrainConfig()
    if file:
        values = read_config_file(file)
        if "config" in values:  # a run's own config.json is a config file as well
            values = _mapping(values["config"], file)
        base = config_from_dict({**base.to_dict(), **values}, source=f"--config {file}")
    description = (
        "Fine-tune one model. --preset NAME starts from a named experiment "
        f"({', '.join(TRAIN_PRESETS)}), --config FILE.yaml from a file; flags override both. --dry-run shows the plan "
        "and starts nothing; with --calibrate it measures a few steps and says how long the run would take, with "
        "--network-gbit-per-s RATE what its messages cost."
    )
    return parse(TrainConfig, spread_range(rest), prog=prog, description=description, default=base)


def spread_range(argv: Sequence[str]) -> list[str]:
    """`--num-workers 2:8` as the two flags that it stands for."""
    workers, rest = take(argv, "--num-workers")
    if workers is None:
        return rest
    fewest, colon, most = workers.partition(":")
    return [*rest, "--num-workers", fewest, *(["--max-workers", most] if colon else [])]


def read_config_file(file: str) -> dict[str, Any]:
    """The keys and values of a YAML or JSON file. Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {file}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"--config {file}: not YAML ({' '.join(str(error).split())})") from None
    return _mapping(values, file)


def _mapping(values: Any, file: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"--config {file}: must hold keys and values, one a line, e.g. learning_rate: 8e-5")
    return values


def dry_run(config: TrainConfig, *, calibrate: bool = False, network_gbit_per_s: float | None = None) -> None:
    """Print the resolved config and the plan; start and write nothing.

    calibrate: measure a few steps on this machine's CPUs, and say how long the run would take and what it would need.
    network_gbit_per_s: between the workers' machines, for the time that their messages take.
    """
    with RunSession(config, config.run_name) as session:
        inputs = check(config)
        is_finished = check_run(session.storage_at_start, inputs) is not None
        prepared = prepare(inputs)
        session.out.print_json(json.dumps(config.to_dict()))
        cluster, is_connected = session.cluster_without_starting()
        placement = decide(config, cluster)
        if calibrate and (placement.use_gpu or is_connected):
            raise InputError(
                "--calibrate: measures on this machine's CPUs only; leave it out for GPUs and for clusters"
            )
        session.show_plan(describe(prepared, placement, network_gbit_per_s=network_gbit_per_s), prepared.notes())
        if calibrate:
            session.note("measuring a few steps on this machine ...")
            show_plan(session.out, forecast(prepared, placement).rows(config.price_per_hour))
        done = "finished already: a run would do nothing"
        session.note(done if is_finished else "dry run: nothing was started, nothing was written")


def _rate(word: str | None) -> float | None:
    """The value of --network-gbit-per-s."""
    try:
        rate = None if word is None else float(word)
    except ValueError:
        rate = math.nan
    if rate is not None and not 0 < rate < math.inf:
        raise InputError(f"--network-gbit-per-s {word}: must be a number above 0")
    return rate


def main(argv: list[str]) -> int:
    dry, calibrate = "--dry-run" in argv, "--calibrate" in argv
    network, argv = take(argv, "--network-gbit-per-s")
    config = config_from_argv([w for w in argv if w not in ("--dry-run", "--calibrate")], prog="sst2-ray train")
    if dry or calibrate:
        dry_run(config, calibrate=calibrate, network_gbit_per_s=_rate(network))
    elif network is not None:
        raise InputError("--network-gbit-per-s: is for plans; give --dry-run with it")
    else:
        show_result(train(config))
    return 0
