"""A small actor to which workers tell how far they are, and which displays, watchdogs and schedulers read and answer."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from sst2_ray.records import Status, StopRequest

SECRETS = ("HF_TOKEN",)
"""Environment variables of the driver that workers need."""

WAIT: Literal["wait"] = "wait"
"""A scheduler has not answered yet: ask again."""

ANSWER_TIMEOUT_S = 30.0
"""A rank goes on where its scheduler does not answer for so long."""


@dataclass(frozen=True, kw_only=True)
class Beat:
    """Where a rank is, told by a thread of its own. `still_s`: seconds since it last moved, as it says itself."""

    global_step: int
    phase: str
    still_s: float
    at: float
    """time.time() on the board."""


@dataclass
class _Trial:
    """One attempt of one trial."""

    asks: bool
    progress: dict[str, Any] = field(default_factory=dict)
    beats: dict[int, Beat] = field(default_factory=dict)
    asked_to_leave: bool = False
    dev_accuracy: float | None = None
    events: list[tuple[int, str, Any]] = field(default_factory=list)
    stop: StopRequest | None = None
    answered: int = 0
    answers: dict[int, StopRequest | None] = field(default_factory=dict)
    asked_at: dict[int, float] = field(default_factory=dict)
    moved: float = field(default_factory=time.time)


class Board:
    """State of the attempts that run now, by trial id; made remote by the driver, with no CPU of its own.

    Where its process dies Ray starts it again, empty: what it was told is lost, whoever asks afterwards is answered.
    """

    def __init__(self, secrets: dict[str, str] | None = None) -> None:
        self._trials: dict[str, _Trial] = {}
        self._said: list[str] = []
        self._secrets = secrets or {}
        # Events are numbered by when the board was made: one that was started again goes on above the numbers of the old.
        self._numbers = itertools.count(time.time_ns())

    def secrets(self) -> dict[str, str]:
        """What workers need and no metadata may show: a runtime environment stands in the dashboard, this does not."""
        return self._secrets

    def open(self, trial_id: str, *, asks: bool = False) -> None:
        """An attempt begins. `asks`: after each evaluation its workers wait for `answer`."""
        self._trials[trial_id] = _Trial(asks=asks)

    def close(self, trial_id: str) -> None:
        self._trials.pop(trial_id, None)

    # ---- workers

    def progress(self, trial_id: str, rank: int, values: dict[str, Any]) -> None:
        """`values`: phase and global_step of a rank; rank 0 adds total_steps, epoch, train_loss, examples_per_sec."""
        trial = self._of(trial_id)
        if rank == 0:
            trial.progress = values
        trial.moved = time.time()

    def beat(self, trial_id: str, rank: int, global_step: int, phase: str, still_s: float) -> bool:
        """A rank lives, and says where it is. Returns whether the workers are asked to leave."""
        trial = self._of(trial_id)
        trial.beats[rank] = Beat(global_step=global_step, phase=phase, still_s=still_s, at=time.time())
        return trial.asked_to_leave

    def event(self, trial_id: str, kind: str, value: Any) -> None:
        """kind: 'record' (EpochRecord), 'note' (one line), 'node' (rank, world_size, node, address, chip, actor, placement),
        'micro_batch_tokens' (int), 'hung' (one line)."""
        trial = self._of(trial_id)
        trial.events.append((next(self._numbers), kind, value))
        if kind == "record":
            trial.dev_accuracy = value.dev_accuracy
        trial.moved = time.time()

    def go_on(self, trial_id: str, global_step: int) -> StopRequest | Literal["wait"] | None:
        """Whether to stop after the evaluation at this step. Fixed for all ranks by the first that is answered: ranks
        that heard different answers would wait for each other for ever."""
        trial = self._of(trial_id)
        if global_step not in trial.answers:
            asked_at = trial.asked_at.setdefault(global_step, time.time())
            in_time = time.time() - asked_at < ANSWER_TIMEOUT_S
            if trial.asks and trial.stop is None and trial.answered < global_step and in_time:
                return WAIT
            trial.answers[global_step] = trial.stop
        return trial.answers[global_step]

    # ---- drivers

    def say(self, line: str) -> None:
        """A remark for whoever watches all trials."""
        self._said.append(line)

    def answer(self, trial_id: str, global_step: int) -> None:
        """The scheduler has seen the evaluation at this step (and called `ask_to_stop` before, where it wants that)."""
        self._of(trial_id).answered = global_step

    def ask_to_stop(self, trial_id: str, how: StopRequest) -> None:
        """After the next evaluation. What a user asks for outweighs a scheduler."""
        trial = self._of(trial_id)
        trial.stop = how if trial.stop is None else Status.STOPPED

    def ask_to_leave(self, trial_id: str) -> None:
        """The workers write a checkpoint after the step that they are at, and end."""
        self._of(trial_id).asked_to_leave = True

    def read(
        self, trial_id: str, seen: int
    ) -> tuple[dict[str, Any], list[tuple[int, str, Any]], dict[int, tuple[Beat, float]]]:
        """Progress, the events after number `seen`, and every rank's last beat with its age in seconds."""
        trial = self._of(trial_id)
        beats = {rank: (beat, time.time() - beat.at) for rank, beat in trial.beats.items()}
        return trial.progress, [event for event in trial.events if event[0] > seen], beats

    def overview(self, seen: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Progress of every open attempt, with its last accuracy and the seconds since anything moved (`idle_s`), and the
        remarks from number `seen` on."""
        trials = {
            trial_id: {**trial.progress, "dev_accuracy": trial.dev_accuracy, "idle_s": time.time() - trial.moved}
            for trial_id, trial in self._trials.items()
        }
        return trials, self._said[seen:]

    def _of(self, trial_id: str) -> _Trial:
        return self._trials.setdefault(trial_id, _Trial(asks=False))


def start_board() -> Any:
    """A new board on the cluster that the driver is connected to; it knows the driver's secrets."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver: Ray puts what needs no CPU on any node, and a node that dies must take nothing but its workers.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    secrets = {name: os.environ[name] for name in SECRETS if name in os.environ}
    return ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1)(Board).remote(secrets)
