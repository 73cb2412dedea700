"""Every statistic against a published example, or one computed by other means; each test says which."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from sst2_ray.results.analysis import statistics

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


def test_t_interval_of_the_sleep_data() -> None:
    # R, t.test(extra ~ group, data = sleep, paired = TRUE): mean 1.58, 95 % interval 0.7001142 to 2.4598858.
    found = statistics.summarize([b - a for a, b in zip(SLEEP_1, SLEEP_2, strict=True)])
    assert found.num == 10
    assert found.mean == pytest.approx(1.58)
    assert found.sd == pytest.approx(1.229995, abs=1e-6)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert statistics.summarize([0.9]) == statistics.Summary(num=1, mean=0.9, sd=None, interval=None)


@pytest.mark.parametrize("values", [[], [0.9, float("nan")]])
def test_summary_refuses_nothing_and_non_finite(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        statistics.summarize(values)


def test_paired_t_test_of_the_sleep_data() -> None:
    # R, as above: t = -4.0621, df = 9, p-value = 0.002833.
    found = statistics.paired_t_test(SLEEP_1, SLEEP_2)
    assert found.statistic == pytest.approx(-4.0621, abs=5e-5)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)
    assert found.num == 10


@pytest.mark.parametrize(("shift", "p_value"), [(0.0, 1.0), (0.01, 0.0)])
def test_paired_t_test_of_equal_differences(shift: float, p_value: float) -> None:
    found = statistics.paired_t_test([0.9 + shift, 0.8 + shift, 0.7 + shift], [0.9, 0.8, 0.7])
    assert found.p_value == p_value


def test_mcnemar_of_agresti_1990() -> None:
    # Agresti, Categorical Data Analysis (1990) p. 350: approval of a president, 150 against 86 changed their mind.
    # By hand (|86 - 150| - 1)^2 / 236 = 3969 / 236.
    found = statistics.mcnemar(86, 150)
    assert found.statistic == pytest.approx(3969 / 236)
    assert found.p_value == pytest.approx(float(stats.norm.sf((3969 / 236) ** 0.5)) * 2)


def test_mcnemar_is_exact_for_few_discordant_pairs() -> None:
    # 11 against 3: 2 * (1 + 14 + 91 + 364) / 2^14, and Wikipedia's 6 against 16: p = 0.0525.
    assert statistics.mcnemar(11, 3).p_value == pytest.approx(2 * 470 / 2**14)
    assert statistics.mcnemar(6, 16).p_value == pytest.approx(0.0525, abs=5e-5)
    assert statistics.mcnemar(0, 0).p_value == 1.0


def test_sign_permutation_equals_brute_force_over_all_signs() -> None:
    correct_a = np.array([[1, 1, 0, 1, 1, 1, 0, 1], [1, 1, 1, 0, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1, 0, 1]], dtype=bool)
    correct_b = np.array([[0, 1, 0, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1, 1], [0, 1, 0, 1, 1, 0, 0, 1]], dtype=bool)
    differences = correct_a.sum(axis=0) - correct_b.sum(axis=0)
    sums = [np.dot(signs, np.abs(differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    expected = np.mean(np.abs(sums) >= abs(differences.sum()))
    found = statistics.mcnemar_over_seeds(correct_a, correct_b)
    assert found.p_value == pytest.approx(expected)
    assert found.num == np.count_nonzero(differences)


def test_sign_permutation_of_one_repeated_seed_is_the_exact_mcnemar_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((1, 872)) < 0.995, rng.random((1, 872)) < 0.985
    once = statistics.mcnemar(int((a & ~b).sum()), int((b & ~a).sum()))
    twice = statistics.mcnemar_over_seeds(np.repeat(a, 2, axis=0), np.repeat(b, 2, axis=0))
    assert once.name == "McNemar, exact"
    assert twice.p_value == pytest.approx(once.p_value)
    assert statistics.mcnemar_over_seeds(a, b) == once


def test_sign_permutation_holds_its_level_on_equal_models() -> None:
    # Two equal models whose seeds agree with each other: 5 % of the p-values may lie below 0.05, not more.
    rng = np.random.default_rng(2)
    p_values = []
    for _ in range(300):
        hard = rng.random(200)
        a, b = rng.random((3, 200)) > hard * 0.3, rng.random((3, 200)) > hard * 0.3
        p_values.append(statistics.mcnemar_over_seeds(a, b).p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.08


def test_bootstrap_agrees_with_scipy() -> None:
    # scipy.stats.bootstrap resamples the sentences one by one; the multinomial draw is the same distribution.
    rng = np.random.default_rng(3)
    a, b = rng.random((3, 872)) < 0.95, rng.random((3, 872)) < 0.92
    differences = a.mean(axis=0) - b.mean(axis=0)
    theirs = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=5000).confidence_interval
    ours = statistics.bootstrap_difference(a, b)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_bootstrap_is_the_same_each_time() -> None:
    a, b = np.array([True, True, False, True]), np.array([True, False, False, True])
    assert statistics.bootstrap_difference(a, b) == statistics.bootstrap_difference(a, b)


def test_calibration_computed_by_hand() -> None:
    # Five bins over 0.5-1. (0.5, 0.6]: 0.55 right, 0.6 wrong: mean 0.575 against 0.5. (0.9, 1]: 0.95 right, 1.0 right:
    # 0.975 against 1. ECE = (2 * 0.075 + 2 * 0.025) / 4 = 0.05.
    found = statistics.calibration(np.array([0.55, 0.4, 0.95, 1.0]), np.array([1, 1, 1, 1]), num_bins=5)
    assert found.expected_error == pytest.approx(0.05)
    assert [b.num for b in found.bins] == [2, 0, 0, 0, 2]


def test_a_model_that_is_always_sure_and_right_is_calibrated() -> None:
    assert statistics.calibration(np.array([1.0, 0.0]), np.array([1, 0])).expected_error == 0.0
