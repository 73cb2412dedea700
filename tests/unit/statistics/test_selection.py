from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from sst2_ray.statistics import crossed, selection
from sst2_ray.statistics.selection import Search
from tests.support.worlds import World


def search(correct: np.ndarray) -> Search:
    return Search.of(list(correct), [crossed.pool(list(correct))] * len(correct))


def test_the_expected_best_is_the_mean_over_all_choices() -> None:
    values = [0.90, 0.95, 0.93, 0.91, 0.95]
    expected = [np.mean([max(chosen) for chosen in itertools.combinations(values, k)]) for k in range(1, 6)]
    assert selection.expected_best(values) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # In their order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not be below the one before.
    assert selection.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_one_that_is_far_ahead_alone_may_be_the_best() -> None:
    correct = World(1).model([0.97, 0.91, 0.90, 0.90], 3)
    assert search(correct).possible_bests() == [0]


def test_equal_ones_may_all_be_the_best() -> None:
    sizes = [len(search(World(seed).model([0.94] * 5, 3)).possible_bests()) for seed in range(20)]
    assert sizes.count(5) >= 17


def test_two_are_told_apart_exactly_when_their_difference_is_tested() -> None:
    for seed in range(30):
        correct = World(seed).model([0.95, 0.935], 3)
        pooled = crossed.pool(list(correct))
        alone = len(search(correct).possible_bests()) == 1
        p_value = crossed.compare(correct[0], correct[1], seed_variance=pooled).p_value
        assert alone == (p_value is not None and p_value < 0.05)


def test_the_quantile_of_many_comparisons_is_dunnetts() -> None:
    # Independent means of equal variance against one of them: scipy's Dunnett test rejects where a mean is excluded.
    rng = np.random.default_rng(3)
    for _ in range(5):
        means = rng.normal(0, 2.2, 4)
        found = Search(
            means=means, covariance=np.eye(4), degrees_of_freedom=1e9, smallest_error=1e-9, seed_degrees_of_freedom=1e9
        )
        control = int(np.argmin(means))
        samples = [mean + np.tile([-1.0, 1.0], 2000) * np.sqrt(3999) for mean in means]
        others = [samples[i] for i in range(4) if i != control]
        dunnett = stats.dunnett(*others, control=samples[control], random_state=1)
        largest = float(np.max(dunnett.statistic))
        p_value = float(dunnett.pvalue[int(np.argmax(dunnett.statistic))])
        if abs(p_value - 0.05) > 0.01 and largest > 0:
            assert (control not in found.possible_bests()) == (p_value < 0.05)


def test_configurations_that_are_not_known_make_nothing_stronger() -> None:
    for seed in range(20):
        correct = World(seed).model([0.955, 0.935, 0.93, 0.925], 3)
        whole = {i for i in search(correct).possible_bests() if i < 3}
        assert whole <= set(search(correct[:3]).possible_bests(num_missing=1))


def test_the_bias_of_the_best_of_equals_is_that_of_a_maximum() -> None:
    errors, estimates = [], []
    for seed in range(60):
        found = search(World(seed).model([0.94] * 10, 3))
        errors.append(found.means.max() - 0.94)
        estimates.append(found.bias_of_best())
    assert 0.4 * np.mean(errors) < np.mean(estimates) < 1.2 * np.mean(errors)


def test_a_peak_that_stands_out_has_no_bias() -> None:
    assert search(World(4).model([0.97, 0.85, 0.85, 0.85], 5)).bias_of_best() < 1e-4


def test_the_best_of_many_beats_the_best_of_one_by_chance() -> None:
    many = World(5).model([0.94] * 10, 3)
    found = search(many)
    p_value, half = selection.p_of_larger_search(found, 9, 0.005)
    alone, _ = selection.p_of_larger_search(search(many[:2]), 1, 0.005)
    assert p_value > alone
    assert half > 0.005


def test_answers_of_a_regression_that_are_all_alike_exclude_nobody() -> None:
    """Two that answer one value for every row have a difference without an error, and are equal."""
    covariance = np.diag([0.02, 0.0, 0.0])
    found = Search(
        means=np.array([0.04, 0.0, 0.0]), covariance=covariance, smallest_error=0.0, degrees_of_freedom=20.0,
        seed_degrees_of_freedom=2.0,
    )  # fmt: skip
    assert sorted(found.possible_bests()) == [0, 1, 2]
