"""Metrics of answers against scikit-learn, and what single rows contribute against leaving them out one by one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

from sst2_ray.statistics.metrics import (
    auroc,
    average_ranks,
    confusion_scores,
    correlation,
    row_values,
    standard_error,
    value_contributions,
)


def answers(num_classes: int, num_rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(num_classes)
    label = random.integers(0, num_classes, num_rows)
    return label, np.where(random.random(num_rows) < 0.6, label, random.integers(0, num_classes, num_rows))


@pytest.mark.parametrize("num_classes", [2, 3, 14])
def test_scores_of_classes_are_those_of_scikit_learn(num_classes: int) -> None:
    label, predicted = answers(num_classes)
    kind = "binary" if num_classes == 2 else "macro"
    expected = {
        "accuracy": accuracy_score(label, predicted),
        "f1": f1_score(label, predicted, average=kind),
        "precision": precision_score(label, predicted, average=kind, zero_division=0),
        "recall": recall_score(label, predicted, average=kind, zero_division=0),
        "macro_f1": f1_score(label, predicted, average="macro"),
        "weighted_f1": f1_score(label, predicted, average="weighted"),
        "mcc": matthews_corrcoef(label, predicted),
    }
    assert confusion_scores(confusion_matrix(label, predicted)) == pytest.approx(expected)


@pytest.mark.parametrize("digits", [1, 2, 8])
def test_the_area_under_the_curve_is_that_of_scikit_learn_also_with_ties(digits: int) -> None:
    label, _ = answers(2)
    score = np.round(label + np.random.default_rng(5).normal(0, 1, len(label)), digits)
    assert auroc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_one_class_alone_has_no_area() -> None:
    assert auroc(np.ones(5, dtype=int), np.arange(5.0)) is None


def whole(metric: str, label: np.ndarray, predicted: np.ndarray, score: np.ndarray) -> float:
    if metric == "auroc":
        return float(roc_auc_score(label, score))
    classes = range(max(label.max(), predicted.max()) + 1)
    return confusion_scores(confusion_matrix(label, predicted, labels=list(classes)))[metric]


@pytest.mark.parametrize(
    ("metric", "num_classes"),
    [("accuracy", 2), ("f1", 2), ("mcc", 2), ("auroc", 2), ("macro_f1", 3), ("weighted_f1", 3), ("mcc", 3)],
)
def test_rows_contribute_their_jackknife_pseudo_values(metric: str, num_classes: int) -> None:
    label, predicted = answers(num_classes)
    score = np.round(predicted + np.random.default_rng(1).normal(0, 0.5, len(label)), 1)
    found = row_values(metric, label, predicted, score)
    num, of_all = len(label), whole(metric, label, predicted, score)
    left = [whole(metric, *(np.delete(a, row) for a in (label, predicted, score))) for row in range(num)]
    expected = num * of_all - (num - 1) * np.array(left)
    assert found is not None
    assert found == pytest.approx(expected - expected.mean() + of_all)
    assert found.mean() == pytest.approx(of_all)
    assert standard_error(found) == pytest.approx(expected.std(ddof=1) / num**0.5)


# ---- regression


def values(num_rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    label = np.round(random.uniform(0, 5, num_rows), 1)
    return label, label + random.normal(0, 1.5, num_rows)


def test_correlations_are_those_of_scipy_and_0_for_a_constant_answer() -> None:
    label, value = values()
    assert correlation("pearson", label, value) == pytest.approx(scipy.stats.pearsonr(label, value)[0])
    assert correlation("spearman", label, value) == pytest.approx(scipy.stats.spearmanr(label, value)[0])
    assert correlation("pearson", label, np.ones(len(label))) == 0.0


def test_rows_contribute_to_a_regression_as_leaving_them_out_shows() -> None:
    label, value = values()
    num, whole = len(label), correlation("pearson", label, value)
    left = [correlation("pearson", np.delete(label, row), np.delete(value, row)) for row in range(num)]
    expected = num * whole - (num - 1) * np.array(left)
    assert value_contributions("pearson", label, value) == pytest.approx(expected - expected.mean() + whole)
    assert value_contributions("loss", label, value) == pytest.approx((label - value) ** 2)
    of_ranks = value_contributions("spearman", label, value)
    assert of_ranks.mean() == pytest.approx(correlation("spearman", label, value))
    # ranks are kept: close to leaving rows out, and not the same
    left = [correlation("spearman", np.delete(label, row), np.delete(value, row)) for row in range(num)]
    exact = (num - 1) * np.std(left) * num**0.5 / (num - 1) ** 0.5 / num**0.5 * ((num - 1) / num) ** 0.5
    assert standard_error(of_ranks) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=1000),
        np.random.default_rng(1).normal(size=1000).astype(np.float32),
        np.random.default_rng(2).integers(0, 7, 1000),
        np.random.default_rng(3).integers(0, 2, 1001).astype(np.float32),
        np.array([0.0, -0.0, np.inf, -np.inf, np.inf]),
        np.array([1.0, np.nan, 2.0]),
        np.array([3.0]),
        np.array([], dtype=np.float64),
    ],
)
def test_ranks_are_those_of_scipy_bit_for_bit(values: np.ndarray) -> None:
    ranks, expected = average_ranks(values), scipy.stats.rankdata(values)
    assert ranks.dtype == expected.dtype
    assert ranks.tobytes() == expected.tobytes()
