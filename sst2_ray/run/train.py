"""The main job: one fine-tuning run on a Ray cluster. `jobs/train.py`, `sst2-ray train` and `sst2_ray.train` are this."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sst2_ray.config.flags import parse, take
from sst2_ray.config.presets import TRAIN_PRESETS, train_preset
from sst2_ray.config.train import TrainConfig, config_from_dict
from sst2_ray.errors import InputError, StoppedError
from sst2_ray.records import Status, TrialRecord
from sst2_ray.run.display import RunDisplay
from sst2_ray.run.environment import prepare_driver, start_ray, starts_ray_here
from sst2_ray.run.lease import Lease
from sst2_ray.run.planning.forecast import forecast
from sst2_ray.run.planning.placement import ClusterView, Placement, decide, this_machine, view_of
from sst2_ray.run.planning.summary import describe
from sst2_ray.run.prepare import check, check_run, prepare, run_description
from sst2_ray.run.stop import STOP_FILE
from sst2_ray.run.supervisor import Shared, Trial
from sst2_ray.storage import Storage, absolute, address
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
    prepare_driver()
    out = console()
    out.quiet = quiet
    storage = Storage.open(config.storage_path)
    lease = Lease(storage.with_retries(), config.run_name)
    lease.check()
    checked = check(config)
    done = check_run(storage, checked)
    if done is not None:
        out.print(f"{config.run_name} is finished already: nothing to do")
        return TrainResult(**done)
    if starts_ray_here():  # what this machine can never hold is refused before Ray starts on it
        decide(config, this_machine())
    storage.probe()
    with ThreadPoolExecutor(1) as pool:  # the sentences are tokenized while Ray starts
        preparing = pool.submit(prepare, checked)
        ray = start_ray()
        prepared = preparing.result()
    placement = decide(config, view_of(ray))
    show_plan(out, describe(prepared, placement))
    for note in prepared.notes():
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    with lease:
        run = lease.run
        run.write_json("config.json", run_description(checked))
        run.delete(STOP_FILE)  # of an earlier start
        with RunDisplay(out, config.run_name) as display:
            trial = Trial(
                Shared.put(prepared, ray),
                placement,
                display,
                storage_uri=absolute(config.storage_path),
                experiment=config.run_name,
                trial_id=config.run_name,
                run_path=config.run_name,
                lease=lease,
            )
            record = trial.run()
        if record.status == Status.STOPPED:
            why = f"stopped, since {lease.taken_by} runs it now" if lease.taken_by else "stopped on request"
            raise StoppedError(f"{config.run_name}: {why}; the same command goes on from its newest checkpoint")
        result = _result(record, checked.resolved.info.label, config.storage_path)
        run.write_json("result.json", dataclasses.asdict(result))
        trial.drop_checkpoints(record)
        return result


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
    prepare_driver()
    checked = check(config)
    storage = Storage.open(config.storage_path)
    finished = check_run(storage, checked) is not None
    prepared = prepare(checked)
    out = console()
    out.print_json(json.dumps(config.to_dict()))
    placement = _placement_without_starting(config)
    if calibrate and (placement.use_gpu or not starts_ray_here()):
        raise InputError("--calibrate: measures on this machine's CPUs only; leave it out for GPUs and for clusters")
    show_plan(out, describe(prepared, placement, network_gbit_per_s=network_gbit_per_s))
    for note in prepared.notes():
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    if calibrate:
        out.print("measuring a few steps on this machine ...")
        show_plan(out, forecast(prepared, placement).rows(config.price_per_hour))
    state = (
        "finished already: a run would do nothing" if finished else "dry run: nothing was started, nothing was written"
    )
    out.print(state)


def _placement_without_starting(config: TrainConfig) -> Placement:
    """On the cluster of RAY_ADDRESS where there is one, else on this machine."""
    view: ClusterView = this_machine() if starts_ray_here() else view_of(start_ray())
    return decide(config, view)


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
