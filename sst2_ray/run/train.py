"""The main job: one fine-tuning run on a Ray cluster, and its dry run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from functools import partial

from sst2_ray.config.fields import check_is, describe_changes
from sst2_ray.config.python_calls import told_in_python
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.kept import keeping_nothing
from sst2_ray.errors import InputError, StoppedError
from sst2_ray.formatting import without_secret, without_secrets
from sst2_ray.own_files import CONFIG_FILE
from sst2_ray.records import Status, TrialRecord
from sst2_ray.run.attempt_log import resume_line
from sst2_ray.run.connect import importing_ahead
from sst2_ray.run.display import RunDisplay
from sst2_ray.run.planning.forecast import forecast
from sst2_ray.run.planning.placement import ClusterView, Placement, decide
from sst2_ray.run.planning.summary import describe, on_paper
from sst2_ray.run.prepare import check, check_run, run_description
from sst2_ray.run.result import TrainResult, result_of, result_rows, stored_result
from sst2_ray.run.session import RunSession
from sst2_ray.run.supervisor import Shared, Trial
from sst2_ray.run.tokenizing import prepare, tokenize
from sst2_ray.run.tracking.trackers import Trackers, check_trackers, tracker_rows
from sst2_ray.storage import address, typed
from sst2_ray.terminal import show_plan


@told_in_python
def train(config: TrainConfig, *, quiet: bool = False) -> TrainResult:
    """Fine-tune as `config` says, and go on where an interrupted run of the same name stopped.

    Blocks until the run has ended; Ray is joined or started, and left running in this process. Raises InputError before
    anything is started or written, InfeasibleError where the workers can never be placed, RunFailedError where the run
    failed.
    """
    check_is(config, TrainConfig)
    with importing_ahead(), RunSession(config, config.run_name, quiet=quiet) as session:
        session.phase(f"reading {without_secret(config.data)}")
        session.check_free()
        check_trackers(config.trackers, session.folder)
        inputs = check(config)
        done = check_run(session.storage_at_start, inputs)
        if done is not None:
            result = stored_result(done, f"--name {config.run_name}")
            session.note(f"{config.run_name} is finished already: nothing to do; its model: {typed(result.model_dir)}")
            return result
        cluster, tokenized = session.start(lambda view: decide(config, view), partial(tokenize, inputs))
        prepared = inputs.with_tokens(tokenized)
        placement = decide(config, cluster)
        bounds = on_paper(prepared, placement, cluster) if placement.can_scale else None
        session.show_plan([*describe(prepared, placement), *(bounds.rows() if bounds else [])], prepared.notes())
        with session.running(), Trackers(config.trackers, session.folder, session.name, session.note) as trackers:
            if line := resume_line(session.folder):
                session.note(line)
            session.folder.write_json(CONFIG_FILE, run_description(inputs))
            return _run(session, Shared.put(prepared), placement, trackers)


def _run(session: RunSession, shared: Shared, placement: Placement, trackers: Trackers) -> TrainResult:
    """Run the trial of a session to its end. Raises StoppedError where it was stopped before."""
    name, config = session.name, shared.inputs.config
    trackers.start(name, without_secrets(config.to_dict()))
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
    result = result_of(record, shared.inputs.resolved.info.label, session.workspace.uri)
    spent = trial.goodput()
    result = dataclasses.replace(result, seconds=spent.wall, time_words=spent.words())
    session.folder.write_json("result.json", dataclasses.asdict(result))
    with contextlib.suppress(OSError):  # `sst2-ray gc` deletes what is left
        trial.drop_checkpoints(record)
    session.show_end([*result_rows(result), *tracker_rows(config.trackers, address(config.storage_path, name))])
    return result


def _why_stopped(session: RunSession, record: TrialRecord) -> str:
    """Say who stopped a run and where the same command goes on."""
    if session.lease.taken_by:
        return f"stopped, since {session.lease.taken_by} runs it now"
    if record.last_global_step is None:
        return "stopped on request before its first checkpoint; the same command starts it again"
    return f"stopped on request; step {record.last_global_step} is saved, and the same command goes on there"


def dry_run(
    config: TrainConfig,
    *,
    calibrate: bool = False,
    network_gbit_per_s: float | None = None,
    on: ClusterView | None = None,
    as_json: bool = False,
) -> None:
    """Show what differs from the defaults, and the plan; start and write nothing.

    Args:
        config: of the run.
        calibrate: measure a few steps on this machine's CPUs, and say how long the run would take and what it would need.
        network_gbit_per_s: rate between the workers' machines, for the time that their messages take.
        on: machines to plan for; None: those of the cluster that is there, or this one.
        as_json: print config, plan and notes as one JSON object, and nothing else.
    """
    with keeping_nothing(), RunSession(config, config.run_name, quiet=as_json) as session:
        session.phase(f"reading {without_secret(config.data)}")
        inputs = check(config)
        is_finished = check_run(session.storage_at_start, inputs) is not None
        prepared = prepare(inputs)
        cluster, is_connected = (on, False) if on else session.cluster_without_starting()
        placement = decide(config, cluster)
        if calibrate and (placement.use_gpu or is_connected):
            raise InputError(
                "--calibrate: measures on this machine's CPUs only; leave it out for GPUs and for clusters"
            )
        plan, notes = describe(prepared, placement, network_gbit_per_s=network_gbit_per_s), prepared.notes()
        bounds = on_paper(prepared, placement, cluster, network_gbit_per_s=network_gbit_per_s)
        plan += bounds.rows() if bounds else []
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
        values = {"config": without_secrets(config.to_dict()), "plan": dict(plan), "notes": notes}
        on_gpus = bounds.to_dict() if bounds else None
        print(json.dumps({**values, "finished": is_finished, "resumes": resumes, "on_paper": on_gpus}, indent=1))
