"""One trial from its first attempt to its end: the main job and every trial of a sweep run through here."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sst2_ray.errors import FailureClass, InfeasibleError, RunFailedError
from sst2_ray.records import EpochRecord, Status, TrialRecord
from sst2_ray.run.attempt_log import Attempts, now
from sst2_ray.run.elastic import Elasticity
from sst2_ray.run.environment import worker_env
from sst2_ray.run.failures import Failure, classify
from sst2_ray.run.monitor import TrialDisplay, WatchedFit
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import RunInputs, identity
from sst2_ray.run.provenance import collect_provenance
from sst2_ray.run.stop import StopRequests
from sst2_ray.run.workspace import Workspace
from sst2_ray.storage import address
from sst2_ray.training.names import CHECKPOINT_FOLDER, EXPORT_FOLDER, LEFT
from sst2_ray.training.task import Task


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Token arrays and sentences in the object store, put there once for all trials that use them."""

    inputs: RunInputs
    """Without the tokens."""
    tokenizer_json: str
    splits: dict[str, Any]
    texts: Any

    @classmethod
    def put(cls, inputs: RunInputs) -> Shared:
        """Put tokens and sentences into the object store."""
        import ray

        return cls(
            inputs=replace(inputs, tokenized=None),
            tokenizer_json=inputs.tokenizer_json,
            splits={name: ray.put(tokens) for name, tokens in inputs.tokens.items()},
            texts=ray.put(inputs.splits.dev.texts),
        )


def _work(payload: dict[str, Any]) -> dict[str, Any]:
    """Imported on the worker only: the driver needs no torch."""
    from sst2_ray.run.worker import train_worker

    return train_worker(payload)


class Trial:
    """Runs attempts until one succeeds or trying again cannot help.

    board: shared by the trials of a sweep; None: one of its own. on_record: called with each evaluation. asks_scheduler:
    its workers wait until that has returned, and end where the board says so. cost_share: share of its nodes' price that
    this trial pays. score_dev: see `Task.score_dev`. stop: requests to stop it; None: those of the stop file alone.
    """

    def __init__(
        self,
        shared: Shared,
        placement: Placement,
        display: TrialDisplay,
        workspace: Workspace,
        *,
        experiment: str,
        trial_id: str,
        board: Any = None,
        on_record: Callable[[EpochRecord], None] | None = None,
        asks_scheduler: bool = False,
        cost_share: float = 1.0,
        score_dev: bool = True,
        stop: StopRequests | None = None,
    ) -> None:
        self.shared, self.placement, self.display = shared, placement, display
        self.config = shared.inputs.config
        self.experiment, self.trial_id = experiment, trial_id
        # A single run is its own trial.
        self.run_path = experiment if trial_id == experiment else f"{experiment}/{trial_id}"
        self.storage_uri, self.storage = workspace.uri, workspace.storage
        self.run_storage = self.storage.child(self.run_path)
        self.board, self.on_record, self.asks_scheduler = board, on_record, asks_scheduler
        self.cost_share, self.score_dev = cost_share, score_dev
        self.stop = stop or StopRequests(self.storage.with_retries(0.0).child(experiment))
        self.attempts = Attempts(
            workspace.table,
            self.run_storage,
            identity(shared.inputs, experiment=experiment, trial_id=trial_id),
            world_size=placement.num_workers,
            say=display.line,
        )
        self.micro_batch_tokens = self.config.micro_batch_tokens
        self.nodes: list[dict[str, Any]] = []

    def run(self) -> TrialRecord:
        """Run attempts; return the end row of the last: succeeded, early_stopped (by a scheduler) or stopped (on request;
        it can go on from the step that it names as `last_global_step`).

        Raises RunFailedError or InfeasibleError after its row is written.
        """
        attempt = self.attempts.close_orphans()
        retries = 0
        while True:
            record, failure, goes_on = self._attempt(attempt)
            if goes_on:  # a planned move, not a failure: it uses no retry
                attempt += 1
                continue
            if failure is None:
                return record
            may_retry = failure.may_retry and retries < self.config.max_retries
            if not may_retry:
                where = f"{self.run_storage.root}/logs"
                trace = f"\n{failure.trace}" if failure.trace else ""
                message = (
                    f"{self.trial_id} failed ({failure.failure_class}): {failure.message}; full log: {where}{trace}"
                )
                if failure.failure_class == FailureClass.NOT_PLACEABLE:
                    raise InfeasibleError(message)
                raise RunFailedError(message, failure.failure_class)
            self.display.line(
                f"{failure.failure_class}: {failure.message}; trying again ({retries + 1} of {self.config.max_retries})"
            )
            if failure.failure_class == FailureClass.OUT_OF_MEMORY:
                self._halve(record)
            attempt, retries = attempt + 1, retries + 1

    def drop_checkpoints(self, record: TrialRecord) -> None:
        """For whoever has kept the end row and whatever else its end leaves: a driver killed before finds the last
        checkpoint and has only the end to do again. What was stopped on request keeps them."""
        if record.status in (Status.SUCCEEDED, Status.EARLY_STOPPED):
            self.run_storage.delete(CHECKPOINT_FOLDER)

    def _halve(self, record: TrialRecord) -> None:
        """Half the tokens at once; the global batch, and so the numbers, stay what they were."""
        before = record.micro_batch_tokens
        if before is None:
            return  # there was no room for the model itself: nothing had been computed
        self.micro_batch_tokens = max(1, before // 2)
        self.display.line(
            f"micro-batches of at most {self.micro_batch_tokens} tokens a worker from now on (before: {before})"
        )

    # ---- one attempt

    def _attempt(self, attempt: int) -> tuple[TrialRecord, Failure | None, bool]:
        """Its end row, what it failed of, and whether it left, so that another one goes on at once."""
        started = now()
        self.attempts.write(attempt, Status.RUNNING, started)
        begin = time.perf_counter()
        fit = WatchedFit(
            self.trial_id,
            self.display,
            board=self.board,
            on_record=self.on_record,
            asks_scheduler=self.asks_scheduler,
            stop=self.stop,
            elasticity=Elasticity(self.placement),
            step_timeout_s=self.config.step_timeout_s,
        )
        try:
            outcome: Any = fit.run(lambda board: self._trainer(attempt, board))
        except KeyboardInterrupt:
            self.attempts.write(
                attempt,
                Status.STOPPED,
                started,
                failure_class=FailureClass.USER_STOP,
                seconds=time.perf_counter() - begin,
            )
            raise
        self.nodes = fit.nodes
        seconds = time.perf_counter() - begin
        spent = {"seconds": seconds, "cost_usd": self._cost(seconds), **self._where()}
        if fit.was_stopped and (not isinstance(outcome, dict) or outcome["status"] == LEFT):
            saved = outcome["last_global_step"] if isinstance(outcome, dict) else self._saved_step()
            stopped = {"failure_class": FailureClass.USER_STOP, "last_global_step": saved, **spent}
            return self.attempts.write(attempt, Status.STOPPED, started, **stopped), None, False
        if isinstance(outcome, BaseException):
            failure = classify(outcome, hung=fit.hung)
            values = {"failure_class": failure.failure_class, "failure_message": failure.message[:1000], **spent}
            record = self.attempts.write(
                attempt, Status.FAILED, started, **values, micro_batch_tokens=fit.micro_batch_tokens
            )
            return record, failure, False
        facts = dict(outcome)
        status = facts.pop("status")
        if status == LEFT:
            why = fit.leaving
            left = {
                "last_global_step": facts["last_global_step"],
                "failure_class": FailureClass.PREEMPTED if why and why.preempted else None,
                "failure_message": why and why.reason,
            }
            return self.attempts.write(attempt, Status.STOPPED, started, **left, **spent), None, True
        if status == Status.SUCCEEDED:
            facts["export_path"] = address(self.storage_uri, f"{self.run_path}/{EXPORT_FOLDER}")
        elif status == Status.STOPPED:
            facts["failure_class"] = FailureClass.USER_STOP
        return self.attempts.write(attempt, status, started, **{**spent, **facts}), None, False

    def _saved_step(self) -> int | None:
        """Return the steps done at the newest checkpoint on storage; None where there is none."""
        try:
            names = [n for n in self.run_storage.list(CHECKPOINT_FOLDER) if n.removeprefix("step-").isdigit()]
            whole = [n for n in names if self.run_storage.exists(f"{CHECKPOINT_FOLDER}/{n}/manifest.json")]
        except OSError:
            return None
        return max((int(n.removeprefix("step-")) for n in whole), default=None)

    def _cost(self, seconds: float) -> float | None:
        if self.config.price_per_hour is None:
            return None
        num_nodes = max(1, len({n["address"] for n in self.nodes}))
        return seconds / 3600 * self.config.price_per_hour * num_nodes * self.cost_share

    def _where(self) -> dict[str, Any]:
        gpu = next((n["gpu"] for n in self.nodes if n["gpu"]), None)
        provenance = collect_provenance(gpu_name=gpu, cuda_version=next((n["cuda"] for n in self.nodes), None))
        world = {"world_size": self.nodes[0]["world_size"]} if self.nodes else {}
        return {
            **provenance,
            **world,
            "node_types_json": json.dumps([{k: n[k] for k in ("rank", "address", "gpu")} for n in self.nodes]),
        }

    def _trainer(self, attempt: int, board: Any) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        from sst2_ray.run.ray.elastic_trainer import REPLACE_S, ElasticTrainer
        from sst2_ray.run.ray.torch_backend import NodeTorchConfig
        from sst2_ray.run.ray.trainer import Trainer

        config, placement = self.config, self.placement
        # Otherwise Ray gives up after a minute: too short for a node that has to be started first. Where there is a choice
        # of how many workers, it is made anew every `one_try_s`.
        one_try_s = min(REPLACE_S, config.placement_timeout_s) if placement.is_elastic else config.placement_timeout_s
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(one_try_s)
        payload = {
            "task": self._task(attempt),
            "splits": self.shared.splits,
            "texts": self.shared.texts,
            "storage_uri": self.storage_uri,
            "run_path": self.run_path,
            "board": board,
        }
        trainer = partial(ElasticTrainer, placement=placement) if placement.is_elastic else Trainer
        return trainer(
            _work,
            train_loop_config=payload,
            torch_config=NodeTorchConfig(
                backend="nccl" if placement.use_gpu else "gloo", timeout_s=int(config.step_timeout_s) + 60
            ),
            scaling_config=ScalingConfig(
                # How many, where there is a choice, is decided when the attempt starts; whether to change, in elastic.py.
                num_workers=(placement.num_workers, placement.most_workers)
                if placement.is_elastic
                else placement.num_workers,
                elastic_resize_monitor_interval_s=math.inf,
                use_gpu=placement.use_gpu,
                resources_per_worker=placement.resources_per_worker,
                placement_strategy="PACK",
            ),
            run_config=RunConfig(
                # Ray's own bookkeeping; what counts lies beside it, in a form that needs no Ray.
                name=f"attempt-{attempt}",
                storage_path=f"{self.run_storage.root}/ray",
                storage_filesystem=None if self.storage.is_local else self.storage.filesystem,
                failure_config=FailureConfig(
                    max_failures=0,
                    controller_failure_limit=math.ceil(config.placement_timeout_s / one_try_s) - 1,
                    max_preemption_failures=0,
                ),
                worker_runtime_env={
                    "env_vars": worker_env(
                        use_gpu=placement.use_gpu,
                        compile_threads=placement.cpus_per_worker if config.compile else None,
                    )
                },
            ),
        )

    def _task(self, attempt: int) -> Task:
        inputs = self.shared.inputs
        return Task(
            config=self.config,
            experiment=self.experiment,
            trial_id=self.trial_id,
            attempt=attempt,
            resolved=inputs.resolved,
            tokenizer_json=self.shared.tokenizer_json,
            micro_batch_tokens=self.micro_batch_tokens,
            source=inputs.splits.source,
            eval_split=inputs.splits.eval_split,
            corpora=(*inputs.resolved.info.trained_on, *inputs.corpora),
            score_dev=self.score_dev,
            started_at=time.time(),
        )
