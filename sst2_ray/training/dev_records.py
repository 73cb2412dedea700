"""Records that are made when a model is scored on a split: an evaluation, and one prediction per row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.tokens import TokenArrays
from sst2_ray.records import EpochRecord, PredictionRecord
from sst2_ray.training.metrics import Metrics, stated_probability


def scored_on_dev(record: EpochRecord, dev: Metrics) -> EpochRecord:
    """Turn a record of the held-out part of train into one of dev at the same step."""
    return dataclasses.replace(
        record,
        split="dev",
        dev_loss=dev.loss,
        dev_accuracy=dev.accuracy,
        dev_f1=dev.f1,
        dev_precision=dev.precision,
        dev_recall=dev.recall,
        dev_macro_f1=dev.macro_f1,
        dev_weighted_f1=dev.weighted_f1,
        dev_mcc=dev.mcc,
        num_answered=dev.num_answered,
        num_dev_rows=dev.num_rows,
    )


def prediction_records(
    *,
    experiment: str,
    trial_id: str,
    attempt: int,
    global_step: int,
    tokens: TokenArrays,
    texts: Sequence[str] | None,
    logits: NDArray[np.float32],
    split: str = "dev",
) -> list[PredictionRecord]:
    """Make one record per row of a split; `logits` [rows, classes]. `texts` None: they are not stored."""
    probability, predicted = stated_probability(logits), logits.argmax(axis=1)
    return [
        PredictionRecord(
            experiment=experiment,
            trial_id=trial_id,
            attempt=attempt,
            split=split,
            global_step=global_step,
            row_id=int(tokens.row_ids[i]),
            text=texts[i] if texts is not None else None,
            label=int(tokens.labels[i]),
            predicted=int(predicted[i]),
            probability=float(probability[i]),
        )
        for i in range(len(tokens))
    ]
