"""Single answers of models of several classes: confusion, F1 by class, and a constant answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from sst2_ray.results.analysis import errors
from sst2_ray.results.analysis.findings import studies
from sst2_ray.results.report import answer_tables
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import prediction, trial

NAMES = ("news", "science", "sports")


def analyzed(table: ResultsTable, predicted: np.ndarray, label: np.ndarray) -> errors.ErrorAnalysis:
    """Analyze a configuration under three seeds that all give the same answers."""
    for seed in range(3):
        run = f"r{seed}"
        values = {"seed": seed, "model": "sbert", "class_names_json": json.dumps(NAMES), "eval_split": "dev of topics"}
        scores = {"best_dev_accuracy": float((predicted == label).mean()), "best_global_step": 100}
        table.write("trials", [trial(run, configuration_id="c", **values, **scores)])
        answers = [
            prediction(i, run, label=int(y), predicted=int(p))
            for i, (y, p) in enumerate(zip(label, predicted, strict=True))
        ]
        table.write("predictions", answers)
    (study,) = studies(table, table.read("trials", attempts="latest"))
    found = errors.analyze(study)
    assert found is not None
    return found


def test_the_table_of_classes_has_the_confusion_and_the_scores_of_each_class(table: ResultsTable) -> None:
    random = np.random.default_rng(0)
    label = random.integers(0, 3, 90)
    predicted = np.where(random.random(90) < 0.6, label, random.integers(0, 3, 90))
    found = analyzed(table, predicted, label)
    (model,) = found.models
    assert np.array_equal(model.confusion, confusion_matrix(label, predicted))
    precision, recall, f1, rows = precision_recall_fscore_support(label, predicted)
    shown = answer_tables.classes(model)
    assert shown.columns[5:] == ("answered news", "answered science", "answered sports")
    for number, cells in enumerate(shown.rows):
        assert cells[0].text == NAMES[number]
        assert [cell.sort for cell in cells[1:5]] == pytest.approx(
            [rows[number], f1[number], precision[number], recall[number]]
        )
    assert found.num_wrong == int((label != predicted).sum())


def test_a_constant_answer_stands_below_the_table(table: ResultsTable) -> None:
    label = np.arange(60) % 3
    found = analyzed(table, np.full(60, 1), label)
    assert "It answers science for every sentence." in answer_tables.classes(found.models[0]).note
