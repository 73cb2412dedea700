"""A trial from its first attempt to its end: retries, out-of-memory halving, requests to stop.

The main job and every trial of a sweep run through here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sst2_ray.errors import FailureClass, InfeasibleError, RunFailedError
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.analysis.goodput import Goodput, goodput
from sst2_ray.run.attempt_log import (
    AttemptLog,
    newest_checkpoint,
    trial_row,
    with_checkpoint,
    with_facts,
    with_nodes,
    with_progress,
)
from sst2_ray.run.elastic import Elasticity
from sst2_ray.run.failures import Failure, classify, failure_interval_s
from sst2_ray.run.launch import fit
from sst2_ray.run.messages import WorkerPayload
from sst2_ray.run.monitor import AttemptMonitor, SweepMember, TrialDisplay, Watched
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import RunInputs
from sst2_ray.run.progress_file import ProgressFile
from sst2_ray.run.stop import StopRequests
from sst2_ray.run.tokenizing import put_tokens
from sst2_ray.run.workspace import Workspace
from sst2_ray.storage import address
from sst2_ray.training.names import CHECKPOINT_FOLDER, EXPORT_FOLDER
from sst2_ray.training.outcome import Finished, Yielded
from sst2_ray.training.task import Task

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from sst2_ray.data.texts import Text
    from sst2_ray.data.tokens import TokenArrays


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Token arrays and sentences in the object store, put there once for all trials that use them."""

    inputs: RunInputs
    """Inputs without the tokens."""
    tokenizer_json: str
    splits: dict[str, ObjectRef[TokenArrays]]
    texts: ObjectRef[Sequence[Text]]
    """Texts of dev."""

    @classmethod
    def put(cls, inputs: RunInputs) -> Shared:
        """Put tokens and sentences into the object store of the Ray that the driver is connected to."""
        import ray

        return cls(
            inputs=replace(inputs, tokenized=None),
            tokenizer_json=inputs.tokenizer_json,
            splits=put_tokens(inputs),
            texts=ray.put(inputs.splits.dev.texts),
        )


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """An attempt that has ended, its end row written."""

    row: TrialRecord
    failure: Failure | None = None
    goes_on: bool = False
    """True if its workers left, so that another attempt goes on at once."""


class Trial:
    """A trial that runs attempts until one succeeds or trying again cannot help."""

    def __init__(
        self,
        shared: Shared,
        placement: Placement,
        display: TrialDisplay,
        workspace: Workspace,
        *,
        experiment: str,
        trial_id: str,
        sweep: SweepMember | None = None,
        stop: StopRequests | None = None,
    ) -> None:
        """Prepare the trial; nothing is read or written.

        Args:
            shared: its config, data and tokens.
            placement: of its workers.
            display: shows it.
            workspace: storage and results table.
            experiment: name of the run or the sweep.
            trial_id: name of the trial; of a single run the same as `experiment`.
            sweep: that the trial belongs to.
            stop: requests to stop it; None: those of the stop file alone.
        """
        self.shared, self.placement, self.display, self.workspace = shared, placement, display, workspace
        self.config, self.sweep = shared.inputs.config, sweep
        self.experiment, self.trial_id = experiment, trial_id
        self.run_path = experiment if trial_id == experiment else f"{experiment}/{trial_id}"
        self.run_storage = workspace.storage.child(self.run_path)
        self.stop = stop or StopRequests(workspace.storage.with_retries(0.0).child(experiment))
        row = trial_row(shared.inputs, experiment=experiment, trial_id=trial_id, world_size=placement.num_workers)
        share = sweep.cost_share if sweep else 1.0
        self.attempts = AttemptLog(workspace.table, self.run_storage, row, show=display.line, cost_share=share)
        self.micro_batch_tokens = self.config.micro_batch_tokens
        self._earlier: list[TrialRecord] = []

    def request_stop(self) -> None:
        """Have the workers write a checkpoint and leave; a second request ends them at once.

        Safe to call from a signal handler. `run` then returns a row that is `stopped`, with the step that was saved as its
        `last_global_step`.
        """
        self.stop.request()

    def run(self) -> TrialRecord:
        """Run attempts to the end of the trial.

        Returns:
            The end row of the last attempt: succeeded, early_stopped (by a scheduler), or stopped (on request: it can go on
            from the step that it names as `last_global_step`).

        Raises RunFailedError or InfeasibleError after its row is written.
        """
        attempt = self.attempts.close_orphans()
        self._earlier = self.attempts.earlier(attempt)
        retries = 0
        while True:
            ended = self._attempt(attempt)
            self._earlier.append(ended.row)
            attempt += 1
            if ended.goes_on:  # a planned move, not a failure: it uses no retry
                continue
            if ended.failure is None:
                return ended.row
            if not ended.failure.may_retry or retries >= self.config.max_retries:
                self._raise(ended.failure)
            retries += 1
            self.display.line(
                f"{ended.failure.failure_class}: {ended.failure.message}; "
                f"trying again ({retries} of {self.config.max_retries})"
            )
            if ended.failure.failure_class == FailureClass.OUT_OF_MEMORY:
                self._halve(ended.row.micro_batch_tokens)

    def goodput(self) -> Goodput:
        """Add up the time of all attempts, those of earlier drivers included."""
        return goodput(self._earlier)

    def drop_checkpoints(self, record: TrialRecord) -> None:
        """Delete the checkpoints of a trial that is over.

        Call it when everything else that its end leaves is kept: a driver that is killed before finds the last checkpoint,
        and has only the end to do again. A trial that was stopped on request keeps them.
        """
        if record.status in (Status.SUCCEEDED, Status.EARLY_STOPPED):
            self.run_storage.delete(CHECKPOINT_FOLDER)

    def _raise(self, failure: Failure) -> None:
        trace = f"\n{failure.trace}" if failure.trace else ""
        message = (
            f"{self.trial_id} failed ({failure.failure_class}): {failure.message}; "
            f"full log: {self.run_storage.root}/logs{trace}"
        )
        if failure.failure_class == FailureClass.NOT_PLACEABLE:
            raise InfeasibleError(message)
        raise RunFailedError(message, failure.failure_class)

    def _halve(self, before: int | None) -> None:
        """Halve the tokens that a worker computes at once; the global batch, and so the numbers, stay what they were."""
        if before is None:
            return  # there was no room for the model itself: nothing had been computed
        self.micro_batch_tokens = max(1, before // 2)
        self.display.line(
            f"micro-batches of at most {self.micro_batch_tokens} tokens a worker from now on (before: {before})"
        )

    # ---- one attempt

    def _attempt(self, attempt: int) -> _Ended:
        row = self.attempts.begin(attempt)
        begin = time.perf_counter()
        monitor = AttemptMonitor(
            self.trial_id,
            self.display,
            stop=self.stop,
            elasticity=Elasticity(self.placement),
            step_timeout_s=self.config.step_timeout_s,
            progress_file=ProgressFile(self.run_storage, attempt),
            placement_timeout_s=self.placement.timeout_s(self.config),
            sweep=self.sweep,
        )
        try:
            watched = monitor.run(lambda actor: fit(self._payload(row, actor), self.placement))
        except KeyboardInterrupt:
            self._close(self.attempts.timed(self._stopped(row), time.perf_counter() - begin))
            raise
        num_nodes = max(1, len({node.address for node in watched.nodes}))
        row = self.attempts.timed(row, time.perf_counter() - begin, num_nodes=num_nodes)
        row = with_nodes(row, watched.nodes)
        return self._end(with_progress(row, watched.progress), watched)

    def _end(self, row: TrialRecord, watched: Watched) -> _Ended:
        """Write the end row of an attempt."""
        match watched.end:
            case Finished() as finished:
                return _Ended(row=self._close(self._finished(row, finished)))
            case Yielded(global_step=step) if not watched.was_stopped:
                why = watched.leaving
                row = replace(
                    row,
                    status=Status.STOPPED,
                    last_global_step=step,
                    failure_class=FailureClass.PREEMPTED if why and why.preempted else None,
                    failure_message=why.reason if why else None,
                )
                return _Ended(row=self._close(row), goes_on=True)
            case Yielded(global_step=step):
                return _Ended(row=self._close(replace(self._stopped(row), last_global_step=step)))
            case BaseException() as error if not watched.was_stopped:
                failure = classify(error, hung=watched.hung)
                row = replace(
                    with_checkpoint(row, self.run_storage),
                    status=Status.FAILED,
                    failure_class=failure.failure_class,
                    failure_message=failure.message[:1000],
                    micro_batch_tokens=watched.micro_batch_tokens,
                )
                return _Ended(row=self._close(row), failure=failure)
            case _:
                return _Ended(row=self._close(self._stopped(row)))

    def _close(self, row: TrialRecord) -> TrialRecord:
        """Write an end row, with the goodput of the trial so far."""
        found = goodput([*self._earlier, row])
        return self.attempts.end(replace(row, goodput=found.share, num_lost_steps=found.num_lost_steps))

    def _finished(self, row: TrialRecord, finished: Finished) -> TrialRecord:
        row = replace(with_facts(row, finished), status=finished.stop or Status.SUCCEEDED)
        if finished.stop is None:
            return replace(row, export_path=address(self.workspace.uri, f"{self.run_path}/{EXPORT_FOLDER}"))
        return replace(row, failure_class=FailureClass.USER_STOP if finished.stop == Status.STOPPED else None)

    def _stopped(self, row: TrialRecord) -> TrialRecord:
        """Close a row on request; the newest checkpoint on storage is what the trial goes on from."""
        saved = newest_checkpoint(self.run_storage)
        return replace(row, status=Status.STOPPED, failure_class=FailureClass.USER_STOP, last_global_step=saved)

    def _payload(self, row: TrialRecord, actor: ActorHandle) -> WorkerPayload:
        inputs = self.shared.inputs
        task = Task(
            config=self.config,
            experiment=self.experiment,
            trial_id=self.trial_id,
            attempt=row.attempt,
            resolved=inputs.resolved,
            tokenizer_json=self.shared.tokenizer_json,
            micro_batch_tokens=self.micro_batch_tokens,
            source=inputs.splits.source,
            eval_split=inputs.splits.eval_split,
            class_weights=inputs.splits.class_weights,
            corpora=(*inputs.resolved.info.trained_on, *inputs.corpora),
            score_dev=self.sweep.score_dev if self.sweep else True,
            # The wait for the first process is part of its start.
            started_at=row.started_at.timestamp() if row.started_at else time.time(),
            failure_interval_s=failure_interval_s(self._earlier),
        )
        return WorkerPayload(
            task=task,
            splits=self.shared.splits,
            texts=self.shared.texts,
            workspace=self.workspace,
            run_path=self.run_path,
            progress_actor=actor,
        )
