"""A small actor to which workers tell how far they are, and which displays, watchdogs and schedulers read and answer."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sst2_ray.errors import InfeasibleError
from sst2_ray.records import EpochRecord, Status, StopRequest
from sst2_ray.run.messages import Event, Heartbeat, Progress, TrialOverview, TrialView

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

SECRETS = ("HF_TOKEN",)
"""Environment variables of the driver that workers need."""

WAIT: Literal["wait"] = "wait"
"""A scheduler has not answered yet: ask again."""

_POLL_S = 0.5

ANSWER_TIMEOUT_S = 30.0
"""A rank goes on where its scheduler does not answer for so long."""


@dataclass
class _Trial:
    """State of one attempt of one trial."""

    asks_scheduler: bool
    progress: Progress | None = None
    heartbeats: dict[int, tuple[Heartbeat, float]] = field(default_factory=dict)
    """Heartbeats by rank, with the time.monotonic() at which each was heard."""
    preemption_requested: bool = False
    evaluation: EpochRecord | None = None
    events: list[tuple[int, Event]] = field(default_factory=list)
    stop: StopRequest | None = None
    answered: int = 0
    answers: dict[int, StopRequest | None] = field(default_factory=dict)
    asked_at: dict[int, float] = field(default_factory=dict)
    moved: float = field(default_factory=time.monotonic)


class ProgressActor:
    """State of the attempts that run now, by trial id; made remote by the driver, with no CPU of its own.

    If its process dies, Ray starts it again, empty: what it was told before is lost, later calls are answered.
    """

    def __init__(self, secrets: dict[str, str] | None = None) -> None:
        """Start without trials. `secrets`: environment variables for the workers."""
        self._trials: dict[str, _Trial] = {}
        self._remarks: list[str] = []
        self._secrets = secrets or {}
        # Numbered by the time at which the actor was made: one that was started again goes on above the old numbers.
        self._numbers = itertools.count(time.time_ns())

    def secrets(self) -> dict[str, str]:
        """Return what workers need and no metadata may show: the dashboard shows runtime environments, but not this."""
        return self._secrets

    def open(self, trial_id: str, *, asks_scheduler: bool = False) -> None:
        """Begin an attempt. `asks_scheduler`: after each evaluation its workers wait for `answer`."""
        self._trials[trial_id] = _Trial(asks_scheduler=asks_scheduler)

    def close(self, trial_id: str) -> None:
        """Forget a trial."""
        self._trials.pop(trial_id, None)

    # ---- called by workers

    def progress(self, trial_id: str, rank: int, progress: Progress) -> None:
        """Note that a rank moved; the progress of rank 0 is shown."""
        trial = self._of(trial_id)
        if rank == 0:
            trial.progress = progress
        trial.moved = time.monotonic()

    def heartbeat(self, trial_id: str, rank: int, heartbeat: Heartbeat) -> bool:
        """Note where a rank is. Returns whether the workers are asked to write a checkpoint and leave."""
        trial = self._of(trial_id)
        trial.heartbeats[rank] = (heartbeat, time.monotonic())
        return trial.preemption_requested

    def post(self, trial_id: str, event: Event) -> None:
        """Add an event, which the driver of the trial reads."""
        trial = self._of(trial_id)
        trial.events.append((next(self._numbers), event))
        if isinstance(event, EpochRecord):
            trial.evaluation = event
        trial.moved = time.monotonic()

    def go_on(self, trial_id: str, global_step: int) -> StopRequest | Literal["wait"] | None:
        """Decide whether to stop after the evaluation at this step.

        The first rank that is answered fixes the answer for all: ranks that heard different answers would wait for each
        other for ever.
        """
        trial = self._of(trial_id)
        if global_step not in trial.answers:
            asked_at = trial.asked_at.setdefault(global_step, time.monotonic())
            in_time = time.monotonic() - asked_at < ANSWER_TIMEOUT_S
            if trial.asks_scheduler and trial.stop is None and trial.answered < global_step and in_time:
                return WAIT
            trial.answers[global_step] = trial.stop
        return trial.answers[global_step]

    # ---- called by drivers

    def remark(self, line: str) -> None:
        """Add a remark for whoever watches all trials."""
        self._remarks.append(line)

    def answer(self, trial_id: str, global_step: int) -> None:
        """Note that the scheduler has seen the evaluation at this step; before, it calls `ask_to_stop` if it wants that."""
        self._of(trial_id).answered = global_step

    def ask_to_stop(self, trial_id: str, how: StopRequest) -> None:
        """Stop after the next evaluation. A user's request outweighs a scheduler's."""
        trial = self._of(trial_id)
        trial.stop = how if trial.stop is None else Status.STOPPED

    def request_preemption(self, trial_id: str) -> None:
        """Have the workers write a checkpoint after the step that they are at, and leave."""
        self._of(trial_id).preemption_requested = True

    def read(self, trial_id: str, seen: int) -> TrialView:
        """Return progress, the events after number `seen`, and every rank's last heartbeat."""
        trial, now = self._of(trial_id), time.monotonic()
        return TrialView(
            progress=trial.progress,
            events=tuple(event for event in trial.events if event[0] > seen),
            heartbeats={
                rank: dataclasses.replace(heartbeat, age_s=now - at)
                for rank, (heartbeat, at) in trial.heartbeats.items()
            },
        )

    def overview(self, seen: int) -> tuple[dict[str, TrialOverview], list[str]]:
        """Return how far every open attempt is, and the remarks from number `seen` on."""
        now = time.monotonic()
        trials = {
            trial_id: TrialOverview(progress=trial.progress, evaluation=trial.evaluation, idle_s=now - trial.moved)
            for trial_id, trial in self._trials.items()
        }
        return trials, self._remarks[seen:]

    def _of(self, trial_id: str) -> _Trial:
        return self._trials.setdefault(trial_id, _Trial(asks_scheduler=False))


def start_progress_actor() -> ActorHandle:
    """Start an actor on the cluster that the driver is connected to; it knows the driver's secrets."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node: Ray puts what needs no CPU on any node, and a node that dies must take nothing but its workers.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    secrets = {name: os.environ[name] for name in SECRETS if name in os.environ}
    remote = ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1)(ProgressActor)
    return remote.remote(secrets)


def wait_for_first_answer(answer: ObjectRef, *, within_s: float, is_stopped: Callable[[], bool]) -> bool:
    """Wait for the first call of an actor: whatever keeps its process from starting ends here, not never.

    Args:
        answer: of the call.
        within_s: as long as workers may take to be placed.
        is_stopped: asked now and then.

    Returns:
        False where it was asked to stop before.

    Raises:
        InfeasibleError: There was no answer in time.
    """
    import ray

    deadline = time.monotonic() + within_s
    while not ray.wait([answer], timeout=_POLL_S)[0]:
        if is_stopped():
            return False
        if time.monotonic() > deadline:
            raise InfeasibleError(
                f"Ray has started no process within --placement-timeout-s {within_s:g}: is a disk full, a runtime_env "
                "broken, or a node gone? Its logs say, session_latest/logs below Ray's folder (/tmp/ray)"
            )
    ray.get(answer)
    return True
