"""Temperature and threshold: fitted to what is known to be true, undone exactly, stated as they are used."""

from __future__ import annotations

import numpy as np
import pytest

from sst2_ray.statistics.temperature import Rescaling, calibration_error, fit, uncalibrated


def sample(num: int, classes: int = 2, *, temperature: float = 2.0, shift: float = 0.7):
    """Logits that are `temperature` times too large and miss `shift`, with labels drawn from the true probabilities."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(num, classes)) * 2
    if classes == 2:
        true[:, 1] += shift
    shares = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = (shares.cumsum(axis=1) < rng.random((num, 1))).sum(axis=1)
    raw = true - np.array([0.0, shift]) if classes == 2 else true
    return raw * temperature, labels


def test_the_fit_finds_the_temperature_and_the_shift_that_made_the_logits():
    found = fit(*sample(50_000))
    assert found.temperature == pytest.approx(2.0, abs=0.05)
    assert found.shift == pytest.approx(0.7, abs=0.05)
    assert found.num_rows == 50_000


def test_more_than_two_classes_have_a_temperature_alone():
    found = fit(*sample(50_000, classes=5))
    assert found.temperature == pytest.approx(2.0, abs=0.05)
    assert (found.shift, found.threshold) == (None, None)


def test_rescaled_logits_are_calibrated_to_the_floor():
    logits, labels = sample(50_000)
    before, after = (calibration_error(some, labels) for some in (logits, fit(logits, labels).apply(logits)))
    assert before.value > 0.05
    assert after.value < 2 * after.floor


@pytest.mark.parametrize("classes", [2, 5])
def test_undo_returns_what_was_rescaled(classes):
    logits, labels = sample(1000, classes)
    found = fit(logits, labels)
    np.testing.assert_allclose(found.undo(found.apply(logits)), logits, atol=1e-9)


def test_the_threshold_is_the_uncalibrated_probability_where_the_answer_turns():
    logits, labels = sample(2000)
    found = fit(logits, labels)
    raw = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    assert np.array_equal(raw >= found.threshold, found.apply(logits).argmax(axis=1) == 1)


def test_stored_probabilities_are_turned_back():
    logits, labels = sample(2000)
    found = fit(logits, labels)
    raw, calibrated = (1 / (1 + np.exp(some[:, 0] - some[:, 1])) for some in (logits, found.apply(logits)))
    np.testing.assert_allclose(
        uncalibrated(calibrated, temperature=found.temperature, threshold=found.threshold), raw, atol=1e-6
    )


def test_sentences_that_are_all_right_do_not_ask_for_certainty():
    assert fit(np.array([[3.0, -3.0], [-3.0, 3.0]]), np.array([0, 1])).temperature >= 0.05


def test_logits_that_are_not_finite_are_no_sample():
    with pytest.raises(ValueError, match="finite"):
        fit(np.array([[np.nan, 0.0]]), np.array([0]))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_rescaling_comes_back_from_what_a_card_states(classes):
    found = fit(*sample(500, classes))
    again = Rescaling.of_facts(temperature=found.temperature, threshold=found.threshold, num_rows=found.num_rows)
    logits = np.random.default_rng(1).normal(size=(9, classes))
    assert again.undo(logits) == pytest.approx(found.undo(logits))
    assert again.num_rows == 500
