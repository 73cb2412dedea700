"""Metrics against an independent computation, and at the edges where they are undefined."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
)

from sst2_ray.training.metrics import MetricSums, RecentLoss, metrics_from_logits, positive_probability

# Whole quarters: no two logits of a row are so near that rounding decides which is larger.
LOGITS = st.lists(
    st.tuples(st.integers(-60, 60), st.integers(-60, 60), st.integers(0, 1)).filter(lambda row: row[0] != row[1]),
    min_size=1,
    max_size=60,
)


def arrays(rows) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows)
    return (table[:, :2] / 4).astype(np.float32), table[:, 2].astype(np.int8)


@given(LOGITS)
def test_they_are_scikit_learns(rows):
    logits, labels = arrays(rows)
    predicted = logits.argmax(axis=1)
    metrics = metrics_from_logits(logits, labels)
    assert metrics.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert metrics.f1 == pytest.approx(f1_score(labels, predicted, zero_division=0))
    assert metrics.precision == pytest.approx(precision_score(labels, predicted, zero_division=0))
    assert metrics.recall == pytest.approx(recall_score(labels, predicted, zero_division=0))
    # scikit-learn takes 1 - p of a rounded p: exact enough only where p is not close to 1.
    if np.abs(logits[:, 1] - logits[:, 0]).max() < 12:
        assert metrics.loss == pytest.approx(log_loss(labels, positive_probability(logits), labels=[0, 1]), rel=1e-6)
    assert metrics.num_rows == len(rows)


@given(data=st.data(), num_classes=st.integers(2, 12), num_rows=st.integers(1, 60))
def test_those_of_many_classes_are_scikit_learns(data, num_classes, num_rows):
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    logits = draw.normal(size=(num_rows, num_classes)).astype(np.float32)
    labels = draw.integers(num_classes, size=num_rows).astype(np.int16)
    predicted = logits.argmax(axis=1)
    metrics = metrics_from_logits(logits, labels)
    assert metrics.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert metrics.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    assert metrics.weighted_f1 == pytest.approx(f1_score(labels, predicted, average="weighted", zero_division=0))
    assert metrics.mcc == pytest.approx(matthews_corrcoef(labels, predicted), abs=1e-12)
    assert metrics.num_answered == len(set(predicted))
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels).long())
    assert metrics.loss == pytest.approx(expected.item())
    if num_classes > 2:
        assert metrics.f1 == metrics.macro_f1
        assert metrics.precision == pytest.approx(precision_score(labels, predicted, average="macro", zero_division=0))
        assert metrics.recall == pytest.approx(recall_score(labels, predicted, average="macro", zero_division=0))
    sums = MetricSums(num_classes)
    sums.add(logits, labels)
    assert (sums.confusion == confusion_matrix(labels, predicted, labels=range(num_classes))).all()


def test_millions_of_rows_do_not_overflow():
    sums = MetricSums(3)
    sums.confusion[:] = np.diag([2**40, 2**41, 2**42])
    assert sums.metrics().mcc == 1


@given(LOGITS)
def test_the_loss_is_torchs_cross_entropy(rows):
    logits, labels = arrays(rows)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels).long())
    assert metrics_from_logits(logits, labels).loss == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)


@given(LOGITS)
def test_the_probability_is_the_softmax(rows):
    logits, _ = arrays(rows)
    expected = torch.softmax(torch.tensor(logits).double(), dim=1)[:, 1].numpy()
    np.testing.assert_allclose(positive_probability(logits), expected, rtol=1e-9)


def test_by_hand():
    # Predicted: 1 1 1 0 0, labels: 1 1 0 1 0: two hits, one false alarm, one miss.
    logits = np.array([[0, 1], [0, 2], [0, 3], [1, 0], [2, 0]], dtype=np.float32)
    metrics = metrics_from_logits(logits, np.array([1, 1, 0, 1, 0], dtype=np.int8))
    assert (metrics.accuracy, metrics.num_rows) == (3 / 5, 5)
    assert metrics.precision == pytest.approx(2 / 3)
    assert metrics.recall == pytest.approx(2 / 3)
    assert metrics.f1 == pytest.approx(2 / 3)
    assert metrics.loss == pytest.approx(sum(np.log1p(np.exp(x)) for x in (-1, -2, 3, 1, -2)) / 5)


def test_f1_precision_and_recall_are_0_where_nothing_is_found():
    metrics = metrics_from_logits(np.array([[1, 0], [1, 0]], dtype=np.float32), np.array([1, 0], dtype=np.int8))
    assert (metrics.accuracy, metrics.f1, metrics.precision, metrics.recall) == (0.5, 0, 0, 0)


def test_large_logits_do_not_overflow():
    metrics = metrics_from_logits(np.array([[0, 3e4], [3e4, 0]], dtype=np.float32), np.array([1, 1], dtype=np.int8))
    assert metrics.loss == pytest.approx(1.5e4)


def test_a_logit_that_is_no_number_makes_the_loss_none():
    metrics = metrics_from_logits(np.array([[0, np.nan]], dtype=np.float32), np.array([1], dtype=np.int8))
    assert np.isnan(metrics.loss)


def test_a_piece_at_a_time_gives_the_metrics_of_all():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(100, 2)).astype(np.float32), random.integers(0, 2, 100).astype(np.int8)
    sums = MetricSums(2)
    for piece in np.array_split(np.arange(100), 7):
        sums.add(logits[piece], labels[piece])
    found, whole = sums.metrics(), metrics_from_logits(logits, labels)
    assert found.loss == pytest.approx(whole.loss, rel=1e-12)
    assert dataclasses.replace(found, loss=whole.loss, auroc=whole.auroc) == whole  # ranks need all rows at once


def test_the_recent_loss_is_that_of_the_steps_since_the_last_read_or_evaluation():
    recent = RecentLoss()
    assert recent.read(torch.tensor([0.0, 0.0, 0.0]), num_evaluations=0) is None
    assert recent.read(torch.tensor([8.0, 3.0, 4.0]), num_evaluations=0) == 2.0
    assert recent.read(torch.tensor([9.0, 5.0, 8.0]), num_evaluations=0) == 0.25
    assert recent.read(torch.tensor([9.0, 5.0, 9.0]), num_evaluations=1) == 1.0  # the sums began anew
