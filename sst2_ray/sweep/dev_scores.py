"""Dev of a sweep that chooses on a held-out part of train: scored once, for the best configuration of each model."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray.config.metrics import metric_of
from sst2_ray.config.train import config_from_dict
from sst2_ray.modeling.export.card import META_FILE, CalibrationFacts, CardFacts, card_text, meta_values
from sst2_ray.records import EpochRecord, PredictionRecord, TrialRecord
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import worker_env
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.supervisor import Shared
from sst2_ray.storage import Storage
from sst2_ray.sweep.closing import Standing
from sst2_ray.training.dev_records import prediction_records, restated, scored_on_dev
from sst2_ray.training.metrics import Metrics
from sst2_ray.training.names import EXPORT_FOLDER, LAST_EXPORT_FOLDER

if TYPE_CHECKING:
    from sst2_ray.data.texts import Text
    from sst2_ray.data.tokens import TokenArrays
    from sst2_ray.modeling.sources import ModelInfo


@dataclass(frozen=True, kw_only=True)
class DevScore:
    """Dev of a run that chose its epoch on a held-out part of train."""

    best: Metrics
    """Weights of the best epoch."""
    last: Metrics
    """Weights of the last epoch."""
    predictions: list[PredictionRecord]
    """Predictions of the best epoch's weights."""


def score_chosen(
    now: Standing, table: ResultsTable, sweep: Storage, *, shared: Mapping[str, Shared], placement: Placement
) -> int:
    """Score the best configuration of each model on dev under all its seeds, where that was not done and the model exists.

    Returns how many runs. New rows replace those of their trials; the exported models' cards state dev from now on.
    """
    import ray

    ranking = now.ranking
    if ranking is None or not ranking.on_selection:
        return 0
    trial_ids = [
        run.trial_id
        for configuration in ranking.best_per_model()
        for run in configuration.runs
        if run.values["best_score"] is None and run.values["best_dev_accuracy"] is None and run.values["export_path"]
    ]
    records: dict[str, TrialRecord] = {
        r.trial_id: r for r in table.records("trials", experiment=now.experiment, attempts="latest")
    }
    task = ray.remote(
        num_cpus=placement.cpus_per_worker,
        num_gpus=1 if placement.use_gpu else 0,
        runtime_env={"env_vars": worker_env(use_gpu=placement.use_gpu)},
    )(_score)
    pending = {}
    for trial_id in trial_ids:
        record = records[trial_id]
        of_model = shared[str(record.model)]
        pending[trial_id] = task.remote(sweep.child(trial_id), record, of_model, of_model.splits["dev"], of_model.texts)
    for trial_id, reference in pending.items():
        _write(table, records[trial_id], ray.get(reference))
    return len(trial_ids)


def _write(table: ResultsTable, record: TrialRecord, score: DevScore) -> None:
    table.write("predictions", score.predictions)
    evaluations: list[EpochRecord] = table.records(
        "epochs", experiment=record.experiment, trial_ids=[record.trial_id], attempts="latest"
    )
    on_selection = {e.global_step: e for e in evaluations if e.split == "selection"}
    metrics = {record.last_global_step: score.last, record.best_global_step: score.best}
    on_dev = [scored_on_dev(on_selection[step], found) for step, found in metrics.items() if step is not None]
    table.write("epochs", [dataclasses.replace(one, written_at=_now()) for one in on_dev])
    scored = dataclasses.replace(
        record,
        best_dev_accuracy=score.best.accuracy,
        best_dev_f1=score.best.f1,
        best_dev_loss=score.best.loss,
        best_dev_macro_f1=score.best.macro_f1,
        best_dev_mcc=score.best.mcc,
        best_dev_auroc=score.best.auroc,
        best_dev_pearson=score.best.pearson,
        best_dev_spearman=score.best.spearman,
        best_score=score.best.score(metric_of(record)),
        best_num_answered=score.best.num_answered,
        last_dev_accuracy=score.last.accuracy,
        last_dev_f1=score.last.f1,
        last_dev_loss=score.last.loss,
        written_at=_now(),
    )
    table.write("trials", [scored])


def _score(run: Storage, record: TrialRecord, shared: Shared, tokens: TokenArrays, texts: list[Text]) -> DevScore:
    """Compute metrics of both exports of a run, in fp32, and the predictions of the best; runs on a worker."""
    from sst2_ray.predict.predictor import Predictor
    from sst2_ray.training.metrics import metrics_from_logits

    with tempfile.TemporaryDirectory() as scratch:
        predictor = Predictor(_local(run, EXPORT_FOLDER, Path(scratch)))
        logits = predictor.logits(texts)
        best = last = metrics_from_logits(logits, tokens.labels)
        if run.exists(f"{LAST_EXPORT_FOLDER}/{META_FILE}"):
            last_predictor = Predictor(_local(run, LAST_EXPORT_FOLDER, Path(scratch)))
            last = metrics_from_logits(last_predictor.logits(texts), tokens.labels)
    calibration = restated(run.read_json(f"{EXPORT_FOLDER}/{META_FILE}").get("calibration"), logits, tokens.labels)
    _state_on_card(run, record, shared, predictor.meta.info, best, calibration)
    predictions = prediction_records(
        experiment=record.experiment,
        trial_id=record.trial_id,
        attempt=record.attempt,
        global_step=record.best_global_step or 0,
        tokens=tokens,
        texts=texts,
        logits=logits,
    )
    return DevScore(best=best, last=last, predictions=predictions)


def _local(run: Storage, folder: str, scratch: Path) -> Path:
    if run.is_local:
        return Path(run.path(folder))
    run.download(folder, scratch / folder)
    return scratch / folder


def _state_on_card(
    run: Storage,
    record: TrialRecord,
    shared: Shared,
    info: ModelInfo,
    dev: Metrics,
    calibration: CalibrationFacts | None,
) -> None:
    """Rewrite the export's card and metadata, which stated the held-out part of train so far."""
    inputs = shared.inputs
    card = CardFacts(
        config=config_from_dict(json.loads(record.config_json or "{}"), source=record.trial_id),
        info=info,
        source=inputs.splits.source,
        eval_split=inputs.splits.eval_split,
        corpora=(*inputs.resolved.info.trained_on, *inputs.corpora),
        num_train_rows=record.num_train_rows or 0,
        num_dev_rows=dev.num_rows,
        accuracy=dev.accuracy,
        f1=dev.f1,
        pearson=dev.pearson,
        spearman=dev.spearman,
        loss=dev.loss,
        epoch=record.best_epoch or 0.0,
        global_step=record.best_global_step or 0,
        calibration=calibration,
    )
    run.write_json(f"{EXPORT_FOLDER}/{META_FILE}", meta_values(card))
    run.write_bytes(f"{EXPORT_FOLDER}/README.md", card_text(card).encode())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
