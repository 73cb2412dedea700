"""The training loop. It knows neither Ray nor DeepSpeed: `LoopContext` says who it is, `engine` takes the steps."""

from __future__ import annotations

import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sst2_ray.data.batching import steps_per_epoch
from sst2_ray.modeling.layout.varlen import Varlen
from sst2_ray.modeling.optimizer import lr_factor, num_warmup_steps
from sst2_ray.records import EpochRecord, StopRequest
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.checkpoint.snapshot import HostCopies, Snapshot
from sst2_ray.training.checkpoint.writer import CheckpointWriter
from sst2_ray.training.context import LoopContext, LoopResult, best_of, better
from sst2_ray.training.control import Control, Decision
from sst2_ray.training.engine.base import NonFiniteError
from sst2_ray.training.evaluate import compute_logits, evaluation_tokens
from sst2_ray.training.feed import Batch, prefetched
from sst2_ray.training.metrics import metrics_from_logits
from sst2_ray.training.step_counts import evaluation_steps, total_steps


class Loop:
    """One rank's run from its first (or restored) step to its last."""

    def __init__(self, context: LoopContext) -> None:
        self.c = context
        self.config = context.config
        self.per_epoch = steps_per_epoch(len(context.train), self.config.batch_size)
        self.last_step = total_steps(self.config, len(context.train))
        self.warmup_steps = num_warmup_steps(self.last_step, self.config.warmup_fraction)
        self.evaluate_at = evaluation_steps(self.config, len(context.train))
        self.done = 0
        self.records: list[EpochRecord] = []
        self.out_of_patience = False
        self.stop: StopRequest | None = None
        self.left = False
        self.best_logits: NDArray[np.float32] | None = None
        # Loss sum, right predictions and examples since the last evaluation: float64, read only there.
        self.sums = torch.zeros(3, dtype=torch.float64, device=context.device)
        self.grad_norm = 0.0
        self.learning_rate = 0.0
        self.writer = CheckpointWriter(
            context.run, rank=context.rank, world_size=context.world_size, on_commit=self._committed
        )
        self.copies = HostCopies()
        self.control = Control(
            world_size=context.world_size,
            rank=context.rank,
            device=context.device,
            every_s=self.config.checkpoint_every_s,
            asked_to_leave=context.asked_to_leave,
        )
        self.saved_step = -1
        self._marks = (0.0, 0, 0)  # training seconds, examples, tokens at the last evaluation
        self._started = time.perf_counter()

    # ---- the run

    def run(self) -> LoopResult | None:
        """None where it was asked to leave: another attempt goes on from the checkpoint that it has just written. With a
        result, the last checkpoint may still be on its way: `wait_for_checkpoint`."""
        if self.c.resume_from is not None:
            self._restore(self.c.resume_from)
        self.c.model.train()
        with ThreadPoolExecutor(1, thread_name_prefix="collate") as pool:
            batches = prefetched(self.c, self.done, pool)
            while not self._finished():
                with self.c.timer.phase("data"):
                    batch = next(batches)
                self._train_step(batch)
                if self.done in self.evaluate_at:
                    self._evaluate()
                self._checkpoint_or_leave()
        if self.left:
            self.wait_for_checkpoint()
            return None
        best = self.best
        if best is None:
            raise NonFiniteError("no evaluation had a finite loss")
        return LoopResult(
            records=tuple(self.records), best=best, best_logits=self.best_logits, global_step=self.done, stop=self.stop
        )

    def steps_alone(self, count: int) -> tuple[int, float]:
        """`count` optimizer steps without evaluations and checkpoints, for measurements: examples and seconds."""
        with ThreadPoolExecutor(1, thread_name_prefix="collate") as pool:
            batches = prefetched(self.c, self.done, pool)
            before, start = self.c.timer.num_examples, time.perf_counter()
            for _ in range(count):
                self._train_step(next(batches))
            return self.c.timer.num_examples - before, time.perf_counter() - start

    @property
    def best(self) -> EpochRecord | None:
        return best_of(self.records)

    def _finished(self) -> bool:
        return self.done >= self.last_step or self.out_of_patience or self.left or self.stop is not None

    # ---- one step

    def _autocast(self, enabled: bool):  # type: ignore[no-untyped-def]
        return torch.autocast(self.c.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _train_step(self, batch: Batch) -> None:
        timer, engine, plan = self.c.timer, self.c.engine, batch.plan
        self.learning_rate = self.config.learning_rate * lr_factor(self.done, self.last_step, self.warmup_steps)
        accumulation = engine.accumulation()
        # The outer, disabled autocast keeps the inner one's casts of the weights for all micro-batches of the step.
        with self._autocast(False) if self.c.bf16 else nullcontext():
            accumulation.__enter__()
            for number, inputs in enumerate(batch.inputs, start=1):
                with timer.phase("forward"):
                    loss = self._loss(*inputs)
                with timer.phase("backward"):
                    engine.backward(loss, is_last=number == len(batch.inputs))
        with timer.phase("communication"):
            accumulation.__exit__(None, None, None)
        self.c.dropout_keys.set(None)
        try:
            with timer.phase("optimizer"):
                self.grad_norm = engine.step(self.learning_rate)
        except NonFiniteError as error:
            rows = self.c.train.row_ids[plan.global_rows].tolist()
            raise NonFiniteError(
                f"{error} at step {self.done + 1} of {self.last_step}, learning rate {self.learning_rate:.3g}, training rows {rows}"
            ) from None
        self.done += 1
        timer.count(examples=len(plan.global_rows), tokens=plan.num_tokens, padded_tokens=plan.num_padded_tokens)
        self.c.reporter.progress(
            global_step=self.done,
            total_steps=self.last_step,
            epoch=self.done / self.per_epoch,
            train_loss=self._peek_loss(),
            timer=timer,
        )
        if self.c.on_step is not None:
            self.c.on_step(self.done)

    def _loss(self, ids: Tensor, mask: Tensor | Varlen, labels: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
        """This micro-batch's part of the global batch's mean cross entropy."""
        self.c.dropout_keys.set(keys)
        with self._autocast(self.c.bf16):
            logits = self.c.model(ids, mask)  # [rows, 2]
        losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
        with torch.no_grad():
            real = weights > 0
            right = (logits.argmax(dim=1) == labels) & real
            self.sums += torch.stack([(losses * real).double().sum(), right.double().sum(), real.double().sum()])
        return (losses * weights).sum()

    def _peek_loss(self) -> float | None:
        """Now and then, for the progress line: reading it waits for the device."""
        return float(self.sums[0] / self.sums[2]) if self.done % 20 == 0 and float(self.sums[2]) else None

    # ---- evaluation

    def _evaluate(self) -> None:
        timer = self.c.timer
        with timer.phase("evaluation"):
            logits = compute_logits(
                self.c.model,
                self.c.evaluation,
                bf16=self.c.bf16,
                pad_id=self.c.pad_id,
                max_tokens=evaluation_tokens(self.c.micro_batch_tokens, self.c.device),
                device=self.c.device,
                rank=self.c.rank,
                world_size=self.c.world_size,
                on_batch=self.c.reporter.alive,
            )
            metrics = metrics_from_logits(logits, self.c.evaluation.labels)
            sums = self.sums.clone()
            if self.c.world_size > 1:
                torch.distributed.all_reduce(sums)
        seconds, examples, tokens = self._marks
        self._marks = (timer.training_seconds, timer.num_examples, timer.num_tokens)
        spent = max(1e-9, timer.training_seconds - seconds)
        count = max(1.0, float(sums[2]))
        record = EpochRecord(
            experiment=self.c.experiment,
            trial_id=self.c.trial_id,
            attempt=self.c.attempt,
            split=self.c.evaluation_split,
            global_step=self.done,
            epoch=self.done / self.per_epoch,
            learning_rate=self.learning_rate,
            train_loss=float(sums[0]) / count,
            train_accuracy=float(sums[1]) / count,
            dev_loss=metrics.loss,
            dev_accuracy=metrics.accuracy,
            dev_f1=metrics.f1,
            dev_precision=metrics.precision,
            dev_recall=metrics.recall,
            num_dev_rows=metrics.num_rows,
            grad_norm=self.grad_norm,
            seconds=time.perf_counter() - self._started,
            examples_per_sec=(timer.num_examples - examples) / spent,
            tokens_per_sec=(timer.num_tokens - tokens) / spent,
            written_at=dt.datetime.now(dt.timezone.utc),
        )
        self.sums.zero_()
        is_best = better(record, self.best)
        self.best_logits = logits if is_best else self.best_logits
        self.records.append(record)
        self.out_of_patience = self._out_of_patience()
        # Handed to the writer before it is told: a run that is stopped here goes on from here.
        self._checkpoint()
        asked = self.c.reporter.evaluated(record, is_best=is_best)
        self.stop = None if self._finished() else asked

    def _out_of_patience(self) -> bool:
        best = self.best
        if self.config.patience is None or best is None:
            return False
        since = sum(1 for r in self.records if r.global_step > best.global_step)
        return since >= self.config.patience and self.done < self.last_step

    # ---- checkpoints

    def _checkpoint_or_leave(self) -> None:
        """After every step: a checkpoint where one is due, and the end where somebody asked for the workers.

        Steps after one that could not be written would be for nothing: its error is raised at once."""
        self.writer.check()
        with self.c.timer.phase("communication"):  # where ranks wait for one that hangs
            decision = self.control.decide()
        if self._finished():
            return
        every = self.config.checkpoint_every_steps
        due = decision is not Decision.GO_ON or (every is not None and self.done % every == 0)
        if due and self.saved_step != self.done:
            self._checkpoint()
        if decision is Decision.LEAVE:
            self.left = True

    def _checkpoint(self) -> None:
        with self.c.timer.phase("checkpoint"):
            self.writer.wait()  # its copies are overwritten
            self.writer.save(self.snapshot())
        self.control.last_checkpoint = time.monotonic()
        self.saved_step = self.done

    def wait_for_checkpoint(self) -> None:
        """Until the last one is on storage. Raises what its writing raised."""
        with self.c.timer.phase("checkpoint"):
            self.writer.wait()

    def snapshot(self) -> Snapshot:
        """Copies of everything that a run needs to go on from here."""
        return Snapshot.take(
            global_step=self.done,
            model=self.c.model if self.c.rank == 0 else None,
            shard=self.c.engine.optimizer_shard(),
            sums=self.sums,
            state={
                "config_hash": self.config.config_hash,
                "num_train_rows": len(self.c.train),
                "data_fingerprint": self.c.data_fingerprint,
                "records": [ckpt.record_to_json(r) for r in self.records],
                "out_of_patience": self.out_of_patience,
                "grad_norm": self.grad_norm,
            },
            copies=self.copies,
        )

    def _committed(self, snapshot: Snapshot) -> None:
        """Keep what a run that goes on from this checkpoint takes for the best; what is better by now may not be whole
        on storage yet."""
        known = best_of([ckpt.record_from_json(r) for r in snapshot.state["records"]])
        protect = [best.global_step for best in (known, self.best) if best]
        ckpt.prune(self.c.run, keep=self.config.keep_checkpoints, protect=protect, newest=snapshot.global_step)

    def _restore(self, saved: ckpt.Checkpoint) -> None:
        """Weights were loaded before the engine was built; here everything else."""
        self.c.engine.load_optimizer_shard(saved.optimizer_shard(self.c.engine.optimizer_shard()))
        self.done = self.saved_step = saved.global_step
        self.records = [ckpt.record_from_json(r) for r in saved.state["records"]]
        self.out_of_patience = bool(saved.state["out_of_patience"])
        self.grad_norm = float(saved.state["grad_norm"])
        self.sums.copy_(saved.train_sums(rank=self.c.rank, world_size=self.c.world_size))
        saved.restore_random_states(rank=self.c.rank, world_size=self.c.world_size)
