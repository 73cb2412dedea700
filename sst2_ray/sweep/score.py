"""Dev, scored once, for what a sweep has chosen on a held-out part of train: both the best and the last weights."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst2_ray.config.train import config_from_dict
from sst2_ray.modeling.export.card import META_FILE, CardFacts, card_text, meta_values
from sst2_ray.records import EpochRecord, TrialRecord
from sst2_ray.results.analysis.ranking import RankedGroup, Run
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import worker_env
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.supervisor import Shared
from sst2_ray.storage import Storage
from sst2_ray.training.metrics import Metrics, metric_fields
from sst2_ray.training.names import EXPORT_FOLDER, LAST_EXPORT_FOLDER

if TYPE_CHECKING:
    from sst2_ray.modeling.sources import ModelInfo


def score_chosen(
    ray: Any,
    ranking: RankedGroup | None,
    table: ResultsTable,
    sweep: Storage,
    *,
    shared: dict[str, Shared],
    placement: Placement,
) -> int:
    """Score the best configuration of each model under all its seeds, where that was not done yet and the model is still
    there; returns how many runs.

    New rows replace those of their trials; the exported models' cards state dev from now on.
    """
    if ranking is None or ranking.metric != "selection_accuracy":
        return 0
    runs = [
        run
        for configuration in ranking.best_per_model()
        for run in configuration.runs
        if run.values["best_dev_accuracy"] is None and run.values["export_path"] is not None
    ]
    records = {
        r.trial_id: r for r in table.records("trials", experiment=ranking.best.runs[0].experiment, attempts="latest")
    }
    task = ray.remote(
        num_cpus=placement.cpus_per_worker,
        num_gpus=1 if placement.use_gpu else 0,
        runtime_env={"env_vars": worker_env(use_gpu=placement.use_gpu)},
    )(_score)
    pending = {}
    for run in runs:
        record = records[run.trial_id]
        of_model = shared[str(record.model)]
        pending[task.remote(sweep.child(run.trial_id), record, of_model, of_model.splits["dev"], of_model.texts)] = run
    for reference, run in pending.items():
        _write(table, run, records[run.trial_id], ray.get(reference))
    return len(runs)


def _write(table: ResultsTable, run: Run, record: TrialRecord, scored: dict[str, Any]) -> None:
    table.write("predictions", scored["predictions"])
    evaluations: list[EpochRecord] = table.records(
        "epochs", experiment=run.experiment, trial_ids=[run.trial_id], attempts="latest"
    )
    on_selection = {e.global_step: e for e in evaluations if e.split == "selection"}
    table.write(
        "epochs", [dataclasses.replace(on_selection[step], **values) for step, values in scored["points"].items()]
    )
    table.write(
        "trials", [dataclasses.replace(record, **scored["fields"], written_at=dt.datetime.now(dt.timezone.utc))]
    )


def _score(run: Storage, record: TrialRecord, shared: Shared, tokens: Any, texts: list[str]) -> dict[str, Any]:
    """On a worker: metrics and predictions of both exports of a run, in fp32."""
    from sst2_ray.predict.predictor import Predictor
    from sst2_ray.training.finish import prediction_records
    from sst2_ray.training.metrics import metrics_from_logits

    with tempfile.TemporaryDirectory() as scratch:
        predictor = Predictor(_local(run, EXPORT_FOLDER, Path(scratch)))
        logits = predictor.logits(texts)
        best = last = metrics_from_logits(logits, tokens.labels)
        if run.exists(f"{LAST_EXPORT_FOLDER}/{META_FILE}"):
            last = metrics_from_logits(
                Predictor(_local(run, LAST_EXPORT_FOLDER, Path(scratch))).logits(texts), tokens.labels
            )
    _state_on_card(run, record, shared, predictor.meta.info, best)
    assert record.best_global_step is not None and record.last_global_step is not None
    points = {record.last_global_step: _point(last), record.best_global_step: _point(best)}
    return {
        "fields": {**metric_fields("best", best), **metric_fields("last", last)},
        "points": points,
        "predictions": prediction_records(
            experiment=record.experiment,
            trial_id=record.trial_id,
            attempt=record.attempt,
            global_step=record.best_global_step,
            tokens=tokens,
            texts=texts,
            logits=logits,
        ),
    }


def _local(run: Storage, folder: str, scratch: Path) -> Path:
    if run.is_local:
        return Path(run.path(folder))
    run.download(folder, scratch / folder)
    return scratch / folder


def _point(metrics: Metrics) -> dict[str, Any]:
    """Fields of an EpochRecord of dev."""
    return {
        "split": "dev",
        "num_dev_rows": metrics.num_rows,
        "written_at": dt.datetime.now(dt.timezone.utc),
        **{f"dev_{name}": getattr(metrics, name) for name in ("loss", "accuracy", "f1", "precision", "recall")},
    }


def _state_on_card(run: Storage, record: TrialRecord, shared: Shared, info: ModelInfo, dev: Metrics) -> None:
    """Rewrite the export's card and what it says of itself: so far they stated the held-out part of train."""
    checked = shared.checked
    card = CardFacts(
        config=config_from_dict(json.loads(record.config_json or "{}"), source=record.trial_id),
        info=info,
        source=checked.splits.source,
        eval_split=checked.splits.eval_split,
        corpora=(*checked.resolved.info.trained_on, *checked.corpora),
        num_train_rows=record.num_train_rows or 0,
        num_dev_rows=dev.num_rows,
        accuracy=dev.accuracy,
        f1=dev.f1,
        loss=dev.loss,
        epoch=record.best_epoch or 0.0,
        global_step=record.best_global_step or 0,
    )
    run.write_json(f"{EXPORT_FOLDER}/{META_FILE}", meta_values(card))
    run.write_bytes(f"{EXPORT_FOLDER}/README.md", card_text(card).encode())
