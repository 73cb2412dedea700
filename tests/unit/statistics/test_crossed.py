"""Every formula against an independent implementation: variance components by hand, scipy, scikit-learn, published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from sst2_ray.statistics import crossed, power, scores
from tests.support.worlds import World


def two_way(x: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of sentences, seeds and residual of a two-way layout, by sums of squares."""
    n, num = x.shape
    grand = x.mean()
    sentences = n * ((x.mean(axis=0) - grand) ** 2).sum() / (num - 1)
    seeds = num * ((x.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    total = ((x - grand) ** 2).sum()
    residual = (total - sentences * (num - 1) - seeds * (n - 1)) / ((n - 1) * (num - 1))
    return sentences, seeds, residual


def test_the_variance_is_that_of_the_two_way_layout_with_random_effects() -> None:
    # Searle, Casella and McCulloch, Variance Components (1992), section 4.3: Var(mean) = (MS_sentence + MS_seed - MS_res) / nN.
    x = World(1, run_effect_points=3.0).model([0.94], 4)[0]
    sentences, seeds, residual = two_way(x.astype(float))
    assert crossed.interval(x).standard_error ** 2 == pytest.approx((sentences + seeds - residual) / x.size)


def test_the_variance_is_never_below_that_of_the_sentences() -> None:
    same = np.repeat(World(2).model([0.94], 1)[0], 3, axis=0)
    found = crossed.interval(same)
    assert found.standard_error == pytest.approx(same[0].std(ddof=1) / np.sqrt(872))


def test_one_seed_is_wilsons_interval_and_says_that_it_covers_no_seeds() -> None:
    correct = (np.arange(263) < 81)[None]
    found = crossed.interval(correct)
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3: 81 of 263.
    assert (found.interval.low, found.interval.high) == pytest.approx((0.2553, 0.3662), abs=4e-4)
    assert not found.covers_seeds


def test_all_right_is_an_interval_and_not_a_point() -> None:
    found = crossed.interval(np.ones((3, 30), dtype=bool)).interval
    assert (found.low, found.high) == pytest.approx((30 / (30 + stats.t.ppf(0.975, 29) ** 2), 1.0))


def test_one_seed_of_each_is_the_paired_t_test_over_sentences() -> None:
    model = World(3).model([0.94, 0.92], 1)
    found = crossed.compare(model[0], model[1])
    paired = stats.ttest_rel(model[0][0].astype(float), model[1][0].astype(float))
    assert found.p_value == pytest.approx(paired.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(paired.confidence_interval(0.95)))


def test_many_sentences_that_all_seeds_answer_alike_leave_welchs_test_over_seeds() -> None:
    # Scores that are constant over sentences: nothing but seeds varies.
    a, b = np.array([0.95, 0.94, 0.96, 0.93]), np.array([0.90, 0.94, 0.91, 0.92])
    found = crossed.compare(np.repeat(a[:, None], 500, axis=1), np.repeat(b[:, None], 500, axis=1))
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert found.p_value == pytest.approx(welch.pvalue)
    assert found.degrees_of_freedom == pytest.approx(welch.df)


def test_a_difference_of_configurations_by_hand() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random((3, 50)) < 0.9, rng.random((2, 50)) < 0.8
    found = crossed.compare(a, b)
    gap = a.mean(axis=0) - b.mean(axis=0)
    expected = gap.var(ddof=1) / 50
    extra = 0.0
    for x in (a.astype(float), b.astype(float)):
        _, seeds, residual = two_way(x)
        extra += (seeds - residual) / 50 / len(x)
    assert found.standard_error**2 == pytest.approx(expected + max(0.0, extra))


def test_swapping_the_two_changes_the_sign_only() -> None:
    a, b = World(6).model([0.95, 0.93], 3)
    one, other = crossed.compare(a, b), crossed.compare(b, a)
    assert one.value == -other.value
    assert one.p_value == other.p_value


def test_no_sentence_that_differs_is_no_proof_of_equality() -> None:
    same = np.ones((2, 30), dtype=bool)
    found = crossed.compare(same, same)
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.interval.high > 0.05


def test_other_sentences_are_refused() -> None:
    with pytest.raises(ValueError, match="the same sentences"):
        crossed.compare(np.ones((2, 30), dtype=bool), np.ones((2, 31), dtype=bool))


def test_pooling_is_the_mean_weighted_by_degrees_of_freedom() -> None:
    world = World(7, run_effect_points=1.0)
    a, b = world.model([0.94], 2)[0], world.model([0.94], 5)[0]
    found = crossed.pool([a, b, world.model([0.94], 1)[0]])
    assert found is not None
    expected = (a.mean(axis=1).var(ddof=1) + 4 * b.mean(axis=1).var(ddof=1)) / 5
    assert (found.mean_square, found.degrees_of_freedom) == (pytest.approx(expected), 5)
    assert crossed.pool([world.model([0.94], 1)[0]]) is None


def test_pseudo_values_of_the_accuracy_are_right_and_wrong() -> None:
    label = np.arange(40) % 2
    predicted = np.random.default_rng(8).integers(0, 2, (2, 40))
    found = crossed.pseudo_values(lambda y, z: float((y == z).mean()), label, predicted)
    assert found == pytest.approx((predicted == label).astype(float))


def test_the_jackknife_of_f1_agrees_with_a_crossed_bootstrap() -> None:
    # scikit-learn's F1, sentences and seeds drawn with replacement: the standard deviation of the mean over seeds.
    rng = np.random.default_rng(9)
    label = (rng.random(600) < 0.4).astype(int)
    hard = rng.random(600)
    predicted = np.array([np.where(rng.random(600) < 0.75 + 0.25 * hard, label, 1 - label) for _ in range(6)])
    found = crossed.of_score(scores.f1, label, predicted)
    assert found.value == pytest.approx(np.mean([metrics.f1_score(label, row) for row in predicted]))
    draws = []
    for _ in range(1500):
        rows, seeds = rng.integers(0, 600, 600), rng.integers(0, 6, 6)
        draws.append(np.mean([scores.f1(label[rows], predicted[s][rows]) for s in seeds]))
    # The bootstrap counts the residual in both draws, which with 6 seeds makes it a little wider.
    assert 0.8 * np.std(draws) < found.standard_error < 1.05 * np.std(draws)


def test_the_jackknife_of_macro_f1_agrees_with_a_crossed_bootstrap() -> None:
    rng = np.random.default_rng(12)
    label = rng.integers(0, 4, 500)
    easy = rng.random(500) < 0.8
    right = easy ^ (rng.random((5, 500)) < 0.05)
    predicted = np.where(right, label, (label + rng.integers(1, 4, (5, 500))) % 4)
    found = crossed.of_score(scores.f1, label, predicted)
    assert found.value == pytest.approx(np.mean([metrics.f1_score(label, row, average="macro") for row in predicted]))
    draws = []
    for _ in range(400):
        rows, seeds = rng.integers(0, 500, 500), rng.integers(0, 5, 5)
        draws.append(np.mean([scores.f1(label[rows], predicted[s][rows]) for s in seeds]))
    assert 0.8 * np.std(draws) < found.standard_error < 1.07 * np.std(draws)


def test_a_difference_in_f1_is_that_of_the_scores() -> None:
    label = np.arange(100) % 2
    rng = np.random.default_rng(10)
    a, b = (np.where(rng.random((3, 100)) < share, label, 1 - label) for share in (0.95, 0.85))
    found = crossed.of_score(scores.f1, label, a, b)
    assert found.value == pytest.approx(
        np.mean([scores.f1(label, x) - scores.f1(label, y) for x, y in zip(a, b, strict=True)])
    )


@pytest.mark.parametrize("margin", [0.2, 0.25, 0.3, 0.5])
def test_a_tie_is_two_one_sided_tests(margin: float) -> None:
    gap = np.array([0.1, -0.2, 0.3, 0.0, 0.4, -0.1, 0.2, -0.3, 0.5, 0.2])
    found = crossed.compare(gap[None], np.zeros((1, 10)))
    below = stats.ttest_1samp(gap, margin, alternative="less").pvalue
    above = stats.ttest_1samp(gap, -margin, alternative="greater").pvalue
    assert found.is_within(margin) == bool(max(below, above) < 0.05)


def test_the_detectable_difference_is_seen_in_four_of_five_studies() -> None:
    model = World(11).model([0.94, 0.92], 3)
    found = crossed.compare(model[0], model[1])
    shift = power.detectable(found) / found.standard_error
    df = found.degrees_of_freedom
    assert float(stats.nct.sf(stats.t.ppf(0.975, df), df, shift)) == pytest.approx(0.8, abs=0.01)


def test_the_shares_of_the_variance_are_those_of_its_terms() -> None:
    alone = World(14).model([0.94, 0.92], 1)
    single = crossed.compare(alone[0], alone[1])
    assert power.variance_shares(single) == (1.0, 0.0, 0.0)
    model = World(15, run_effect_points=2.0).model([0.94, 0.92], 4)
    found = crossed.compare(model[0], model[1])
    shares = power.variance_shares(found)
    assert sum(shares) == pytest.approx(1)
    # The seeds' part of the standard error is what more sentences would leave of it.
    assert shares[1] == pytest.approx(
        (power.planned_error(found, 4, 10**9) / power.planned_error(found, 4, found.num_sentences)) ** 2, rel=1e-3
    )


def test_planned_designs_reproduce_the_one_that_was_run_and_invert_each_other() -> None:
    model = World(12, run_effect_points=1.0).model([0.94, 0.92], 4)
    found = crossed.compare(model[0], model[1])
    assert power.planned_error(found, 4, 872) == pytest.approx(found.standard_error, rel=1e-6)
    seeds = power.seeds_needed(found, 0.03)
    assert seeds is not None
    assert power.planned_difference(found, seeds, 872) <= 0.03 < power.planned_difference(found, seeds - 1, 872)
    sentences = power.sentences_needed(found, 0.03)
    assert sentences is not None
    assert power.planned_difference(found, 4, sentences) <= 0.03 < power.planned_difference(found, 4, sentences - 1)


@pytest.mark.parametrize(("accuracies", "num_seeds", "num_rows"), [((0.94, 0.92), 3, 60), ((0.7, 0.6), 2, 872)])
def test_the_design_that_was_run_detects_what_is_planned_for_it(
    accuracies: tuple[float, float], num_seeds: int, num_rows: int
) -> None:
    """By few degrees of freedom as well, of which more seeds and more sentences make more."""
    one, other = (x[:, :num_rows] for x in World(12, run_effect_points=3.0).model(list(accuracies), num_seeds))
    found = crossed.compare(one, other)
    assert power.planned_difference(found, num_seeds, num_rows) == pytest.approx(power.detectable(found))
    fewer = math.sqrt(2.0) * power.planned_difference(found, 2 * num_seeds, 2 * num_rows)
    assert fewer <= power.detectable(found) * 1.001


def test_what_no_number_of_seeds_shows_is_none() -> None:
    model = World(13).model([0.94, 0.94], 4)
    assert power.seeds_needed(crossed.compare(model[0], model[1]), 0.001) is None


def test_a_model_that_is_right_everywhere_has_an_interval_beside_one_that_varies():
    """Its own answers have no variance; that of the seeds, pooled with the other's, has none of its sentences to stand on."""
    perfect, other = np.ones((3, 50), bool), np.ones((3, 50), bool)
    for seed, wrong in enumerate((1, 4, 9)):
        other[seed, :wrong] = False
    found = crossed.interval(perfect, seed_variance=crossed.pool([perfect, other])).interval
    assert 0.85 < found.low < 0.99
    assert found.high == pytest.approx(1.0)
