"""Every statistic against a published example, or one computed by other means; each test says which."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sst2_ray.statistics import scores as statistics

# Student's sleep data: hours of extra sleep of ten patients under two drugs (Student 1908; Cushny and Peebles 1905).
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_wilson_interval_of_newcombe_1998() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3: 81/263, 15/148, 0/20 and 1/29.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (correct, total), expected in published.items():
        found = statistics.wilson_interval(correct, total)
        assert (round(found.low, 4), round(found.high, 4)) == expected


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (3, 2), (-1, 5)])
def test_wilson_interval_refuses_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="correct of"):
        statistics.wilson_interval(correct, total)


def test_mean_and_standard_deviation_of_the_sleep_data() -> None:
    # R, t.test(extra ~ group, data = sleep, paired = TRUE): mean 1.58; sd(diff) is 1.229995.
    found = statistics.summarize([b - a for a, b in zip(SLEEP_1, SLEEP_2, strict=True)])
    assert found.num == 10
    assert found.mean == pytest.approx(1.58)
    assert found.sd == pytest.approx(1.229995, abs=1e-6)


def test_one_seed_has_a_mean_and_no_standard_deviation() -> None:
    assert statistics.summarize([0.9]) == statistics.Summary(num=1, mean=0.9, sd=None)


@pytest.mark.parametrize("values", [[], [0.9, float("nan")]])
def test_summary_refuses_nothing_and_non_finite(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        statistics.summarize(values)


def test_mcnemar_mid_p_of_fagerland_2013() -> None:
    # Fagerland, Lydersen and Laake 2013, table 1 (airway responsiveness before and after transplantation): the discordant
    # pairs are 1 and 7; exact two-sided p = 0.070, mid-p = 0.039.
    assert statistics.mcnemar(1, 7) == pytest.approx(0.039, abs=5e-4)


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 11), (11, 3), (16, 6), (150, 86)])
def test_mcnemar_mid_p_from_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    num = only_a + only_b
    exact = stats.binomtest(only_a, num, 0.5).pvalue
    assert statistics.mcnemar(only_a, only_b) == pytest.approx(exact - stats.binom.pmf(only_a, num, 0.5))


def test_mcnemar_of_equal_counts_is_1() -> None:
    assert statistics.mcnemar(0, 0) == statistics.mcnemar(5, 5) == 1.0


def test_f1_and_matthews_agree_with_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(4)
    for _ in range(20):
        label = rng.integers(0, 2, 60)
        predicted = np.where(rng.random(60) < 0.8, label, 1 - label)
        assert statistics.f1(label, predicted) == pytest.approx(metrics.f1_score(label, predicted))
        assert statistics.matthews(label, predicted) == pytest.approx(metrics.matthews_corrcoef(label, predicted))


def test_f1_and_matthews_of_many_classes_agree_with_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(6)
    for num in (3, 7):
        label = rng.integers(0, num, 90)
        predicted = np.where(rng.random(90) < 0.7, label, rng.integers(0, num, 90))
        assert statistics.f1(label, predicted) == pytest.approx(metrics.f1_score(label, predicted, average="macro"))
        assert statistics.matthews(label, predicted) == pytest.approx(metrics.matthews_corrcoef(label, predicted))


def test_f1_and_matthews_of_a_constant_answer_are_0() -> None:
    label = np.array([0, 1, 1])
    assert statistics.f1(label, np.zeros(3)) == statistics.matthews(label, np.ones(3)) == 0.0


def test_the_floor_of_the_calibration_error_is_that_of_a_calibrated_model() -> None:
    # 872 sentences of a model whose confidences are true: simulated, and by the closed form.
    rng = np.random.default_rng(5)
    errors, floors = [], []
    for _ in range(200):
        probability = rng.beta(0.4, 0.4, 872)
        found = statistics.calibration(probability, (rng.random(872) < probability).astype(int))
        errors.append(found.expected_error)
        floors.append(found.floor)
    assert np.mean(floors) == pytest.approx(np.mean(errors), rel=0.1)


def test_calibration_computed_by_hand() -> None:
    # Five bins over 0.5-1. (0.5, 0.6]: 0.55 right, 0.6 wrong: mean 0.575 against 0.5. (0.9, 1]: 0.95 right, 1.0 right:
    # 0.975 against 1. ECE = (2 * 0.075 + 2 * 0.025) / 4 = 0.05.
    found = statistics.calibration(np.array([0.55, 0.4, 0.95, 1.0]), np.array([1, 1, 1, 1]), num_bins=5)
    assert found.expected_error == pytest.approx(0.05)
    assert [b.num for b in found.bins] == [2, 0, 0, 0, 2]


def test_a_model_that_is_always_sure_and_right_is_calibrated() -> None:
    assert statistics.calibration(np.array([1.0, 0.0]), np.array([1, 0])).expected_error == 0.0
