"""The training loop, which knows neither Ray nor DeepSpeed: `LoopContext` says who it is, `engine` takes the steps.

In the order in which it happens: train, train_step, evaluate, checkpoint."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sst2_ray.data.batching import steps_per_epoch
from sst2_ray.modeling.optimizer import lr_factor, num_warmup_steps
from sst2_ray.records import EpochRecord, StopRequest
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.checkpoint.snapshot import HostCopies, Snapshot
from sst2_ray.training.checkpoint.writer import CheckpointWriter
from sst2_ray.training.context import LoopContext, LoopResult, best_of, better, is_out_of_patience
from sst2_ray.training.control import Control, Decision
from sst2_ray.training.dev_records import evaluation_columns
from sst2_ray.training.engine.base import NonFiniteError
from sst2_ray.training.feed import Batch, prefetched
from sst2_ray.training.gradients import StepGradients
from sst2_ray.training.metrics import Metrics, RecentLoss, metrics_from_logits, score_error
from sst2_ray.training.names import Phase
from sst2_ray.training.step_counts import evaluation_steps, total_steps
from sst2_ray.training.taken_step import TakenStep

_LOSS_EVERY_STEPS = 20
"""Steps between two losses of the progress line: reading one waits for the device."""


class Loop:
    """A rank's run from its first (or restored) step to its last."""

    def __init__(self, context: LoopContext) -> None:
        self.context, self.config = context, context.config
        num_rows = len(context.train)
        self.steps_per_epoch = steps_per_epoch(num_rows, self.config.batch_size)
        self.total_steps = total_steps(self.config, num_rows)
        self.warmup_steps = num_warmup_steps(self.total_steps, self.config.warmup_fraction)
        self.evaluate_at = evaluation_steps(self.config, num_rows)
        self.global_step, self.saved_step = 0, -1
        self.records: list[EpochRecord] = []
        self.best_logits: NDArray[np.float32] | None = None
        self.out_of_patience = self.yielded = False
        self.stop: StopRequest | None = None
        # Loss sum, right predictions and examples since the last evaluation: float64, read only there.
        self.sums = torch.zeros(3, dtype=torch.float64, device=context.device)
        self.gradients = StepGradients(context, self.sums)
        self.recent_loss = RecentLoss()
        self.grad_norm = self.learning_rate = 0.0
        self._taken: TakenStep | None = None
        self._lost: frozenset[int] = frozenset()
        """Steps of evaluations before a restart that no checkpoint is left of."""
        rank, world_size = context.rank, context.world_size
        self.writer = CheckpointWriter(context.run, rank=rank, world_size=world_size, on_commit=self._prune)
        self.copies = HostCopies()
        self.control = Control(
            world_size=world_size,
            rank=rank,
            device=context.device,
            every_s=self.config.checkpoint_every_s,
            preemption_requested=context.preemption_requested,
            # Whoever says after how many steps is not overruled.
            failure_interval_s=None if self.config.checkpoint_every_steps else context.failure_interval_s,
        )
        self._started = time.perf_counter()
        if context.resume_from is not None:
            self._restore(context.resume_from)

    @property
    def best(self) -> EpochRecord | None:
        """Return the best evaluation so far whose weights are there; None: none was finite."""
        return self._best_of(self.records)

    def _best_of(self, records: Sequence[EpochRecord]) -> EpochRecord | None:
        return best_of([record for record in records if record.global_step not in self._lost], self.config.metric)

    @property
    def finished(self) -> bool:
        """Tell whether no step follows."""
        return self.global_step >= self.total_steps or self.out_of_patience or self.yielded or self.stop is not None

    def train(self) -> LoopResult | None:
        """Train to the end; None: preempted, and the checkpoint for the next attempt is on storage.

        With a result, the last checkpoint may still be on its way: see `wait_for_checkpoint`. Raises NonFiniteError.
        """
        self.context.model.train()
        with ThreadPoolExecutor(1, thread_name_prefix="collate") as pool:
            batches = prefetched(self.context, self.global_step, pool)
            while not self.finished:
                with self.context.timer.phase(Phase.DATA):
                    batch = next(batches)
                self.train_step(batch)
                if self.global_step in self.evaluate_at:
                    self.evaluate()
                self._checkpoint_or_yield()
        if self.yielded:
            self.wait_for_checkpoint()
            return None
        if (best := self.best) is None:
            raise NonFiniteError("no evaluation had a finite loss")
        steps, stop = self.global_step, self.stop
        return LoopResult(
            records=tuple(self.records), best=best, best_logits=self.best_logits, global_step=steps, stop=stop
        )

    def train_step(self, batch: Batch) -> None:
        """Take one optimizer step on this rank's part of a global batch. Raises NonFiniteError of the step before."""
        context, plan = self.context, batch.plan
        factor = lr_factor(self.global_step, self.total_steps, self.warmup_steps)
        self.learning_rate = self.config.learning_rate * factor
        self.gradients.compute(batch, self.global_step)
        with context.timer.phase(Phase.OPTIMIZER):
            norm = context.engine.step(self.learning_rate)
            self.read_norm()  # of the step before: this one's work is queued, so that the device goes on meanwhile
        self.global_step += 1
        rows = context.train.row_ids[plan.global_rows]
        self._taken = TakenStep(norm, self.global_step, self.total_steps, self.learning_rate, rows)
        context.timer.count(
            examples=len(plan.global_rows), tokens=plan.num_tokens, padded_tokens=plan.num_padded_tokens
        )
        context.reporter.progress(
            global_step=self.global_step,
            total_steps=self.total_steps,
            epoch=self.global_step / self.steps_per_epoch,
            train_loss=self._progress_loss(),
            timer=context.timer,
        )
        if context.on_step is not None:
            context.on_step(self.global_step)

    def read_norm(self) -> None:
        """Read the gradient norm of the last step, after waiting for it. Raises NonFiniteError with step and rows."""
        if self._taken is not None:
            self.grad_norm = self._taken.grad_norm()
            self._taken = None

    def _progress_loss(self) -> float | None:
        """Return the mean loss of the steps since the last one, now and then."""
        due = self.global_step % _LOSS_EVERY_STEPS == 0
        return self.recent_loss.read(self.sums, num_evaluations=len(self.records)) if due else None

    def evaluate(self) -> None:
        """Evaluate on all ranks, record it, write a checkpoint and ask whether to stop here."""
        context = self.context
        self.read_norm()
        with context.timer.phase(Phase.EVALUATION):
            logits = context.logits(context.evaluation)
            metrics = metrics_from_logits(logits, context.evaluation.labels)
            sums = self.sums.clone()
            if context.world_size > 1:
                torch.distributed.all_reduce(sums)
            error = score_error(self.config.metric, logits, context.evaluation.labels)
        record = self._record(metrics, error, sums)
        self.sums.zero_()
        is_best = better(record, self.best, self.config.metric)
        self.best_logits = logits if is_best else self.best_logits
        self.records.append(record)
        is_out = is_out_of_patience(self.records, self.config.patience, self.config.metric)
        self.out_of_patience = is_out and not self.finished
        # The checkpoint comes before the report: a run that is stopped here resumes from here.
        self._checkpoint()
        requested = context.reporter.evaluated(record, is_best=is_best)
        self.stop = None if self.finished else requested

    def _record(self, metrics: Metrics, error: float | None, sums: Tensor) -> EpochRecord:
        """Describe an evaluation, the error of the metric that decides, and the training since (`sums` of all ranks)."""
        context = self.context
        examples_per_sec, tokens_per_sec = context.timer.new_rates()
        count = max(1.0, float(sums[2]))
        return EpochRecord(
            experiment=context.experiment,
            trial_id=context.trial_id,
            attempt=context.attempt,
            split=context.evaluation_split,
            global_step=self.global_step,
            epoch=self.global_step / self.steps_per_epoch,
            learning_rate=self.learning_rate,
            train_loss=float(sums[0]) / count,
            train_accuracy=None if context.objective.is_regression else float(sums[1]) / count,
            **evaluation_columns(metrics),
            score_error=error,
            grad_norm=self.grad_norm,
            seconds=time.perf_counter() - self._started,
            examples_per_sec=examples_per_sec,
            tokens_per_sec=tokens_per_sec,
            written_at=dt.datetime.now(dt.UTC),
        )

    def _checkpoint_or_yield(self) -> None:
        """Write a checkpoint if one is due after this step, and end the run if its workers are wanted elsewhere.

        Raises at once what writing an earlier one raised: steps that cannot be saved would be wasted.
        """
        self.writer.check()
        with self.context.timer.phase(Phase.COMMUNICATION):  # where ranks wait for one that hangs
            decision = self.control.decide()
        if self.finished:
            return
        every = self.config.checkpoint_every_steps
        due = decision is not Decision.CONTINUE or (every is not None and self.global_step % every == 0)
        if due and self.saved_step != self.global_step:
            self._checkpoint()
        self.yielded = decision is Decision.YIELD

    def _checkpoint(self) -> None:
        self.read_norm()  # what is not finite is never saved
        begin = time.monotonic()
        with self.context.timer.phase(Phase.CHECKPOINT):
            self._wait_for_writer()  # its copies are overwritten
            self.writer.save(self.snapshot())
        # What the one before took from the cores while training went on counts as well.
        self.control.saved(time.monotonic() - begin + self.writer.cpu_s / torch.get_num_threads())
        self.saved_step = self.global_step

    def wait_for_checkpoint(self) -> None:
        """Wait until the last checkpoint is on storage. Raises what its writing raised."""
        with self.context.timer.phase(Phase.CHECKPOINT):
            self._wait_for_writer()

    def _wait_for_writer(self) -> None:
        """Wait with signs of life for as long as storage that cannot be reached is tried again."""
        until = time.monotonic() + self.config.storage_timeout_s

        def on_wait() -> None:
            if time.monotonic() < until:
                self.context.reporter.alive()

        self.writer.wait(on_wait)

    def snapshot(self) -> Snapshot:
        """Copy everything that a run needs to continue from here."""
        return Snapshot.take(
            global_step=self.global_step,
            model=self.context.model if self.context.rank == 0 else None,
            shard=self.context.engine.optimizer_shard(),
            sums=self.sums,
            state={
                "config_hash": self.config.config_hash,
                "num_train_rows": len(self.context.train),
                "data_fingerprint": self.context.data_fingerprint,
                "records": [ckpt.record_to_json(r) for r in self.records],
                "out_of_patience": self.out_of_patience,
                "grad_norm": self.grad_norm,
            },
            copies=self.copies,
        )

    def _prune(self, snapshot: Snapshot) -> None:
        """Report that `snapshot` is committed and delete old checkpoints, but the best one that it knows and the best by now.

        The best by now may not be whole on storage yet, and a run may have to resume from `snapshot`.
        """
        known = self._best_of([ckpt.record_from_json(r) for r in snapshot.state["records"]])
        protect = [best.global_step for best in (known, self.best) if best]
        ckpt.prune(self.context.run, keep=self.config.keep_checkpoints, protect=protect, newest=snapshot.global_step)
        self.context.reporter.saved(snapshot.global_step)

    def _restore(self, saved: ckpt.Checkpoint) -> None:
        """Restore everything but the weights, which were loaded before the engine was built."""
        context = self.context
        context.engine.load_optimizer_shard(saved.optimizer_shard(context.engine.optimizer_shard()))
        self.global_step = self.saved_step = saved.global_step
        self.records = [ckpt.record_from_json(r) for r in saved.state["records"]]
        # Of the best one as well, where a newer one that was better is damaged.
        self._lost = frozenset(record.global_step for record in self.records) - {*ckpt.committed_steps(context.run)}
        self.out_of_patience = bool(saved.state["out_of_patience"])
        self.grad_norm = float(saved.state["grad_norm"])
        self.sums.copy_(saved.train_sums(rank=context.rank, world_size=context.world_size))
        saved.restore_random_states(rank=context.rank, world_size=context.world_size)
