"""What a rank does when its training has ended: score, export, state the facts."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.export.folder import CardFacts, export_model
from sst2_ray.records import EpochRecord, PredictionRecord, Status
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.context import LoopContext, LoopResult
from sst2_ray.training.evaluate import compute_logits, evaluation_tokens
from sst2_ray.training.metrics import Metrics, metric_fields, metrics_from_logits, positive_probability
from sst2_ray.training.names import EXPORT_FOLDER, LAST_EXPORT_FOLDER
from sst2_ray.training.throughput import (
    model_flop_utilization,
    model_flops_per_token,
    peak_flops,
    peak_memory_gib,
)

if TYPE_CHECKING:
    from sst2_ray.training.attempt import Attempt


@dataclass(frozen=True, kw_only=True)
class _OnDev:
    """What is known about dev when the attempt ends; None: it is not scored (yet)."""

    best: Metrics | None = None
    best_logits: NDArray[np.float32] | None = None
    last: Metrics | None = None


class Finish:
    """The end of one rank's attempt. All ranks call `run`. `wait_for_checkpoint`: of the last step, which is written while
    the model is exported."""

    def __init__(
        self, attempt: Attempt, context: LoopContext, result: LoopResult, wait_for_checkpoint: Callable[[], None]
    ) -> None:
        self.a, self.context, self.result, self.wait_for_checkpoint = attempt, context, result, wait_for_checkpoint
        self.chosen_on_selection = result.best.split == "selection"

    def run(self) -> dict[str, Any]:
        """The fields of TrialRecord that only the workers know; the same on all ranks."""
        attempt, result = self.a, self.result
        attempt.reporter.phase("export")
        peak = attempt.maximum(peak_memory_gib(attempt.device))
        on_dev = _OnDev() if result.stop is not None else self._score_and_keep()
        self.wait_for_checkpoint()
        if attempt.world_size > 1:
            self._wait_for_rank_0()
        return self._facts(on_dev, peak)

    def _wait_for_rank_0(self) -> None:
        """However long its export takes: the watchdog of rank 0 looks after it. A barrier alone would end with the time-out
        of collectives."""
        attempt, store = self.a, torch.distributed.distributed_c10d._get_default_store()
        key = f"exported-{attempt.task.trial_id}-{attempt.task.attempt}"
        if attempt.rank == 0:
            store.set(key, "")
        else:
            attempt.reporter.phase("communication")
            while not store.check([key]):
                attempt.reporter.alive()
                time.sleep(0.1)
        torch.distributed.barrier()

    # ---- what is kept

    def _score_and_keep(self) -> _OnDev:
        """Dev is scored with the best weights (and, where the epoch was chosen elsewhere, the last ones); both exported
        as far as somebody will need them."""
        attempt, result = self.a, self.result
        best_is_last = result.best.global_step == result.global_step
        score_dev = attempt.task.score_dev
        last = None
        if self.chosen_on_selection and not best_is_last:
            if score_dev:
                last = metrics_from_logits(self._dev_logits(), attempt.tokens["dev"].labels)
            elif attempt.rank == 0:
                self._export(LAST_EXPORT_FOLDER, result.records[-1], None)
        if not best_is_last:
            self._load_best()
        logits = None
        if not self.chosen_on_selection:
            logits = result.best_logits if result.best_logits is not None else self._dev_logits()
        elif score_dev:
            logits = self._dev_logits()
        best = metrics_from_logits(logits, attempt.tokens["dev"].labels) if logits is not None else None
        on_dev = _OnDev(best=best, best_logits=logits, last=last or (best if best_is_last else None))
        if attempt.rank == 0:
            with attempt.timer.phase("checkpoint"):
                self._keep(on_dev)
        return on_dev

    def _load_best(self) -> None:
        self.a.reporter.phase("best weights")
        storage, folder = self.a.storage, ckpt.step_folder(self.result.best.global_step)
        with self.a.timer.phase("checkpoint"), tempfile.TemporaryDirectory() as scratch:
            path = Path(storage.path(f"{folder}/model.safetensors"))
            if not storage.is_local:
                path = Path(scratch) / "model.safetensors"
                storage.download(f"{folder}/model.safetensors", path)
            ckpt.load_weights(self.a.model, path)

    def _dev_logits(self) -> NDArray[np.float32]:
        attempt = self.a
        attempt.reporter.phase("evaluation")
        with attempt.timer.phase("evaluation"):
            return compute_logits(
                attempt.model,
                attempt.tokens["dev"],
                bf16=attempt.bf16,
                pad_id=self.context.pad_id,
                max_tokens=evaluation_tokens(attempt.micro_batch_tokens, attempt.device),
                device=attempt.device,
                rank=attempt.rank,
                world_size=attempt.world_size,
                on_batch=attempt.reporter.alive,
            )

    def _keep(self, on_dev: _OnDev) -> None:
        attempt, best = self.a, self.result.best
        attempt.reporter.phase("export")
        if on_dev.best is not None and on_dev.best_logits is not None:
            if self.chosen_on_selection:
                attempt.reporter.write_records([scored_on_dev(best, on_dev.best)])
            attempt.reporter.write_predictions(
                prediction_records(
                    experiment=attempt.task.experiment,
                    trial_id=attempt.task.trial_id,
                    attempt=attempt.task.attempt,
                    global_step=best.global_step,
                    tokens=attempt.tokens["dev"],
                    texts=attempt.texts(),
                    logits=on_dev.best_logits,
                )
            )
        self._export(EXPORT_FOLDER, best, on_dev.best)

    def _export(self, folder: str, record: EpochRecord, dev: Metrics | None) -> None:
        """`record`: the evaluation of these weights, whose figures the card states where dev is not scored."""
        attempt, storage = self.a, self.a.storage
        attempt.reporter.phase("export")
        card = CardFacts(
            config=attempt.config,
            info=attempt.model.info,
            source=attempt.task.source,
            eval_split=attempt.task.eval_split if dev else "a held-out part of train",
            corpora=attempt.task.corpora,
            num_train_rows=len(attempt.tokens["train"]),
            num_dev_rows=dev.num_rows if dev else record.num_dev_rows or 0,
            accuracy=dev.accuracy if dev else record.dev_accuracy or 0.0,
            f1=dev.f1 if dev else record.dev_f1 or 0.0,
            loss=dev.loss if dev else record.dev_loss or 0.0,
            epoch=record.epoch,
            global_step=record.global_step,
        )
        if storage.is_local:
            export_model(attempt.model, attempt.tokenizer, Path(storage.path(folder)), card)
            return
        with tempfile.TemporaryDirectory() as scratch:
            export_model(attempt.model, attempt.tokenizer, Path(scratch) / folder, card)
            attempt.reporter.phase("upload")
            storage.delete(folder)
            storage.upload(Path(scratch) / folder, folder)

    # ---- what is stated

    def _facts(self, on_dev: _OnDev, peak_gib: float) -> dict[str, Any]:
        result = self.result
        best, last = result.best, result.records[-1]
        if not self.chosen_on_selection:
            on_dev = _OnDev(best=_metrics_of(best), last=_metrics_of(last))
        return {
            **self._about_model(),
            **self._about_speed(peak_gib),
            "best_epoch": best.epoch,
            "best_global_step": best.global_step,
            **metric_fields("best", on_dev.best),
            "selection_accuracy": best.dev_accuracy if self.chosen_on_selection else None,
            "last_epoch": last.epoch,
            "last_global_step": result.global_step,
            **metric_fields("last", on_dev.last),
            "last_train_loss": last.train_loss,
            "status": result.stop or Status.SUCCEEDED,
        }

    def _about_model(self) -> dict[str, Any]:
        model, info = self.a.model, self.a.model.info
        return {
            "model_kind": info.kind,
            "model_source": info.source,
            "model_revision": info.revision,
            "random_weights": info.random_weights,
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "attention": info.attention,
            "precision": "bf16" if self.a.bf16 else "fp32",
            "engine": self.a.config.engine,
        }

    def _about_speed(self, peak_gib: float) -> dict[str, Any]:
        attempt, timer = self.a, self.a.timer
        spent = max(timer.training_seconds, 1e-9)
        tokens_per_sec = timer.num_tokens / spent
        first_step_at = attempt.reporter.first_step_at
        return {
            "startup_seconds": first_step_at - attempt.task.started_at if first_step_at else None,
            **{f"{name}_seconds": seconds for name, seconds in timer.phase_seconds().items()},
            "examples_per_sec": timer.num_examples / spent,
            "tokens_per_sec": tokens_per_sec,
            "padding_fraction": 1 - timer.num_tokens / timer.num_padded_tokens if timer.num_padded_tokens else None,
            "model_flop_utilization": model_flop_utilization(
                tokens_per_sec=tokens_per_sec,
                flops_per_token=model_flops_per_token(attempt.model),
                world_size=attempt.world_size,
                peak=peak_flops(attempt.device, bf16=attempt.bf16),
            ),
            "peak_memory_gib": peak_gib,
            "world_size": attempt.world_size,
            "micro_batch_tokens": attempt.micro_batch_tokens,
        }


def _metrics_of(record: EpochRecord) -> Metrics:
    """The loop fills every metric in; the fields may be null for records of other tools."""
    return Metrics(
        loss=record.dev_loss or 0.0,
        accuracy=record.dev_accuracy or 0.0,
        f1=record.dev_f1 or 0.0,
        precision=record.dev_precision or 0.0,
        recall=record.dev_recall or 0.0,
        num_rows=record.num_dev_rows or 0,
    )


def scored_on_dev(record: EpochRecord, dev: Metrics) -> EpochRecord:
    """A record of the held-out part of train, as one of dev at the same step."""
    return dataclasses.replace(
        record,
        split="dev",
        dev_loss=dev.loss,
        dev_accuracy=dev.accuracy,
        dev_f1=dev.f1,
        dev_precision=dev.precision,
        dev_recall=dev.recall,
        num_dev_rows=dev.num_rows,
    )


def prediction_records(
    *,
    experiment: str,
    trial_id: str,
    attempt: int,
    global_step: int,
    tokens: TokenArrays,
    texts: Sequence[str],
    logits: NDArray[np.float32],
) -> list[PredictionRecord]:
    """One record a row of dev; `logits` [rows, 2]."""
    probability = positive_probability(logits)
    return [
        PredictionRecord(
            experiment=experiment,
            trial_id=trial_id,
            attempt=attempt,
            split="dev",
            global_step=global_step,
            row_id=int(tokens.row_ids[i]),
            text=texts[i],
            label=int(tokens.labels[i]),
            predicted=int(logits[i, 1] > logits[i, 0]),
            probability=float(probability[i]),
        )
        for i in range(len(tokens))
    ]
