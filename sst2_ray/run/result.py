"""The result of a run: the value that `train` returns, the file it leaves, the closing table."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, shown
from sst2_ray.errors import InputError
from sst2_ray.records import TrialRecord
from sst2_ray.storage import address, typed
from sst2_ray.tables import Rows
from sst2_ray.training.names import EXPORT_FOLDER


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TrainResult(Rows):
    """Result of a finished run."""

    name: str
    status: str
    """succeeded, also where patience ran out before the last epoch."""
    eval_split: str
    """Name of dev, e.g. 'SST-2 dev' or 'hold-out of rotten-tomatoes'."""
    best_dev_accuracy: float | None
    """Accuracy; None: a regression."""
    best_dev_f1: float | None
    best_dev_loss: float
    best_dev_macro_f1: float | None = None
    best_dev_mcc: float | None = None
    best_dev_pearson: float | None = None
    best_dev_spearman: float | None = None
    chosen_by: str = "accuracy"
    """Metric that the best epoch was chosen by."""
    best_score: float | None = None
    """Score in that metric at the best epoch, on dev."""
    other_scores_json: str | None = None
    """Scores on further evaluation splits of the data, by split."""
    num_dev_rows: int | None = None
    """Rows of dev."""
    majority_share: float | None = None
    """Accuracy on dev of always answering its most frequent class."""
    best_num_answered: int | None = None
    """Classes that the best model answers at least once on dev; 1: its answer is constant."""
    best_epoch: float
    last_dev_accuracy: float | None
    """Null if the epoch was chosen on a held-out part of train and dev was scored once."""
    examples_per_sec: float | None
    """Training speed of the last attempt; None: it took no step, since only the end was left to do."""
    seconds: float
    """Time of all attempts."""
    startup_seconds: float | None
    peak_memory_gib: float
    world_size: int
    model_label: str
    model_dir: str
    """Folder of the exported best model."""
    run_dir: str
    results_dir: str
    goodput: float | None = None
    """Share of the time of all attempts in optimizer steps that counted, 0-1."""
    num_lost_steps: int | None = None
    """Optimizer steps that attempts did again."""
    time_words: str = ""
    """Use of the time of all attempts, in one line."""

    def rows(self) -> list[tuple[str, str]]:
        """Return name and value of each line of the closing table."""
        return result_rows(self)


def stored_result(values: Mapping[str, object], source: str) -> TrainResult:
    """Build the result from what a run left, without the fields that only another version knows.

    Raises InputError, which begins with `source`, where a field is missing.
    """
    fields = dataclasses.fields(TrainResult)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        raise InputError(f"{source}: its result.json lacks {', '.join(missing[:3])}; choose another name")
    return TrainResult(**{f.name: values[f.name] for f in fields if f.name in values})  # type: ignore[arg-type]


def result_of(record: TrialRecord, label: str, storage_path: str) -> TrainResult:
    """Build the result from the row that ended a run. `label`: name of the model."""
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(TrainResult) if hasattr(record, f.name)}
    return TrainResult(
        **values,
        name=record.experiment,
        model_label=label,
        model_dir=address(storage_path, f"{record.experiment}/{EXPORT_FOLDER}"),
        run_dir=address(storage_path, record.experiment),
        results_dir=address(storage_path, "results"),
    )


def _class_rows(result: TrainResult) -> list[tuple[str, str]]:
    """Set the accuracy beside that of a constant answer, and say where the model gives one."""
    if result.majority_share is None or result.best_dev_macro_f1 is None:
        return []
    scores = f"macro F1 {formatting.percent(result.best_dev_macro_f1)} %, MCC {result.best_dev_mcc:.4f}"
    constant = f"always answering the largest class: accuracy {formatting.percent(result.majority_share)} %"
    rows = [("of all classes", f"{scores}; {constant}")]
    if result.chosen_by != "accuracy":
        rows.insert(0, ("chosen by", f"{METRIC_NAMES[result.chosen_by]} {shown(result.chosen_by, result.best_score)}"))
    if result.best_num_answered == 1:
        rows.append(
            ("constant answer", "the model answers one class for every sentence of dev: it has learned nothing")
        )
    return rows


def _score_words(scores: dict[str, float]) -> list[str]:
    """Describe the scores on another split: accuracy, the metric that decided, rows."""
    named = [f"{METRIC_NAMES[name]} {shown(name, value)}" for name, value in scores.items() if name in METRIC_NAMES]
    return [*named, formatting.count(round(scores["num_rows"]), "row")]


def _score_rows(result: TrainResult) -> list[tuple[str, str]]:
    """Return the lines of the scores at the best epoch: of classes, or of a regression."""
    best = f"(best, epoch {result.best_epoch:g})"
    if result.best_dev_accuracy is None:
        pearson, spearman = (shown("pearson", v) for v in (result.best_dev_pearson, result.best_dev_spearman))
        return [
            ("correlation", f"Pearson {pearson}, Spearman {spearman} {best}"),
            ("chosen by", METRIC_NAMES[result.chosen_by]),
            ("squared error", f"{result.best_dev_loss:.4f}"),
        ]
    of_rows = f" of {formatting.count(result.num_dev_rows, 'row')}" if result.num_dev_rows else ""
    last = f"{formatting.percent(result.last_dev_accuracy)} %" if result.last_dev_accuracy is not None else "not scored"
    return [
        ("accuracy", f"{formatting.percent(result.best_dev_accuracy)} %{of_rows} {best}; last {last}"),
        *(
            [("interval", _interval_words(result, result.best_dev_accuracy, result.num_dev_rows))]
            if result.num_dev_rows
            else []
        ),
        ("F1 / loss", f"{formatting.percent(result.best_dev_f1)} % / {result.best_dev_loss:.4f}"),
    ]


def _interval_words(result: TrainResult, accuracy: float, num_rows: int) -> str:
    """Say what the accuracy of one run covers."""
    from sst2_ray.statistics.scores import wilson_interval  # imports scipy

    found = wilson_interval(round(accuracy * num_rows), num_rows)
    low, high = formatting.percent(found.low), formatting.percent(found.high)
    chosen = "; the epoch was chosen on these rows" if result.last_dev_accuracy != accuracy else ""
    return f"{low} to {high} with 95 % confidence, for new sentences but not for new seeds (Wilson's, of this run alone){chosen}"


def result_rows(result: TrainResult) -> list[tuple[str, str]]:
    """Return name and value of each line of the closing table."""
    rate = result.examples_per_sec
    speed = f"{rate:.0f} examples/s" if rate is not None else "no step was left to do"
    start = f", first step after {result.startup_seconds:.1f} s" if result.startup_seconds else ""
    return [
        ("", ""),
        ("run", f"{result.name}: {result.status.replace('_', ' ')}"),
        ("model", result.model_label),
        ("evaluated on", result.eval_split),
        *_score_rows(result),
        *_class_rows(result),
        *[
            (name.replace("validation_", ""), "; ".join(_score_words(scores)))
            for name, scores in json.loads(result.other_scores_json or "{}").items()
        ],
        ("speed", f"{speed}, {result.seconds:.0f} s in all{start}"),
        *([("time", result.time_words)] if result.time_words else []),
        ("memory", f"peak {result.peak_memory_gib:.2f} GiB a worker, {formatting.count(result.world_size, 'worker')}"),
        ("model folder", typed(result.model_dir)),
        ("run folder", f"{typed(result.run_dir)} (config.json, logs/)"),
        ("results table", typed(result.results_dir)),
        ("try it", f'sst2-ray predict {shlex.quote(typed(result.run_dir))} --text "..."'),
    ]
