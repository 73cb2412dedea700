"""Follow a submitted job to its end: by its state, not by its log stream, which may break while the job goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sst2_ray.cluster.ray_private import node_totals, nodes_being_set_up, whole_log
from sst2_ray.cluster.submit.reach import CALL_ERRORS, is_outage, reach, server_trouble
from sst2_ray.errors import ExitCode, FailureClass, InfeasibleError, RunFailedError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

T = TypeVar("T")

_QUIET_CHECK_S = 5.0
"""A stream that says nothing for this long makes the state be asked: a dead connection is silent as well."""
_EXPLAIN_EVERY_S = 20.0
_RAW_POLL_S = 2.0
_LAST_LINES_S = 30.0
"""The last lines of a log are worth less waiting than the job's end is."""


@dataclass(kw_only=True)
class Follower:
    """Follower of one job: streams its log and knows its end. `heal` reopens the way to the cluster (a tunnel); it may raise."""

    client: JobSubmissionClient
    job_id: str
    emit: Callable[[str], None]
    """Takes the job's own output, exactly once each character."""
    say: Callable[[str], None]
    """Takes one line about the job, for stderr."""
    demand: dict[str, float]
    """Resources that the entrypoint itself reserves; the job server does not tell them back."""
    pending_timeout_s: float
    reconnect_timeout_s: float
    heal: Callable[[], None] = lambda: None
    _printed: int = field(default=0, init=False)
    _empty_streams: int = field(default=0, init=False)

    def follow(self) -> JobDetails:
        """Return the details of the job once it has ended.

        Raises InfeasibleError when it was not placed in time, RunFailedError when the cluster cannot be reached any more.
        """
        pending_since = explained = time.monotonic()
        told_running = False
        while True:
            info = self.reach(lambda: self.client.get_job_info(self.job_id))
            if info.status.is_terminal():
                self._drain()
                return info
            if info.status == "PENDING":
                now = time.monotonic()
                if now - pending_since > self.pending_timeout_s and not self._machines_come():
                    self._give_up(info)
                # Told after 5 s, then at intervals: people must never look at a still terminal and wonder.
                if now - pending_since > 5 and now - explained > (_EXPLAIN_EVERY_S if explained > pending_since else 5):
                    explained = now
                    self.say(f"PENDING for {now - pending_since:.0f} s: {self.explain_pending(info)}")
                time.sleep(0.5)
                continue
            if not told_running:
                told_running = True
                self.say("running")
            self._follow_log()

    def _follow_log(self) -> None:
        """Print new output; where the stream gives none twice in a row, read the whole log, in which bytes may be anything."""
        before = self._printed
        if self._empty_streams < 2:
            self._stream()
        else:
            time.sleep(_RAW_POLL_S)
            with contextlib.suppress(Exception):  # the stream may work again; the job's state decides
                self._print(whole_log(self.client, self.job_id)[self._printed :])
        self._empty_streams = 0 if self._printed > before and self._empty_streams < 2 else self._empty_streams + 1

    def _print(self, text: str) -> None:
        if text:
            self.emit(text)
            self._printed += len(text)

    def _stream(self) -> None:
        """Print new output until the job ends or the stream breaks."""
        try:
            asyncio.run(self._tail())
        except KeyboardInterrupt:
            raise
        except Exception as error:  # a broken stream has many types; the job's state decides what it means
            self.say(f"log stream broke ({type(error).__name__}); the job goes on, re-attaching")
            time.sleep(0.5)

    async def _tail(self) -> None:
        # Every new stream starts at the log's beginning: what was printed before is skipped by counting characters.
        skip = self._printed
        stream = self.client.tail_job_logs(self.job_id)
        pending: asyncio.Future[str] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(stream))
                done, _ = await asyncio.wait({pending}, timeout=_QUIET_CHECK_S)
                if not done:
                    info = await asyncio.to_thread(self.client.get_job_info, self.job_id)
                    if info.status.is_terminal():
                        return
                    continue
                try:
                    chunk = pending.result()
                except StopAsyncIteration:
                    return
                pending = None
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                self._print(fresh)
        finally:
            if pending is not None:
                pending.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                    await pending
            with contextlib.suppress(RuntimeError):
                await stream.aclose()  # type: ignore[attr-defined]

    def _drain(self) -> None:
        """Print the last lines, which the stream may have missed. Never raises: the job has ended, and its exit code counts."""
        limit_s = min(_LAST_LINES_S, self.reconnect_timeout_s)
        try:
            self._print(self.reach(self._read_log, limit_s=limit_s)[self._printed :])
        except Exception:  # e.g. the log stood on a node that is gone
            self.say("the last lines of the log could not be read")

    def _read_log(self) -> str:
        try:
            return self.client.get_job_logs(self.job_id)
        except RuntimeError:  # also where the log holds bytes that are not UTF-8
            return whole_log(self.client, self.job_id)

    def reach(self, ask: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Ask the cluster, reopening the way to it for at most `limit_s` (None: `reconnect_timeout_s`).

        Raises RunFailedError when it cannot be reached any more, or refuses to answer.
        """
        limit_s = self.reconnect_timeout_s if limit_s is None else limit_s
        try:
            return reach(
                ask,
                limit_s=limit_s,
                heal=self.heal,
                notice=lambda _: self.say("connection lost, which the job does not notice; reconnecting"),
                passes=is_outage,
            )
        except CALL_ERRORS as error:
            if is_outage(error):
                said = (
                    f"the cluster was not reached for {limit_s:.0f} s ({server_trouble(error) or type(error).__name__}); whether "
                    f"job {self.job_id} goes on is not known; submit the same again to re-attach"
                )
            else:
                said = (
                    f"the job server does not answer for job {self.job_id}: {' '.join(str(error).split())[:160]}; "
                    "if the cluster was started anew its jobs are gone: submit the same again"
                )
            raise RunFailedError(said, failure_class=FailureClass.WORKER_LOST) from None

    def explain_pending(self, info: JobDetails) -> str:
        """Say what a PENDING job waits for, in numbers where the cluster gives them."""
        wanted = self.demand
        if not wanted:
            return info.message or "the entrypoint is being started"
        demand = ", ".join(f"{name} {amount:g}" for name, amount in sorted(wanted.items()))
        try:
            nodes = node_totals(self.client)
        except Exception:  # the explanation must never be what fails
            return f"the entrypoint asks for {demand}; the cluster's resources could not be read"
        best = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
        missing = [
            f"{name}: asked {wanted[name]:g}, largest of {len(nodes)} nodes has {best[name]:g}"
            for name in wanted
            if best[name] < wanted[name]
        ]
        if missing:
            return "no node is large enough now (" + "; ".join(missing) + "); it starts only if the autoscaler adds one"
        return f"the entrypoint asks for {demand}; nodes of that size exist but are busy"

    def _machines_come(self) -> bool:
        """Return True while a machine is being set up, on which the job may find its place."""
        if not self.demand:
            return False
        try:
            return bool(nodes_being_set_up(self.client))
        except Exception:  # an autoscaler that does not tell is not waited for
            return False

    def stop(self, *, wait_s: float = 60.0) -> bool:
        """Ask the cluster to stop the job; return True when it has ended. Stopping a PENDING job blocks in Ray, so it runs aside."""
        thread = threading.Thread(target=self._stop_quietly, daemon=True)
        thread.start()
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                if self.client.get_job_info(self.job_id).status.is_terminal():
                    return True
            time.sleep(0.5)
        return False

    def _stop_quietly(self) -> None:
        with contextlib.suppress(Exception):
            self.client.stop_job(self.job_id)

    def _give_up(self, info: JobDetails) -> None:
        reason = self.explain_pending(info)
        ended = self.stop(wait_s=5.0)
        rest = (
            ""
            if ended
            else "; a stop is queued for it, and Ray drops it at its own limit (RAY_JOB_START_TIMEOUT_SECONDS)"
        )
        raise InfeasibleError(
            f"given up, job {self.job_id} was PENDING for {self.pending_timeout_s:.0f} s: {reason}{rest}"
        )


def exit_code_of(info: JobDetails) -> int:
    """Return 0 succeeded, 5 stopped, else the command's own code (137 for a kill), 3 never placed, 4 where Ray knows no code."""
    if info.status == "SUCCEEDED":
        return ExitCode.SUCCEEDED
    if info.status == "STOPPED":
        return ExitCode.STOPPED
    code = info.driver_exit_code
    if code:
        return int(code) if code > 0 else 128 - int(code)
    if info.error_type and "ACTOR_START_TIMEOUT" in str(info.error_type):
        return ExitCode.INFEASIBLE
    return ExitCode.FAILED
