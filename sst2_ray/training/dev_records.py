"""Records that are made when a model is scored on a split: an evaluation, and one prediction per row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.labels import LabelArray
from sst2_ray.data.texts import Text, shown
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.export.card import CalibrationFacts
from sst2_ray.records import EpochRecord, PredictionRecord
from sst2_ray.statistics.temperature import Rescaling, calibration_error
from sst2_ray.training.metrics import Metrics, stated_probability


class EvaluationColumns(TypedDict):
    """The columns of `epochs` that hold the metrics of a split."""

    dev_loss: float
    dev_accuracy: float | None
    dev_f1: float | None
    dev_precision: float | None
    dev_recall: float | None
    dev_macro_f1: float | None
    dev_weighted_f1: float | None
    dev_mcc: float | None
    dev_auroc: float | None
    dev_pearson: float | None
    dev_spearman: float | None
    num_answered: int | None
    num_dev_rows: int


def evaluation_columns(metrics: Metrics) -> EvaluationColumns:
    """Return the metrics of a split under the names of their columns."""
    return EvaluationColumns(
        dev_loss=metrics.loss,
        dev_accuracy=metrics.accuracy,
        dev_f1=metrics.f1,
        dev_precision=metrics.precision,
        dev_recall=metrics.recall,
        dev_macro_f1=metrics.macro_f1,
        dev_weighted_f1=metrics.weighted_f1,
        dev_mcc=metrics.mcc,
        dev_auroc=metrics.auroc,
        dev_pearson=metrics.pearson,
        dev_spearman=metrics.spearman,
        num_answered=metrics.num_answered,
        num_dev_rows=metrics.num_rows,
    )


def scored_on_dev(record: EpochRecord, dev: Metrics) -> EpochRecord:
    """Turn a record of the held-out part of train into one of dev at the same step."""
    return dataclasses.replace(record, split="dev", score_error=None, **evaluation_columns(dev))


def prediction_records(
    *,
    experiment: str,
    trial_id: str,
    attempt: int,
    global_step: int,
    tokens: TokenArrays,
    texts: Sequence[Text] | None,
    logits: NDArray[np.float32],
    split: str = "dev",
) -> list[PredictionRecord]:
    """Make one record per row of a split; `logits` [rows, classes]. `texts` None: they are not stored."""
    classes = logits.shape[1] > 1
    probability, predicted = stated_probability(logits), logits.argmax(axis=1)
    return [
        PredictionRecord(
            experiment=experiment,
            trial_id=trial_id,
            attempt=attempt,
            split=split,
            global_step=global_step,
            row_id=int(tokens.row_ids[i]),
            text=shown(texts[i]) if texts is not None else None,
            label=int(tokens.labels[i]) if classes else None,
            predicted=int(predicted[i]) if classes else None,
            probability=float(probability[i]) if classes else None,
            label_value=None if classes else float(tokens.labels[i]),
            predicted_value=None if classes else float(logits[i, 0]),
        )
        for i in range(len(tokens))
    ]


def calibration_facts(rescaling: Rescaling, logits: NDArray[np.float32] | None, labels: LabelArray) -> CalibrationFacts:
    """State a rescaling, and the calibration error of rescaled logits [rows, classes] with and without it.

    `logits` None: not scored on dev.
    """
    after = calibration_error(logits, labels) if logits is not None else None
    before = calibration_error(rescaling.undo(logits), labels) if logits is not None else None
    return CalibrationFacts(
        temperature=rescaling.temperature,
        threshold=rescaling.threshold,
        num_rows=rescaling.num_rows,
        before=before,
        after=after,
    )


def restated(
    stated: Mapping[str, Any] | None, logits: NDArray[np.float32], labels: LabelArray
) -> CalibrationFacts | None:
    """State a rescaling that an export's metadata state, with its calibration errors on dev; None where there is none."""
    if stated is None:
        return None
    held = {name: stated[name] for name in ("temperature", "threshold", "num_rows")}
    return calibration_facts(Rescaling.of_facts(**held), logits, labels)
