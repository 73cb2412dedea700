"""A small actor to which workers tell how far they are, and which displays, watchdogs and schedulers read and answer."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, Literal

Stop = Literal["early_stopped", "stopped"]
"""early_stopped: a scheduler ends the trial for good. stopped: on request; it can go on another time."""

SECRETS = ("HF_TOKEN",)
"""Environment variables of the driver that workers need."""

WAIT: Literal["wait"] = "wait"
"""A scheduler has not answered yet: ask again."""

ANSWER_TIMEOUT_S = 30.0
"""A rank goes on where its scheduler does not answer for so long."""


@dataclass
class _Trial:
    """One attempt of one trial."""

    asks: bool
    progress: dict[str, Any] = field(default_factory=dict)
    ranks: dict[int, dict[str, Any]] = field(default_factory=dict)
    dev_accuracy: float | None = None
    events: list[tuple[str, Any]] = field(default_factory=list)
    stop: Stop | None = None
    answered: int = 0
    answers: dict[int, Stop | None] = field(default_factory=dict)
    asked_at: dict[int, float] = field(default_factory=dict)
    moved: float = field(default_factory=time.time)


class Board:
    """State of the attempts that run now, by trial id; made remote by the driver, with no CPU of its own."""

    def __init__(self) -> None:
        self._trials: dict[str, _Trial] = {}
        self._said: list[str] = []
        self._secrets: dict[str, str] = {}

    def keep_secrets(self, secrets: dict[str, str]) -> None:
        self._secrets = secrets

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
        trial.ranks[rank] = {
            "global_step": values.get("global_step", 0),
            "phase": values.get("phase", ""),
            "at": time.time(),
        }
        if rank == 0:
            trial.progress = values
        trial.moved = time.time()

    def event(self, trial_id: str, kind: str, value: Any) -> None:
        """kind: 'record' (EpochRecord), 'note' (one line), 'node' (rank, address, chip, actor), 'hung' (one line)."""
        trial = self._of(trial_id)
        trial.events.append((kind, value))
        if kind == "record":
            trial.dev_accuracy = value.dev_accuracy
        trial.moved = time.time()

    def go_on(self, trial_id: str, global_step: int) -> Stop | Literal["wait"] | None:
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

    def ask_to_stop(self, trial_id: str, how: Stop) -> None:
        """After the next evaluation. What a user asks for outweighs a scheduler."""
        trial = self._of(trial_id)
        trial.stop = how if trial.stop is None else "stopped"

    def read(
        self, trial_id: str, seen: int
    ) -> tuple[dict[str, Any], list[tuple[str, Any]], dict[int, dict[str, Any]], float]:
        """Progress, the events from number `seen` on, every rank's place, and seconds since anything moved."""
        trial = self._of(trial_id)
        return trial.progress, trial.events[seen:], trial.ranks, time.time() - trial.moved

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

    board = ray.remote(num_cpus=0)(Board).remote()
    board.keep_secrets.remote({name: os.environ[name] for name in SECRETS if name in os.environ})
    return board
