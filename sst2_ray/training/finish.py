"""The end of a rank's attempt: score dev, export the model, state the facts."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from sst2_ray.config.metrics import score_of
from sst2_ray.data.texts import Text
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.export.card import CalibrationFacts
from sst2_ray.modeling.export.folder import CardFacts, export_model
from sst2_ray.records import EpochRecord
from sst2_ray.statistics.temperature import Rescaling, fit
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.context import AttemptReporter, LoopContext, LoopResult
from sst2_ray.training.dev_records import calibration_facts, prediction_records, scored_on_dev
from sst2_ray.training.facts import evaluation_facts, metrics_of, model_facts, speed_facts, split_scores
from sst2_ray.training.metrics import Metrics, metrics_from_logits
from sst2_ray.training.names import EXPORT_FOLDER, LAST_EXPORT_FOLDER, Phase
from sst2_ray.training.outcome import Finished
from sst2_ray.training.task import Task
from sst2_ray.training.throughput import peak_memory_gib


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A rank whose loop has ended."""

    task: Task
    context: LoopContext
    result: LoopResult
    reporter: AttemptReporter
    tokenizer: PreTrainedTokenizerFast
    dev: TokenArrays
    others: dict[str, TokenArrays]
    """Further evaluation splits, by name."""
    texts: Callable[[], list[Text]]
    """Returns the dev sentences; rank 0 alone calls it."""


@dataclass(frozen=True, kw_only=True)
class _OnDev:
    """Dev metrics when the attempt ends; None: not scored (yet)."""

    best: Metrics | None = None
    best_logits: NDArray[np.float32] | None = None
    last: Metrics | None = None
    others: dict[str, Metrics] = field(default_factory=dict)
    """Metrics of the best weights on further evaluation splits."""


class Finish:
    """The end of one rank's attempt; all ranks call `run`."""

    def __init__(self, trained: Trained, wait_for_checkpoint: Callable[[], None]) -> None:
        """Take over from the loop. `wait_for_checkpoint`: the last one is written while the model is exported."""
        self.trained, self.wait_for_checkpoint = trained, wait_for_checkpoint
        self.task, self.context, self.result = trained.task, trained.context, trained.result
        self.reporter, self.dev = trained.reporter, trained.dev
        self.chosen_on_selection = self.result.best.split == "selection"
        self.rescaling: Rescaling | None = None  # in the head of the best weights

    def run(self) -> Finished:
        """Score, export and return the facts, the same on all ranks."""
        context, result = self.context, self.result
        self.reporter.phase(Phase.EXPORT)
        peak = self._maximum(peak_memory_gib(context.device))
        on_dev = _OnDev() if result.stop is not None else self._score_and_keep()
        self.wait_for_checkpoint()
        if context.world_size > 1:
            self._wait_for_rank_0()
        return self._facts(on_dev, peak)

    def _maximum(self, value: float) -> float:
        """Return the largest value over all ranks."""
        if self.context.world_size == 1:
            return value
        tensor = torch.tensor([value], device=self.context.device)
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
        return float(tensor)

    def _wait_for_rank_0(self) -> None:
        """Wait for the export of rank 0, however long it takes: the watchdog of rank 0 looks after it.

        A barrier alone would end with the time-out of collectives.
        """
        store = torch.distributed.distributed_c10d._get_default_store()
        key = f"exported-{self.task.trial_id}-{self.task.attempt}"
        if self.context.rank == 0:
            store.set(key, "")
        else:
            self.reporter.phase(Phase.COMMUNICATION)
            while not store.check([key]):
                self.reporter.alive()
                time.sleep(0.1)
        torch.distributed.barrier()

    # ---- what is kept

    def _score_and_keep(self) -> _OnDev:
        """Score dev with the best weights, and with the last ones where the epoch was chosen on other rows; export both
        as far as somebody will need them."""
        result, score_dev = self.result, self.task.score_dev
        best_is_last = result.best.global_step == result.global_step
        last = None
        if self.chosen_on_selection and not best_is_last:
            if score_dev:
                last = metrics_from_logits(self._dev_logits(), self.dev.labels)
            elif self.context.rank == 0:
                self._export(LAST_EXPORT_FOLDER, result.records[-1], None)
        if not best_is_last:
            self._load_best()
        logits = None
        selection_logits = self._selection_logits() if self.chosen_on_selection else None
        self._rescale(selection_logits)
        if not self.chosen_on_selection:
            logits = result.best_logits if result.best_logits is not None else self._dev_logits()
        elif score_dev:
            logits = self._dev_logits()
        best = metrics_from_logits(logits, self.dev.labels) if logits is not None else None
        last = last or (best if best_is_last else None)
        on_dev = _OnDev(best=best, best_logits=logits, last=last, others=self._score_others())
        if self.context.rank == 0:
            with self.context.timer.phase(Phase.CHECKPOINT):
                if selection_logits is not None:
                    self._write_predictions("selection", self.context.evaluation, selection_logits, None)
                self._keep(on_dev)
        return on_dev

    def _load_best(self) -> None:
        self.reporter.phase(Phase.BEST_WEIGHTS)
        storage, folder = self.context.run, ckpt.step_folder(self.result.best.global_step)
        with self.context.timer.phase(Phase.CHECKPOINT), tempfile.TemporaryDirectory() as scratch:
            path = Path(storage.path(f"{folder}/model.safetensors"))
            if not storage.is_local:
                path = Path(scratch) / "model.safetensors"
                storage.download(f"{folder}/model.safetensors", path)
            ckpt.load_weights(self.context.model, path)

    def _dev_logits(self) -> NDArray[np.float32]:
        self.reporter.phase(Phase.EVALUATION)
        with self.context.timer.phase(Phase.EVALUATION):
            return self.context.logits(self.dev)

    def _score_others(self) -> dict[str, Metrics]:
        """Score the best weights on the further evaluation splits of the data where dev is scored, and record it."""
        found = {}
        for name, rows in self.trained.others.items() if self.task.score_dev else ():
            self.reporter.phase(Phase.EVALUATION)
            with self.context.timer.phase(Phase.EVALUATION):
                logits = self.context.logits(rows)
            found[name] = metrics_from_logits(logits, rows.labels)
            if self.context.rank == 0:
                record = scored_on_dev(self.result.best, found[name])
                self.reporter.write_records([dataclasses.replace(record, split=name)])
                self._write_predictions(name, rows, logits, None)
        return found

    def _selection_logits(self) -> NDArray[np.float32]:
        """Return the best weights' logits of the held-out part of train, which configurations are chosen by."""
        if self.result.best_logits is not None:
            return self.result.best_logits
        self.reporter.phase(Phase.EVALUATION)
        with self.context.timer.phase(Phase.EVALUATION):
            return self.context.logits(self.context.evaluation)

    def _write_predictions(
        self, split: str, rows: TokenArrays, logits: NDArray[np.float32], texts: list[Text] | None
    ) -> None:
        self.reporter.write_predictions(
            prediction_records(
                experiment=self.task.experiment,
                trial_id=self.task.trial_id,
                attempt=self.task.attempt,
                split=split,
                global_step=self.result.best.global_step,
                tokens=rows,
                texts=texts,
                logits=logits,
            )
        )

    def _keep(self, on_dev: _OnDev) -> None:
        best = self.result.best
        self.reporter.phase(Phase.EXPORT)
        if on_dev.best is not None and on_dev.best_logits is not None:
            if self.chosen_on_selection:
                self.reporter.write_records([scored_on_dev(best, on_dev.best)])
            self._write_predictions("dev", self.dev, on_dev.best_logits, self.trained.texts())
        self._export(EXPORT_FOLDER, best, on_dev.best, self._calibrated(on_dev.best_logits))

    def _rescale(self, selection_logits: NDArray[np.float32] | None) -> None:
        """Put temperature and threshold into the head where the config asks for them; the same on all ranks."""
        if selection_logits is not None and self.context.config.calibrate_head:
            self.rescaling = fit(selection_logits, self.context.evaluation.labels)
            self.context.model.rescale(self.rescaling.temperature, self.rescaling.shift)

    def _calibrated(self, logits: NDArray[np.float32] | None) -> CalibrationFacts | None:
        """State what the head holds; `logits` are the best weights' on dev."""
        return calibration_facts(self.rescaling, logits, self.dev.labels) if self.rescaling else None

    def _export(
        self, folder: str, record: EpochRecord, dev: Metrics | None, calibration: CalibrationFacts | None = None
    ) -> None:
        """Export the weights that are loaded.

        Args:
            folder: below the run's.
            record: evaluation of these weights; the card states its figures where dev is not scored.
            dev: metrics of these weights on dev.
            calibration: Of these weights.
        """
        context, storage = self.context, self.context.run
        self.reporter.phase(Phase.EXPORT)
        card = CardFacts(
            config=context.config,
            info=context.model.info,
            source=self.task.source,
            eval_split=self.task.eval_split if dev else "a held-out part of train",
            corpora=self.task.corpora,
            num_train_rows=len(context.train),
            num_dev_rows=dev.num_rows if dev else record.num_dev_rows or 0,
            accuracy=dev.accuracy if dev else record.dev_accuracy,
            f1=dev.f1 if dev else record.dev_f1,
            pearson=dev.pearson if dev else record.dev_pearson,
            spearman=dev.spearman if dev else record.dev_spearman,
            loss=dev.loss if dev else record.dev_loss or 0.0,
            epoch=record.epoch,
            global_step=record.global_step,
            calibration=calibration,
        )
        if storage.is_local:
            export_model(context.model, self.trained.tokenizer, Path(storage.path(folder)), card)
            return
        with tempfile.TemporaryDirectory() as scratch:
            export_model(context.model, self.trained.tokenizer, Path(scratch) / folder, card)
            self.reporter.phase(Phase.UPLOAD)
            storage.delete(folder)
            storage.upload(Path(scratch) / folder, folder)

    # ---- what is stated

    def _facts(self, on_dev: _OnDev, peak_gib: float) -> Finished:
        best, last, by = self.result.best, self.result.records[-1], self.context.config.metric
        if not self.chosen_on_selection:
            on_dev = _OnDev(best=metrics_of(best), last=metrics_of(last), others=on_dev.others)
        return Finished(
            stop=self.result.stop,
            model=model_facts(self.context),
            speed=speed_facts(
                self.context,
                peak_gib=peak_gib,
                started_at=self.task.started_at,
                first_step_at=self.reporter.first_step_at,
            ),
            best=evaluation_facts(best.epoch, best.global_step, on_dev.best, by),
            last=evaluation_facts(last.epoch, self.result.global_step, on_dev.last, by),
            last_train_loss=last.train_loss,
            selection_accuracy=best.dev_accuracy if self.chosen_on_selection else None,
            others={name: split_scores(metrics, by) for name, metrics in on_dev.others.items()},
            selection_score=score_of(best, by) if self.chosen_on_selection else None,
            temperature=self.rescaling.temperature if self.rescaling else None,
            decision_threshold=self.rescaling.threshold if self.rescaling else None,
        )
