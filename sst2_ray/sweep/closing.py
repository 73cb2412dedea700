"""The end of a sweep: where it stands, dev scored for the chosen, the few models that stay, the ranking in words."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sst2_ray import formatting
from sst2_ray.config.metrics import metric_of, oriented, worst
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import config_from_dict
from sst2_ray.modeling.export.card import META_FILE, CardFacts, card_text, meta_values
from sst2_ray.records import EpochRecord, PredictionRecord, Status, TrialRecord
from sst2_ray.results.analysis import leaderboard, limits, verdict
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.analysis.goodput import Goodput, read_goodput
from sst2_ray.results.analysis.ranking import Configuration, RankedGroup, Run
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import worker_env
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.supervisor import Shared
from sst2_ray.storage import Storage
from sst2_ray.terminal import print_line
from sst2_ray.training.dev_records import prediction_records, scored_on_dev
from sst2_ray.training.metrics import Metrics
from sst2_ray.training.names import EXPORT_FOLDER, LAST_EXPORT_FOLDER

if TYPE_CHECKING:
    from sst2_ray.data.texts import Text
    from sst2_ray.data.tokens import TokenArrays
    from sst2_ray.modeling.sources import ModelInfo


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The state of a sweep, from the table alone."""

    experiment: str
    study: Study | None
    """Findings; None: no trial has a row yet."""
    counts: Mapping[str, int]
    """Trials by status."""
    failures: Mapping[str, int]
    """Failed trials by class."""
    goodput: Goodput
    """Time of all trials."""

    @property
    def ranking(self) -> RankedGroup | None:
        """The ranking of the configurations."""
        return self.study.main if self.study else None

    @property
    def best(self) -> Configuration | None:
        """The first of the ranking."""
        return self.ranking.best if self.ranking else None

    @property
    def num_failed(self) -> int:
        """Trials that failed or were lost."""
        return self.counts.get(Status.FAILED, 0) + self.counts.get(Status.LOST, 0)


def standing(table: ResultsTable, config: SweepConfig) -> Standing:
    """Read, rank and compare. A sweep has one set of evaluation sentences, so one study."""
    experiment = config.name
    trials = table.read("trials", experiment=experiment, attempts="latest")
    rows = trials.select(["status", "failure_class"]).to_pylist()
    found = studies(table, trials, margin=config.margin / 100)
    return Standing(
        experiment=experiment,
        study=found[0] if found else None,
        counts=Counter(row["status"] for row in rows),
        failures=Counter(str(row["failure_class"]) for row in rows if row["status"] in (Status.FAILED, Status.LOST)),
        goodput=read_goodput(table, experiment),
    )


def best_run(ranking: RankedGroup, configuration: Configuration) -> Run:
    """Return the run of a configuration that is best by what it is ranked by; ties go to the first seed."""
    metric = ranking.chosen_by

    def order(run: Run) -> tuple[float, int]:
        value = run.values[ranking.metric]
        return worst(metric) if value is None else oriented(metric, value), -(run.seed or 0)

    return max(configuration.runs, key=order)


# ---- what is shown


def show(out: Console, now: Standing, *, num_not_run: int = 0) -> None:
    """Print the table of configurations, the verdict in words, what was not measured, what failed.

    While trials are yet to run, what lies beyond the best is no advice: they may be it.
    """
    if now.study is None:
        out.print("no trial has ended yet")
        return
    board, whole = leaderboard.of_study(now.study), "sst2-ray results --wide"
    leaderboard.print_table(board, out, title=now.experiment, ranked=True, limit=0, whole=whole)
    study = dataclasses.replace(now.study, edges=()) if num_not_run else now.study
    for sentence in verdict.sentences(study):
        print_line(out, sentence, highlight=False)
    for sentence in limits.not_measured(now.study):
        print_line(out, f"note: {sentence}", highlight=False, style="dim")
    print_line(out, counts_sentence(now, num_not_run=num_not_run), highlight=False)


def counts_sentence(now: Standing, *, num_not_run: int = 0) -> str:
    """Count the trials in words: 24 trials: 20 succeeded, 2 failed (1 non_finite, 1 out_of_memory), 2 not run yet."""
    parts = []
    for status in (Status.SUCCEEDED, Status.EARLY_STOPPED, Status.STOPPED, Status.RUNNING):
        if now.counts.get(status):
            parts.append(f"{now.counts[status]} {status.replace('_', ' ')}")
    if now.num_failed:
        classes = ", ".join(f"{count} {name}" for name, count in sorted(now.failures.items()))
        parts.append(f"{now.num_failed} failed ({classes})")
    if num_not_run:
        parts.append(f"{num_not_run} not run yet")
    return f"{formatting.count(sum(now.counts.values()) + num_not_run, 'trial')}: {', '.join(parts) or 'none'}."


# ---- the models that stay


def keep_best_models(table: ResultsTable, sweep: Storage, now: Standing, *, keep: int) -> int:
    """Delete the exports of all but the best run of each of the `keep` best configurations, and Ray's bookkeeping.

    Returns how many were deleted; their rows no longer name an export.
    """
    if now.ranking is None:
        return 0
    kept = {best_run(now.ranking, c).trial_id for c in now.ranking.configurations[:keep]}
    records: Sequence[TrialRecord] = table.records("trials", experiment=now.experiment, attempts="latest")
    gone = []
    for record in records:
        run = sweep.child(record.trial_id)
        run.delete("ray")
        run.delete(LAST_EXPORT_FOLDER)
        if record.trial_id not in kept and record.export_path is not None:
            run.delete(EXPORT_FOLDER)
            gone.append(dataclasses.replace(record, export_path=None, written_at=_now()))
    if gone:
        table.write("trials", gone)
    return len(gone)


# ---- dev, scored once


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
        if run.values["best_dev_accuracy"] is None and run.values["export_path"] is not None
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
    _state_on_card(run, record, shared, predictor.meta.info, best)
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


def _state_on_card(run: Storage, record: TrialRecord, shared: Shared, info: ModelInfo, dev: Metrics) -> None:
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
    )
    run.write_json(f"{EXPORT_FOLDER}/{META_FILE}", meta_values(card))
    run.write_bytes(f"{EXPORT_FOLDER}/README.md", card_text(card).encode())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
