"""Everything that Tune calls: the function of a trial, the searcher, the scheduler and the callback for trackers."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sst2_ray.errors import FailureClass, RunFailedError, Sst2RayError
from sst2_ray.records import EpochRecord, Status
from sst2_ray.run.environment import prepare_driver
from sst2_ray.run.monitor import SweepMember
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import run_description
from sst2_ray.run.supervisor import Shared, Trial
from sst2_ray.run.workspace import Workspace
from sst2_ray.sweep.budget import Budget, Durations, SweepClock
from sst2_ray.sweep.configurations import TrialSpec
from sst2_ray.sweep.queue import FINISHED, Outcome, TrialQueue
from sst2_ray.sweep.schedulers import EarlyStopping, Evaluation, evaluation_number

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial as TuneTrial

    from sst2_ray.run.tracking.trackers import Trackers


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
    """Everything that all trials of a sweep share: in the object store once, read by every trial's driver."""

    experiment: str
    workspace: Workspace
    shared: dict[str, Shared]
    """By model."""
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
    trial.run_storage.write_json("config.json", run_description(trial.shared.inputs))
    try:
        record = trial.run()
        trial.drop_checkpoints(record)
    except Sst2RayError as error:
        failure_class = error.failure_class if isinstance(error, RunFailedError) else FailureClass.NOT_PLACEABLE
        return _failed(failure_class)
    except Exception as error:  # of this package's own: its row says what
        trial.attempts.close_orphans(f"{type(error).__name__}: {error}"[:1000], FailureClass.BUG)
        return _failed(FailureClass.BUG)
    return {"outcome": Outcome.of(record)}


def _failed(failure_class: FailureClass) -> TuneResult:
    return {"outcome": Outcome(status=Status.FAILED, score=None, failure_class=failure_class)}


def _result(spec: TrialSpec, record: EpochRecord) -> TuneResult:
    evaluation = Evaluation(
        trial_id=spec.trial_id,
        model=spec.config.model,
        number=evaluation_number(record.epoch, spec.config.evaluations_per_epoch),
        accuracy=record.dev_accuracy or 0.0,
        num_rows=record.num_dev_rows or 1,
    )
    return {"evaluation": evaluation, "record": record}


class FirstSeedScheduler(FIFOScheduler):
    """Tune's scheduler of a sweep: asks the stopping rule, and lets a stopped trial end itself.

    The trial's row, curve and processes are then left in order; Tune sees a trial that completed.

    Args:
        rule: The stopping rule; None: nothing is stopped.
        stop: Called with the id of a trial that is to end after this evaluation.
    """

    def __init__(self, rule: EarlyStopping | None, stop: Callable[[str], object]) -> None:
        super().__init__()
        self._rule, self._stop = rule, stop

    def on_trial_result(self, tune_controller: TuneController, trial: TuneTrial, result: TuneResult) -> str:  # noqa: ARG002
        """Decide on an evaluation of the first seed; Tune itself always goes on."""
        evaluation = result.get("evaluation") if trial.config["spec"].is_first_seed else None
        if self._rule is not None and evaluation is not None and self._rule.decide(evaluation):
            self._stop(evaluation.trial_id)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: TuneController, trial: TuneTrial, result: TuneResult) -> None:  # noqa: ARG002
        """Count a configuration that failed for good as the worst."""
        outcome, spec = result.get("outcome"), trial.config["spec"]
        if self._rule is not None and outcome is not None and spec.is_first_seed and outcome.worth == 0.0:
            self._rule.record_failure(spec.trial_id, spec.config.model)

    def __reduce__(self) -> tuple[type[FIFOScheduler], tuple[()]]:
        """Pickle as an empty scheduler: Tune writes one into the experiment's folder, and nobody reads it."""
        return FIFOScheduler, ()


class TrackingCallback(Callback):
    """A callback of Tune that passes on to the trackers what happens to trials."""

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers

    def __reduce__(self) -> tuple[type[Callback], tuple[()]]:
        """Pickle as an empty callback, as the scheduler does."""
        return Callback, ()

    def on_trial_start(self, *, trial: TuneTrial, **_: object) -> None:
        """Begin a run with the settings of its trial."""
        spec: TrialSpec = trial.config["spec"]
        self._trackers.start(spec.trial_id, {**dataclasses.asdict(spec.configuration), "seed": spec.config.seed})

    def on_trial_result(self, *, trial: TuneTrial, result: TuneResult, **_: object) -> None:
        """Track an evaluation, or the end of a trial."""
        spec: TrialSpec = trial.config["spec"]
        if "record" in result:
            self._trackers.log(spec.trial_id, result["record"])
        if "outcome" in result:
            self._trackers.end(spec.trial_id, result["outcome"].status)

    def on_trial_error(self, *, trial: TuneTrial, **_: object) -> None:
        """End the run of a trial whose driver died."""
        self._trackers.end(trial.config["spec"].trial_id, Status.FAILED)


class SweepSearcher(Searcher):
    """Tune's searcher: hands out what the queue has next, while the budget allows it.

    Called from Tune's loop, in one thread. `ended_by` says why it handed out no more: budget, stop, or None.

    Args:
        queue: The trials.
        budget: The limit on time and money.
        clock: The sweep's time so far.
        durations: What is known of how long trials take; learns from those that end.
        begun: Trials that an earlier session has begun: what they take now is not what a trial takes.
        on_change: Called after a trial was handed out or has ended.
    """

    def __init__(
        self,
        queue: TrialQueue,
        *,
        budget: Budget,
        clock: SweepClock,
        durations: Durations,
        begun: Container[str],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__()
        self.queue, self.budget, self.clock, self.durations = queue, budget, clock, durations
        self.begun, self.on_change = begun, on_change
        self.ended_by: str | None = None
        self._specs: dict[str, TrialSpec] = {}
        self._started: dict[str, float] = {}

    def stop(self) -> None:
        """Hand out nothing more."""
        self.ended_by = self.ended_by or "stop"

    def suggest(self, trial_id: str) -> TuneConfig | str | None:
        """Answer Tune's question for the next trial; None: not now."""
        if self.ended_by is not None:
            return str(Searcher.FINISHED)
        spec = self.queue.peek()
        if spec is None:
            return None
        if spec == FINISHED:
            return str(Searcher.FINISHED)
        assert isinstance(spec, TrialSpec)
        if not self.budget.allows(self.clock.seconds, self.durations.predict(spec.config), self.running_left()):
            if self.queue.running:
                return None  # what runs may end sooner than foretold, and leave room
            self.ended_by = "budget"
            return str(Searcher.FINISHED)
        self._specs[trial_id] = self.queue.take()
        self._started[spec.trial_id] = time.monotonic()
        self.on_change()
        return {"spec": spec}

    def running_left(self) -> list[float]:
        """Estimate the seconds that each running trial still needs, where that can be told."""
        left = []
        for trial_id, spec in list(self.queue.running.items()):
            whole = self.durations.predict(spec.config)
            if whole is not None:
                left.append(max(0.0, whole - self.elapsed(trial_id)))
        return left

    def elapsed(self, trial_id: str) -> float:
        """Return the seconds since a running trial was started in this session."""
        return time.monotonic() - self._started.get(trial_id, time.monotonic())

    def on_trial_complete(self, trial_id: str, result: TuneResult | None = None, error: bool = False) -> None:
        """Record the outcome of a trial. One without a result lost its driver, and did again when Tune restarted it."""
        spec = self._specs.pop(trial_id)
        lost = Outcome(status=Status.FAILED, score=None, failure_class=FailureClass.WORKER_LOST)
        outcome = lost if error or result is None else result.get("outcome", lost)
        if outcome.status == Status.SUCCEEDED and spec.trial_id not in self.begun:
            self.durations.add(spec.config, self.elapsed(spec.trial_id))
        self.queue.close(spec.trial_id, outcome)
        self.on_change()

    # Tune pickles its searcher into the experiment's folder. A sweep resumes from the results table: nothing goes there.

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        """Pickle as an empty searcher."""
        return Searcher, ()

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""
