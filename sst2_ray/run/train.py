"""The main job: one fine-tuning run on a Ray cluster, and its dry run."""

from __future__ import annotations

import dataclasses
import json
import shlex
from functools import partial

from sst2_ray import formatting
from sst2_ray.config.fields import describe_changes
from sst2_ray.config.metrics import METRIC_NAMES, shown
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError, StoppedError
from sst2_ray.records import Status, TrialRecord
from sst2_ray.run.attempt_log import resume_line
from sst2_ray.run.display import RunDisplay
from sst2_ray.run.planning.forecast import forecast
from sst2_ray.run.planning.placement import Placement, decide
from sst2_ray.run.planning.summary import describe
from sst2_ray.run.prepare import check, check_run, prepare, run_description
from sst2_ray.run.session import RunSession
from sst2_ray.run.supervisor import Shared, Trial
from sst2_ray.run.tracking.trackers import Trackers, check_trackers, tracker_rows
from sst2_ray.storage import address
from sst2_ray.terminal import Rows, show_plan
from sst2_ray.training.names import EXPORT_FOLDER


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TrainResult(Rows):
    """Result of a finished run."""

    name: str
    status: str
    """succeeded, also where patience ran out before the last epoch."""
    eval_split: str
    """Name of dev, e.g. 'SST-2 dev' or 'hold-out of rotten-tomatoes'."""
    best_dev_accuracy: float
    best_dev_f1: float
    best_dev_loss: float
    best_dev_macro_f1: float | None = None
    best_dev_mcc: float | None = None
    chosen_by: str = "accuracy"
    """Metric that the best epoch was chosen by."""
    best_score: float | None = None
    """That metric at the best epoch, on dev."""
    other_scores_json: str | None = None
    """Scores on further evaluation splits of the data, by split."""
    majority_share: float | None = None
    """Accuracy on dev of always answering its most frequent class."""
    best_num_answered: int | None = None
    """Classes that the best model answers at least once on dev; 1: its answer is constant."""
    best_epoch: float
    last_dev_accuracy: float | None
    """Null if the epoch was chosen on a held-out part of train and dev was scored once."""
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
    goodput: float | None = None
    """Share of the time of all attempts in optimizer steps that counted, 0-1."""
    num_lost_steps: int | None = None
    """Optimizer steps that attempts did again."""
    time_words: str = ""
    """Where the time of all attempts went, in one line."""

    def rows(self) -> list[tuple[str, str]]:
        """Return name and value of each line of the closing table."""
        return result_rows(self)


def train(config: TrainConfig, *, quiet: bool = False) -> TrainResult:
    """Fine-tune as `config` says, and go on where an interrupted run of the same name stopped.

    Blocks until the run has ended; Ray is joined or started, and left running in this process. Raises InputError before
    anything is started or written, InfeasibleError where the workers can never be placed, RunFailedError where the run
    failed.
    """
    with RunSession(config, config.run_name, quiet=quiet) as session:
        session.phase(f"reading {config.data}")
        session.lease.check()
        check_trackers(config.trackers, session.folder)
        inputs = check(config)
        done = check_run(session.storage_at_start, inputs)
        if done is not None:
            session.note(f"{config.run_name} is finished already: nothing to do")
            return TrainResult(**done)
        cluster, prepared = session.start(lambda view: decide(config, view), lambda: prepare(inputs))
        placement = decide(config, cluster)
        session.show_plan(describe(prepared, placement), prepared.notes())
        with session.running(), Trackers(config.trackers, session.folder, session.name, session.note) as trackers:
            if line := resume_line(session.folder):
                session.note(line)
            session.folder.write_json("config.json", run_description(inputs))
            return _run(session, Shared.put(prepared), placement, trackers)


def _run(session: RunSession, shared: Shared, placement: Placement, trackers: Trackers) -> TrainResult:
    """Run the trial of a session to its end. Raises StoppedError where it was stopped before."""
    name, config = session.name, shared.inputs.config
    trackers.start(name, config.to_dict())
    with RunDisplay(session.out, partial(trackers.log, name), config.metric) as display, session.signals.graceful():
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
    trackers.end(name, record.status)
    if record.status == Status.STOPPED:
        raise StoppedError(f"{name}: {_why_stopped(session, record)}")
    result = _result(record, shared.inputs.resolved.info.label, session.workspace.uri)
    result = dataclasses.replace(result, time_words=trial.goodput().words())
    session.folder.write_json("result.json", dataclasses.asdict(result))
    trial.drop_checkpoints(record)
    show_plan(session.out, [*result_rows(result), *tracker_rows(config.trackers, session.folder)])
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


def dry_run(
    config: TrainConfig, *, calibrate: bool = False, network_gbit_per_s: float | None = None, as_json: bool = False
) -> None:
    """Show what differs from the defaults, and the plan; start and write nothing.

    Args:
        config: of the run.
        calibrate: measure a few steps on this machine's CPUs, and say how long the run would take and what it would need.
        network_gbit_per_s: rate between the workers' machines, for the time that their messages take.
        as_json: print config, plan and notes as one JSON object, and nothing else.
    """
    with RunSession(config, config.run_name, quiet=as_json) as session:
        session.phase(f"reading {config.data}")
        inputs = check(config)
        is_finished = check_run(session.storage_at_start, inputs) is not None
        prepared = prepare(inputs)
        cluster, is_connected = session.cluster_without_starting()
        placement = decide(config, cluster)
        if calibrate and (placement.use_gpu or is_connected):
            raise InputError(
                "--calibrate: measures on this machine's CPUs only; leave it out for GPUs and for clusters"
            )
        plan, notes = describe(prepared, placement, network_gbit_per_s=network_gbit_per_s), prepared.notes()
        session.show_plan([("settings", describe_changes(config)), *plan], notes)
        if calibrate:
            session.note("measuring a few steps on this machine ...")
            measured = forecast(prepared, placement).rows(config.price_per_hour)
            show_plan(session.out, measured)
            plan = [*plan, *measured]
        resumes = None if is_finished else resume_line(session.storage_at_start.child(session.name))
        if resumes:
            session.note(resumes)
        done = "finished already: a run would do nothing"
        session.note(done if is_finished else "dry run: nothing was started, nothing was written")
    if as_json:
        values = {"config": config.to_dict(), "plan": dict(plan), "notes": notes, "finished": is_finished}
        print(json.dumps({**values, "resumes": resumes}, indent=1))


def _class_rows(result: TrainResult) -> list[tuple[str, str]]:
    """Set the accuracy beside that of a constant answer, and say where the model gives one."""
    if result.majority_share is None or result.best_dev_macro_f1 is None:
        return []
    scores = f"macro F1 {formatting.percent(result.best_dev_macro_f1)} %, MCC {result.best_dev_mcc:.4f}"
    constant = f"always answering the largest class: accuracy {formatting.percent(result.majority_share)} %"
    rows = [("of all classes", f"{scores}; {constant}")]
    if result.chosen_by != "accuracy":
        rows.insert(0, ("chosen by", f"{METRIC_NAMES[result.chosen_by]} {shown(result.chosen_by, result.best_score)}"))
    if result.best_num_answered == 1:
        rows.append(
            ("constant answer", "the model answers one class for every sentence of dev: it has learned nothing")
        )
    return rows


def _score_words(scores: dict[str, float]) -> list[str]:
    """Describe the scores on another split: accuracy, the metric that decided, rows."""
    named = [f"{METRIC_NAMES[name]} {shown(name, value)}" for name, value in scores.items() if name in METRIC_NAMES]
    return [*named, formatting.count(round(scores["num_rows"]), "row")]


def result_rows(result: TrainResult) -> list[tuple[str, str]]:
    """Return name and value of each line of the closing table."""
    last = f"{formatting.percent(result.last_dev_accuracy)} %" if result.last_dev_accuracy is not None else "not scored"
    start = f", first step after {result.startup_seconds:.1f} s" if result.startup_seconds else ""
    return [
        ("", ""),
        ("run", f"{result.name}: {result.status.replace('_', ' ')}"),
        ("model", result.model_label),
        ("evaluated on", result.eval_split),
        (
            "accuracy",
            f"{formatting.percent(result.best_dev_accuracy)} % (best, epoch {result.best_epoch:g}); last {last}",
        ),
        ("F1 / loss", f"{formatting.percent(result.best_dev_f1)} % / {result.best_dev_loss:.4f}"),
        *_class_rows(result),
        *[
            (name.replace("validation_", ""), "; ".join(_score_words(scores)))
            for name, scores in json.loads(result.other_scores_json or "{}").items()
        ],
        ("speed", f"{result.examples_per_sec:.0f} examples/s, {result.seconds:.0f} s in all{start}"),
        *([("time", result.time_words)] if result.time_words else []),
        ("memory", f"peak {result.peak_memory_gib:.2f} GiB a worker, {formatting.count(result.world_size, 'worker')}"),
        ("model folder", result.model_dir),
        ("run folder", f"{result.run_dir} (config.json, logs/)"),
        ("results table", result.results_dir),
        ("try it", f'sst2-ray predict --model-dir {shlex.quote(result.model_dir)} --text "..."'),
    ]
