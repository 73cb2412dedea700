"""A monitor of an attempt: training runs in a thread; its events are shown, requests to stop or to leave are obeyed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sst2_ray.errors import InfeasibleError
from sst2_ray.records import EpochRecord
from sst2_ray.run.elastic import Elasticity, Leaving
from sst2_ray.run.failures import HeadLostError
from sst2_ray.run.liveness import SILENT_S, Head, place_of_hang
from sst2_ray.run.messages import Event, Heartbeat, HungRank, MicroBatchLimit, NodeFacts, Note, Progress
from sst2_ray.run.progress_actor import start_progress_actor, wait_for_first_answer
from sst2_ray.run.progress_file import ProgressFile
from sst2_ray.run.stop import STOP_WITHIN_S, StopLevel, StopRequests
from sst2_ray.training.names import Phase
from sst2_ray.training.outcome import AttemptEnd

if TYPE_CHECKING:
    from ray.actor import ActorHandle

POLL_S = 0.5
ANSWER_POLL_S = 0.1
"""Seconds between looks while workers wait for a scheduler's answer. Each takes a millisecond or two of their cores."""

LOOK_S = 2.0
"""Seconds between two looks at Ray's head and at the nodes."""

ABANDON_S = 5.0
"""A stopped attempt is left to Ray so many seconds after its workers were ended, or where they were never placed."""


class TrialDisplay(Protocol):
    """Shows one trial to the user."""

    def progress(self, progress: Progress) -> None:
        """Show how far rank 0 is."""

    def record(self, record: EpochRecord) -> None:
        """Show an evaluation."""

    def line(self, text: str) -> None:
        """Show one line."""


@dataclass(frozen=True, kw_only=True)
class SweepMember:
    """State and settings that a trial of a sweep shares with the others."""

    progress_actor: ActorHandle
    on_record: Callable[[EpochRecord], None] | None = None
    """Called with each evaluation."""
    asks_scheduler: bool = False
    """True: the workers wait until `on_record` has returned, and end where the progress actor says so."""
    cost_share: float = 1.0
    """Share of its nodes' price that this trial pays."""
    score_dev: bool = True
    """See `Task.score_dev`."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """An attempt that has ended, and what was seen of it."""

    end: AttemptEnd | BaseException | None
    """Result of rank 0, or the exception of training; None: it was stopped without either."""
    nodes: tuple[NodeFacts, ...]
    progress: Progress | None
    """The last of rank 0."""
    micro_batch_tokens: int | None
    """Padded tokens of a micro-batch; None: no model was built."""
    hung: str | None
    """The rank that made no progress, in one line."""
    leaving: Leaving | None
    """Reason why its workers were asked to leave."""
    was_stopped: bool
    """Somebody asked it to stop."""


class AttemptMonitor:
    """Watches one attempt from the driver."""

    def __init__(
        self,
        trial_id: str,
        display: TrialDisplay,
        *,
        stop: StopRequests,
        elasticity: Elasticity,
        step_timeout_s: float,
        progress_file: ProgressFile,
        placement_timeout_s: float,
        sweep: SweepMember | None = None,
    ) -> None:
        """Prepare to watch.

        Args:
            trial_id: of the trial.
            display: shows it.
            stop: the workers then write a checkpoint and leave, or are ended where they are.
            elasticity: looked at every `LOOK_S`; the workers likewise leave.
            step_timeout_s: silence after which a rank's process is ended from here.
            placement_timeout_s: time for the first process to start.
            progress_file: tells other processes how far it is.
            sweep: that the trial belongs to; None: it has a progress actor of its own.
        """
        self.trial_id, self.display, self.sweep = trial_id, display, sweep
        self._progress_file = progress_file
        self.stop, self.elasticity, self.step_timeout_s = stop, elasticity, step_timeout_s
        self.placement_timeout_s = placement_timeout_s
        self._nodes: list[NodeFacts] = []
        self._killed: set[int] = set()
        self._micro_batch_tokens: int | None = None
        self._hung: str | None = None
        self._leaving: Leaving | None = None
        self._heartbeats: Mapping[int, Heartbeat] = {}
        self._progress: Progress | None = None
        self._seen = 0
        self._stop_asked_at: float | None = None
        self._ended_at: float | None = None
        self._head_lost_at: float | None = None
        self._looked_at = 0.0

    def run(self, fit: Callable[[ActorHandle], AttemptEnd]) -> Watched:
        """Run `fit`, given the progress actor, in a thread and watch it to its end."""
        import ray

        self._actor = self.sweep.progress_actor if self.sweep else start_progress_actor()
        asks_scheduler = self.sweep is not None and self.sweep.asks_scheduler
        opened = self._actor.open.remote(self.trial_id, asks_scheduler=asks_scheduler)
        try:
            if not wait_for_first_answer(opened, within_s=self.placement_timeout_s, is_stopped=self._is_asked_to_stop):
                self._stop_asked_at = time.monotonic()
                return self._watched(None)
        except (InfeasibleError, ray.exceptions.RayError) as error:
            return self._watched(error)
        self._head = Head(ray.get_runtime_context().gcs_address)
        ends: list[AttemptEnd | BaseException] = []

        def run() -> None:
            try:
                ends.append(fit(self._actor))
            except BaseException as error:
                ends.append(error)

        thread = threading.Thread(target=run, name=f"fit-{self.trial_id}", daemon=True)
        thread.start()
        while thread.is_alive() and not self._is_abandoned():
            thread.join(ANSWER_POLL_S if asks_scheduler else POLL_S)
            self._look()
            self._obey()
        self._progress_file.close()
        if self._head_lost_at is not None:
            return self._watched(self._head_lost_error())
        self._look()
        end = ends[0] if ends else None
        if end is None or isinstance(end, BaseException):
            self._give_places_back()
        if self.sweep is None:
            ray.kill(self._actor)
        else:
            self._actor.close.remote(self.trial_id)
        return self._watched(end)

    def _is_asked_to_stop(self) -> bool:
        return self.stop.level() is not StopLevel.NONE

    def _watched(self, end: AttemptEnd | BaseException | None) -> Watched:
        return Watched(
            end=end,
            nodes=tuple(self._nodes),
            progress=self._progress,
            micro_batch_tokens=self._micro_batch_tokens,
            hung=self._hung,
            leaving=self._leaving,
            was_stopped=self._stop_asked_at is not None,
        )

    def _give_places_back(self) -> None:
        """Remove the workers' placement group: a Train controller that died leaves it, and nobody else could be placed."""
        import ray

        group = next((node.placement_group for node in self._nodes if node.placement_group is not None), None)
        if group is not None:
            ray.util.remove_placement_group(group)

    def _head_lost_error(self) -> HeadLostError:
        return HeadLostError(
            f"Ray's head at {self._head.address} has not answered for {self._head.silent_s():.0f} s; the same command "
            "goes on from the newest checkpoint on a Ray that runs"
        )

    # ---- what it hears

    def _look(self) -> None:
        """Show what is new. A progress actor that does not answer is not worth a run."""
        import ray

        try:
            view = ray.get(self._actor.read.remote(self.trial_id, self._seen), timeout=10)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return
        self._heartbeats = view.heartbeats
        if view.progress is not None:
            self._progress = view.progress
            self.display.progress(view.progress)
        self._progress_file.update(self._progress, self._heartbeats.get(0))
        for number, event in view.events:
            self._seen = number
            self._take(event)
        self._end_silent()

    def _take(self, event: Event) -> None:
        match event:
            case EpochRecord():
                self.display.record(event)
                if self.sweep is not None and self.sweep.on_record is not None:
                    self.sweep.on_record(event)
                    self._actor.answer.remote(self.trial_id, event.global_step)
            case Note(line=line):
                self.display.line(line)
            case HungRank(line=line):
                self._hung = self._hung or place_of_hang(self._heartbeats) or line
            case NodeFacts():
                self._nodes.append(event)
            case MicroBatchLimit(tokens=tokens):
                self._micro_batch_tokens = tokens

    def _end_silent(self) -> None:
        """End ranks that are silent for too long: a process that was stopped cannot end itself.

        A rank that waits for it writes its stacks before it ends.
        """
        for node in self._nodes:
            heartbeat = self._heartbeats.get(node.rank)
            if heartbeat is not None and heartbeat.age_s > self.step_timeout_s + SILENT_S:
                if node.rank not in self._killed:
                    self._hung = self._hung or place_of_hang(self._heartbeats)
                self._kill(node)

    def _kill(self, node: NodeFacts) -> None:
        import ray

        if node.rank not in self._killed:
            self._killed.add(node.rank)
            ray.kill(node.actor)

    # ---- what it is asked for

    def _obey(self) -> None:
        """Have the workers leave, or end them, where somebody asks for it."""
        self._obey_stop()
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            silent_s = self._head.silent_s()
            if silent_s > self._head.lost_after_s and self._head_lost_at is None:
                self._head_lost_at = now
                self._leave(Leaving(preempted=True, reason="Ray's head does not answer"))
            elif silent_s:
                return  # what follows would wait for it
            elif self._leaving is None and (why := self.elasticity.why_leave(self._nodes)) is not None:
                self._leave(why)
        if self._leaving is not None or self._stop_asked_at is not None:
            # Each time: a progress actor that was started again does not know.
            self._actor.request_preemption.remote(self.trial_id)

    def _leave(self, why: Leaving) -> None:
        self._leaving = why
        self.display.line(f"{why.reason}: the workers write a checkpoint and leave")

    def _obey_stop(self) -> None:
        """Note a request to stop, and end the workers where they must not, or do not, leave by themselves."""
        level, now = self.stop.level(), time.monotonic()
        if level is StopLevel.NONE:
            return
        if self._stop_asked_at is None:
            self._stop_asked_at = now
            how = "the workers write a checkpoint and leave" if level is StopLevel.CHECKPOINT else "the workers end"
            self.display.line(f"{self.trial_id}: asked to stop: {how}")
        limit_s = max(STOP_WITHIN_S, self.step_timeout_s) if self._is_saving() else STOP_WITHIN_S
        if level is StopLevel.AT_ONCE or now - self._stop_asked_at > limit_s:
            self._ended_at = self._ended_at or now
            for node in self._nodes:
                self._kill(node)

    def _is_saving(self) -> bool:
        return any(h.phase == Phase.CHECKPOINT and h.age_s <= SILENT_S for h in self._heartbeats.values())

    def _is_abandoned(self) -> bool:
        """Tell whether there is nothing to wait for any more, though Ray has not said so."""
        if self._head_lost_at is not None:
            is_alive = any(heartbeat.age_s <= SILENT_S for heartbeat in self._heartbeats.values())
            return not is_alive or time.monotonic() - self._head_lost_at > self._head.leave_within_s
        begin = self._ended_at or (self._stop_asked_at if not self._nodes else None)
        return begin is not None and time.monotonic() - begin > ABANDON_S
