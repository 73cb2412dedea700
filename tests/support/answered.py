"""Runs in a results table, made of what each of them answers: for studies of any kind, however odd."""

from __future__ import annotations

from typing import Any

import numpy as np

from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics.metrics import auroc
from sst2_ray.statistics.scores import f1, matthews
from tests.support.records import epoch, prediction, trial

STEP = 100


def put(
    table: ResultsTable,
    model: str,
    seed: int,
    label: np.ndarray,
    predicted: np.ndarray | None,
    *,
    learning_rate: float = 8e-5,
    probability: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    stored: bool = True,
    row_ids: np.ndarray | None = None,
    **values: Any,
) -> None:
    """Write a run: its row, one evaluation and its predictions on dev, and on a held-out part of the same labels.

    Args:
        label: Numbers of the classes, [sentences].
        predicted: Answers on dev, [sentences]; None: not scored there.
        probability: Of class 1 of two, else of the answer; None: 0.9 of the answer.
        held_out: Answers on the held-out part; None: nothing was held out.
        stored: Whether the predictions were stored.
        row_ids: None: 0, 1, ...
        values: Further columns of `trials`.
    """
    run = f"{values.get('experiment', 'e')}-{model}-{learning_rate:g}-{seed}"
    keys = {"experiment": values.get("experiment", "e")}
    columns: dict[str, Any] = {
        "model": model, "model_kind": model.split("-")[0], "seed": seed, "learning_rate": learning_rate, "batch_size": 32,
        "best_global_step": STEP, "eval_split": "reviews dev", "configuration_id": f"{model}-{learning_rate:g}",
    }  # fmt: skip
    for split, answers in (("selection", held_out), ("dev", predicted)):
        if answers is None:
            continue
        sure = probability if probability is not None and split == "dev" else np.where(answers == 1, 0.9, 0.1)
        scores = scores_of(label, answers, sure)
        if split == "dev":
            columns |= {f"best_dev_{k}": v for k, v in scores.items()} | {"last_dev_accuracy": scores["accuracy"]}
            columns["best_num_answered"] = len(np.unique(answers))
        else:
            columns["selection_accuracy"] = scores["accuracy"]
        if (by := values.get("chosen_by", "accuracy")) != "accuracy":
            columns["best_score" if split == "dev" else "selection_score"] = scores[by]
        curve = {f"dev_{k}": v for k, v in scores.items()}
        table.write("epochs", [epoch(STEP, run, split=split, seconds=60.0, **keys, **curve)])
        if stored:
            ids = np.arange(len(label)) if row_ids is None else row_ids
            rows = zip(ids.tolist(), label.tolist(), answers.tolist(), sure.tolist(), strict=True)
            found = [
                prediction(i, run, split=split, global_step=STEP, label=y, predicted=p, probability=q, **keys)
                for i, y, p, q in rows
            ]
            table.write("predictions", found)
    table.write("trials", [trial(run, **{**columns, **values})])


def scores_of(label: np.ndarray, predicted: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    """Metrics of one run's answers."""
    right = np.where(label == 1, probability, 1 - probability) if label.max() < 2 else probability
    return {
        "accuracy": float((label == predicted).mean()),
        "f1": f1(label, predicted),
        "mcc": matthews(label, predicted),
        "auroc": auroc(label, probability) if label.max() < 2 else None,
        "loss": float(-np.log(np.maximum(right, 1e-38)).mean()),
    }


def wrong_at(label: np.ndarray, *rows: int, classes: int = 2) -> np.ndarray:
    """Answers that are right but for these rows, where they are the next class."""
    found = label.copy()
    at = np.array(rows, dtype=int)
    found[at] = (label[at] + 1) % classes
    return found
