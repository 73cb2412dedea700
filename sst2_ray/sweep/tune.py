"""The objects that Tune asks: a searcher for the next trial, a scheduler for early stops, a callback for trackers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sst2_ray.errors import FailureClass
from sst2_ray.records import Status
from sst2_ray.sweep.budget import Budget, Durations, SweepClock
from sst2_ray.sweep.configurations import TrialSpec
from sst2_ray.sweep.queue import FINISHED, Outcome, TrialQueue
from sst2_ray.sweep.schedulers import EarlyStopping
from sst2_ray.sweep.trial import TuneConfig, TuneResult

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial as TuneTrial

    from sst2_ray.run.tracking.trackers import Trackers


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
        if self._rule is not None and outcome is not None and spec.is_first_seed and outcome.is_worst:
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
