"""One `TorchTrainer.fit` in a thread, and meanwhile: what its board says, who asks to stop, what the scheduler answers."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from sst2_ray.records import EpochRecord
from sst2_ray.run.elastic import Elasticity, Leaving
from sst2_ray.run.failures import HeadLostError
from sst2_ray.run.progress_actor import Beat, start_board
from sst2_ray.run.stop import STOP_WITHIN_S, StopLevel, StopRequests

POLL_S = 0.5
ANSWER_POLL_S = 0.1
"""Where workers wait for a scheduler's answer. Each look takes a millisecond or two from who computes on the same cores."""
LOOK_S = 2.0
"""Seconds between two looks at Ray's head and at the nodes."""

ABANDON_S = 5.0
"""A stopped attempt is left to Ray so many seconds after its workers were ended, or where they were never placed."""


RECONNECT_VARIABLE, RECONNECT_S = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0
"""Ray's patience with a head that does not answer; then it ends driver and workers where they are."""

SILENT_S = 3.0
"""A rank whose last beat is older was stopped, or cannot be reached: ranks beat twice a second."""


_BEHIND = ("training", "evaluation", "checkpoint", "data", "forward", "backward", "optimizer", "communication")
"""Phases between one step and the next, the one of who is furthest behind first; who communicates may only wait."""


def place_of_hang(beats: dict[int, tuple[Beat, float]]) -> str | None:
    """Who holds the others up, out of every rank's last beat and its age in seconds; None where that cannot be told.

    A rank that is silent; else, of those that have done the fewest steps, the one that is furthest behind in its step.
    """
    if not beats:
        return None
    silent = {rank: beat for rank, (beat, age) in beats.items() if age > SILENT_S}
    if silent:
        return "; ".join(
            f"rank {rank} was stopped or cannot be reached: last heard of at step {beat.global_step}, in {beat.phase}"
            for rank, beat in sorted(silent.items())
        )

    def behind(rank: int) -> tuple[int, int, int]:
        beat = beats[rank][0]
        return beat.global_step, _BEHIND.index(beat.phase) if beat.phase in _BEHIND else 0, rank

    rank = min(beats, key=behind)
    beat = beats[rank][0]
    return f"rank {rank} makes no progress at step {beat.global_step}, in {beat.phase}"


class Head:
    """Whether Ray's head can be reached: asked of its port, since a call to a head that has gone blocks until Ray ends
    the process."""

    def __init__(self, address: str) -> None:
        self.address = address
        host, _, port = address.rpartition(":")
        self._where = (host.strip("[]"), int(port))
        self._answered = time.monotonic()
        ray_ends_us_after_s = float(os.environ.get(RECONNECT_VARIABLE, RECONNECT_S))
        # Before that the workers still reach each other and the board: they can leave in order.
        self.lost_after_s, self.leave_within_s = ray_ends_us_after_s / 2, ray_ends_us_after_s / 4

    def silent_s(self) -> float:
        """Seconds since it last answered; 0 where it answers now."""
        try:
            socket.create_connection(self._where, timeout=1.0).close()
            self._answered = time.monotonic()
            return 0.0
        except OSError:
            return time.monotonic() - self._answered


class TrialDisplay(Protocol):
    """What a trial shows."""

    def progress(self, values: dict[str, Any]) -> None: ...
    def record(self, record: EpochRecord) -> None: ...
    def line(self, text: str) -> None: ...


class WatchedFit:
    """One attempt. `nodes`, `micro_batch_tokens` (None: no model was built), `hung`, `leaving` and `was_stopped` say
    afterwards what happened besides its outcome.

    board: shared with other trials; None: one of its own. on_record: called with each evaluation. asks_scheduler: its
    workers wait until it has returned. stop: looked at all the time; the workers then write a checkpoint and leave, or are
    ended where they are. elasticity: asked every `LOOK_S`; the workers likewise leave. step_timeout_s: of silence, after
    which a rank's process is ended from here.
    """

    def __init__(
        self,
        trial_id: str,
        display: TrialDisplay,
        *,
        board: Any = None,
        on_record: Callable[[EpochRecord], None] | None = None,
        asks_scheduler: bool = False,
        stop: StopRequests,
        elasticity: Elasticity,
        step_timeout_s: float,
    ) -> None:
        self.trial_id, self.display = trial_id, display
        self.on_record, self.asks_scheduler, self.stop = on_record, asks_scheduler, stop
        self.elasticity, self.step_timeout_s = elasticity, step_timeout_s
        self.nodes: list[dict[str, Any]] = []
        self.micro_batch_tokens: int | None = None
        self.leaving: Leaving | None = None
        self.hung: str | None = None
        self._shared_board = board
        self._stop_asked_at: float | None = None
        self._ended_at: float | None = None
        self._looked_at = 0.0
        self._seen = 0
        self._beating = self._saving = False
        self._head_lost_at: float | None = None

    @property
    def was_stopped(self) -> bool:
        """Whether somebody asked this attempt to stop."""
        return self._stop_asked_at is not None

    def run(self, trainer_on: Callable[[Any], Any]) -> Any:
        """`trainer_on(board)` makes the trainer. Returns rank 0's return value, or the exception that training ended
        with; None where it was stopped before it had workers."""
        import ray

        board = self._shared_board or start_board()
        ray.get(board.open.remote(self.trial_id, asks=self.asks_scheduler))
        head = Head(ray.get_runtime_context().gcs_address)
        outcome: list[Any] = []

        def fit() -> None:
            try:
                outcome.append(trainer_on(board).fit().return_value)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=fit, name=f"fit-{self.trial_id}", daemon=True)
        thread.start()
        while thread.is_alive() and not self._is_abandoned(head):
            thread.join(ANSWER_POLL_S if self.asks_scheduler else POLL_S)
            self._look(ray, board)
            self._act_if_asked(ray, board, head)
        if self._head_lost_at is not None:
            return self._without_head(head)
        self._look(ray, board)
        if not outcome or isinstance(outcome[0], BaseException):
            self._give_back(ray)
        if self._shared_board is None:
            ray.kill(board)
        else:
            board.close.remote(self.trial_id)
        return outcome[0] if outcome else None

    def _give_back(self, ray: Any) -> None:
        """A Train controller that died leaves the places of its workers taken: nobody else could be placed there."""
        placement = next((node["placement"] for node in self.nodes if node.get("placement") is not None), None)
        if placement is not None:
            ray.util.remove_placement_group(placement)

    def _without_head(self, head: Head) -> HeadLostError:
        return HeadLostError(
            f"Ray's head at {head.address} has not answered for {head.silent_s():.0f} s; the same command goes on from "
            "the newest checkpoint on a Ray that runs"
        )

    def _look(self, ray: Any, board: Any) -> None:
        """Show what is new on the board; a board that has died is not worth a run."""
        try:
            progress, events, beats = ray.get(board.read.remote(self.trial_id, self._seen), timeout=10)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return
        self._beating = any(age <= SILENT_S for _, age in beats.values())
        self._saving = any(beat.phase == "checkpoint" and age <= SILENT_S for beat, age in beats.values())
        if progress:
            self.display.progress(progress)
        for number, kind, value in events:
            self._seen = number
            if kind == "record":
                self.display.record(value)
                if self.on_record is not None:
                    self.on_record(value)
                    board.answer.remote(self.trial_id, value.global_step)
            elif kind == "note":
                self.display.line(value)
            elif kind == "hung":
                self.hung = self.hung or place_of_hang(beats) or value
            elif kind == "node":
                self.nodes.append(value)
            elif kind == "micro_batch_tokens":
                self.micro_batch_tokens = value
        self._end_silent(ray, beats)

    def _end_silent(self, ray: Any, beats: dict[int, tuple[Beat, float]]) -> None:
        """A process that was stopped cannot end itself; where it is the only one, nobody waits for it either. Whoever does
        writes his stacks first."""
        for node in self.nodes:
            beat = beats.get(node["rank"])
            if beat is not None and beat[1] > self.step_timeout_s + SILENT_S and "actor" in node:
                self.hung = self.hung or place_of_hang(beats)
                ray.kill(node.pop("actor"))

    def _act_if_asked(self, ray: Any, board: Any, head: Head) -> None:
        """Have the workers leave, or end them, where somebody asks for it."""
        self._obey_stop(ray)
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            silent_s = head.silent_s()
            if silent_s > head.lost_after_s and self._head_lost_at is None:
                self._head_lost_at = now
                self._leave(Leaving(preempted=True, reason="Ray's head does not answer"))
            elif silent_s:
                return  # what follows would wait for it
            elif self.leaving is None and (why := self.elasticity.why_leave(ray, self.nodes)) is not None:
                self._leave(why)
        if self.leaving is not None or self.was_stopped:  # each time: a board that was started again does not know
            board.ask_to_leave.remote(self.trial_id)

    def _leave(self, why: Leaving) -> None:
        self.leaving = why
        self.display.line(f"{why.reason}: the workers write a checkpoint and leave")

    def _obey_stop(self, ray: Any) -> None:
        """Note a request to stop, and end the workers where they must not, or do not, leave by themselves."""
        level, now = self.stop.level(), time.monotonic()
        if level is StopLevel.NONE:
            return
        if self._stop_asked_at is None:
            self._stop_asked_at = now
            how = "the workers write a checkpoint and leave" if level is StopLevel.CHECKPOINT else "the workers end"
            self.display.line(f"{self.trial_id}: asked to stop: {how}")
        limit_s = max(STOP_WITHIN_S, self.step_timeout_s) if self._saving else STOP_WITHIN_S
        if level is StopLevel.AT_ONCE or now - self._stop_asked_at > limit_s:
            self._ended_at = self._ended_at or now
            for node in self.nodes:
                actor = node.pop("actor", None)
                if actor is not None:
                    ray.kill(actor)

    def _is_abandoned(self, head: Head) -> bool:
        """Whether there is nothing to wait for any more, though Ray has not said so."""
        if self._head_lost_at is not None:
            return not self._beating or time.monotonic() - self._head_lost_at > head.leave_within_s
        begin = self._ended_at or (self._stop_asked_at if not self.nodes else None)
        return begin is not None and time.monotonic() - begin > ABANDON_S
