"""The trials of a sweep as Tune runs them, each in a driver of its own, through the main job's code."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from sst2_ray.config.metrics import oriented, score_of, worst
from sst2_ray.errors import FailureClass, RunFailedError, Sst2RayError
from sst2_ray.own_files import CONFIG_FILE
from sst2_ray.records import EpochRecord, Status
from sst2_ray.run.environment import prepare_driver
from sst2_ray.run.failures import classify
from sst2_ray.run.monitor import SweepMember
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import run_description
from sst2_ray.run.supervisor import Shared, Trial
from sst2_ray.run.workspace import Workspace
from sst2_ray.sweep.configurations import TrialSpec
from sst2_ray.sweep.queue import Outcome
from sst2_ray.sweep.schedulers import Evaluation, evaluation_number

if TYPE_CHECKING:
    from ray.actor import ActorHandle


class TuneConfig(TypedDict):
    """The config of a trial as Tune carries it."""

    spec: TrialSpec


class TuneResult(TypedDict, total=False):
    """A result as Tune carries it: an evaluation, or at the end of a trial its outcome."""

    evaluation: Evaluation
    record: EpochRecord
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """Context that all trials of a sweep share: in the object store once, read by every trial's driver."""

    experiment: str
    workspace: Workspace
    shared: dict[str, Shared]
    """Shared inputs by model."""
    placement: Placement
    cost_share: float
    progress_actor: ActorHandle
    asks_scheduler: bool
    chooses_on_selection: bool
    """True: dev is scored at the end, for the chosen."""
    environment: dict[str, str]
    """Variables of the sweep's driver that trials need as well; never written anywhere."""


class ForwardingDisplay:
    """A trial's display: its progress is on the progress actor already, its remarks are sent there."""

    def __init__(self, progress_actor: ActorHandle, trial_id: str) -> None:
        self.progress_actor, self.trial_id = progress_actor, trial_id

    def progress(self, values: object) -> None:
        """Show nothing: the sweep's display reads the progress actor."""

    def record(self, record: EpochRecord) -> None:
        """Show nothing: the sweep's display reads the progress actor."""

    def line(self, text: str) -> None:
        """Send a remark with the trial's name."""
        self.progress_actor.remark.remote(f"{self.trial_id}: {text.removeprefix(f'{self.trial_id}: ')}")


def trial_of(
    context: SweepContext,
    spec: TrialSpec,
    *,
    on_record: Callable[[EpochRecord], None] | None = None,
    asks_scheduler: bool = False,
) -> Trial:
    """Build the trial as the main job would run it, below the sweep's folder."""
    shared = context.shared[spec.config.model]
    return Trial(
        dataclasses.replace(shared, inputs=dataclasses.replace(shared.inputs, config=spec.config)),
        context.placement,
        ForwardingDisplay(context.progress_actor, spec.trial_id),
        context.workspace,
        experiment=context.experiment,
        trial_id=spec.trial_id,
        sweep=SweepMember(
            progress_actor=context.progress_actor,
            on_record=on_record,
            asks_scheduler=asks_scheduler,
            cost_share=context.cost_share,
            score_dev=not context.chooses_on_selection,
        ),
    )


def run_trial(config: TuneConfig, *, context: SweepContext) -> TuneResult:
    """Run one trial in a process of its own; Tune's function.

    Returns its outcome and never raises: a failing trial is a row of the table, and the sweep goes on.
    """
    from ray import tune

    os.environ.update(context.environment)
    prepare_driver()
    spec = config["spec"]

    def report(record: EpochRecord) -> None:
        tune.report(_result(spec, record))

    trial = trial_of(context, spec, on_record=report, asks_scheduler=context.asks_scheduler and spec.is_first_seed)
    try:
        trial.run_storage.write_json(CONFIG_FILE, run_description(trial.shared.inputs))
        record = trial.run()
        with contextlib.suppress(OSError):  # `sst2-ray gc` deletes what is left
            trial.drop_checkpoints(record)
    except Sst2RayError as error:
        failure_class = error.failure_class if isinstance(error, RunFailedError) else FailureClass.NOT_PLACEABLE
        return _failed(failure_class)
    except Exception as error:  # of this package's own, or of the storage: its row says what
        message, failure_class = f"{type(error).__name__}: {error}"[:1000], classify(error).failure_class
        if not trial.attempts.close_orphans(message, failure_class):
            trial.attempts.add_lost(message, failure_class)
        return _failed(failure_class)
    return {"outcome": Outcome.of(record)}


def _failed(failure_class: FailureClass) -> TuneResult:
    return {"outcome": Outcome(status=Status.FAILED, score=None, failure_class=failure_class)}


def _result(spec: TrialSpec, record: EpochRecord) -> TuneResult:
    metric = spec.config.metric
    score = score_of(record, metric)
    evaluation = Evaluation(
        trial_id=spec.trial_id,
        model=spec.config.model,
        number=evaluation_number(record.epoch, spec.config.evaluations_per_epoch),
        score=worst(metric) if score is None else oriented(metric, score),
        num_rows=record.num_dev_rows or 1,
        error=record.score_error,
    )
    return {"evaluation": evaluation, "record": record}
