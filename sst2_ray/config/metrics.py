"""Metrics that a run can be judged by: their names, their direction, and each task's own. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal, cast

from sst2_ray import formatting
from sst2_ray.records import EpochRecord, TrialRecord

Metric = Literal["accuracy", "macro_f1", "weighted_f1", "f1", "mcc", "auroc", "loss", "pearson", "spearman"]
"""f1: of class 1 of two, else the mean over the classes. mcc: Matthews' correlation coefficient. auroc: area under the ROC
curve, two classes. pearson, spearman: correlations, regression."""

METRIC_NAMES: dict[str, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "f1": "F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "loss": "loss",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
"""Metric -> its name in words."""

SHARES = frozenset({"accuracy", "macro_f1", "weighted_f1", "f1"})
"""Metrics that are shown in per cent."""

REGRESSION_METRICS = frozenset({"pearson", "spearman"})
"""Metrics that a regression can be judged by."""

_WORST = {"mcc": -1.0, "pearson": -1.0, "spearman": -1.0, "loss": -1e9}

_TASK_METRICS: dict[str, Metric] = {
    "glue/cola": "mcc",
    "glue/mrpc": "f1",
    "glue/qqp": "f1",
    "glue/stsb": "spearman",
}
"""Named data set -> the metric that GLUE (Wang et al. 2018, arXiv 1804.07461) scores it by, where that is not accuracy. Of two
metrics the one that the evaluation code of ModernBERT and MosaicBERT (src/evals/glue_jobs.py) takes for STS-B."""


def task_metric(data: str, *, is_regression: bool) -> Metric:
    """Return the metric that a data set is judged by unless the user names another."""
    return _TASK_METRICS.get(data, "spearman" if is_regression else "accuracy")


def metric_of(record: TrialRecord) -> Metric:
    """Return the metric that a trial was chosen by; runs of older versions knew accuracy only."""
    return cast(Metric, record.chosen_by or "accuracy")


def score_of(record: EpochRecord, metric: str) -> float | None:
    """Return a metric of an evaluation; None: it is not defined there."""
    value: float | None = getattr(record, f"dev_{metric}")
    return value


def oriented(metric: str, value: float) -> float:
    """Return a score of which more is better: the loss with its sign turned, other metrics as they are."""
    return -value if metric == "loss" else value


def shown(metric: str, value: float | None) -> str:
    """Format a score: shares in per cent, other metrics as they are."""
    if metric in SHARES:
        return f"{formatting.percent(value)} %"
    return formatting.NONE if value is None else f"{value:.4f}"


def worst(metric: str) -> float:
    """Return the oriented score of a run that failed for good."""
    return _WORST.get(metric, 0.0)
