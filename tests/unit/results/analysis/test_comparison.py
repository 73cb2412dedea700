from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sst2_ray.results.analysis.comparison import compare
from sst2_ray.results.analysis.ranking import Configuration, configurations
from sst2_ray.results.store import files
from tests.support.records import prediction, trial

NUM_SENTENCES = 200


def pair(
    a: list[float], b: list[float], *, seeds_b: list[int] | None = None, **values: Any
) -> tuple[Configuration, Configuration]:
    records = []
    for name, accuracies, seeds in (("a", a, range(len(a))), ("b", b, seeds_b or range(len(b)))):
        for seed, accuracy in zip(seeds, accuracies, strict=True):
            records.append(
                trial(
                    f"{name}{seed}", configuration_id=name, model=name, seed=seed, best_dev_accuracy=accuracy, **values
                )
            )
    first, second = sorted(configurations(files.records_to_table("trials", records)), key=lambda c: c.configuration_id)
    return first, second


def answers(**wrong: set[int]) -> pa.Table:
    """Predictions of trials, by the rows that each gets wrong."""
    records = [
        prediction(row, trial_id, predicted=0 if row in rows else 1)
        for trial_id, rows in wrong.items()
        for row in range(NUM_SENTENCES)
    ]
    return files.records_to_table("predictions", records)


def test_a_clear_difference_over_seeds_is_a_win() -> None:
    a, b = pair([0.95, 0.951, 0.952], [0.90, 0.902, 0.901])
    found = compare(a, b)
    assert (found.verdict, found.winner) == ("win", a)
    assert found.difference == pytest.approx(0.05)
    assert found.over_seeds is not None
    assert found.over_seeds.num == 3


def test_two_differences_that_happen_to_be_alike_are_no_win() -> None:
    found = compare(*pair([0.950, 0.949], [0.947, 0.946]))
    assert (found.verdict, found.winner) == ("unknown", None)
    assert "too few seeds to tell" in found.reason


def test_means_and_tests_are_about_the_same_seeds() -> None:
    # a has the seeds 0 and 1, b 1 and 2: on the one that both have, b is ahead, whatever the others say.
    found = compare(*pair([0.95, 0.80], [0.90, 0.80], seeds_b=[1, 2]))
    assert (found.mean_a, found.mean_b) == (0.80, 0.90)


def test_a_difference_within_the_noise_of_the_seeds_is_a_tie() -> None:
    a, b = pair([0.95, 0.93, 0.94], [0.94, 0.945, 0.93])
    found = compare(a, b)
    assert (found.verdict, found.winner) == ("tie", None)


def test_lucky_sentences_alone_are_no_win() -> None:
    # Clear over the seeds, but only three sentences differ.
    a, b = pair([0.9500, 0.9501, 0.9502], [0.9350, 0.9351, 0.9352])
    wrong_a, wrong_b = set(range(10)), set(range(13))
    found = compare(a, b, predictions=answers(a0=wrong_a, a1=wrong_a, a2=wrong_a, b0=wrong_b, b1=wrong_b, b2=wrong_b))
    assert found.over_seeds is not None
    assert found.over_seeds.p_value < 0.05
    assert found.over_sentences is not None
    assert found.over_sentences.p_value > 0.05
    assert found.verdict == "tie"


def test_both_tests_together_make_a_win_with_an_interval_over_sentences() -> None:
    a, b = pair([0.95, 0.951, 0.952], [0.80, 0.801, 0.802])
    wrong_a, wrong_b = set(range(10)), set(range(40))
    found = compare(a, b, predictions=answers(a0=wrong_a, a1=wrong_a, a2=wrong_a, b0=wrong_b, b1=wrong_b, b2=wrong_b))
    assert found.verdict == "win"
    assert found.interval is not None
    assert found.interval.low < 0.15 < found.interval.high


def test_one_seed_without_predictions_is_not_known() -> None:
    found = compare(*pair([0.95], [0.90]))
    assert (found.verdict, found.over_seeds, found.over_sentences) == ("unknown", None, None)
    assert "no predictions of these evaluations are stored" in found.reason


def test_of_the_loss_under_one_seed_nothing_is_said_about_predictions() -> None:
    found = compare(*pair([0.95], [0.90]), metric="dev_loss", values=({0: 0.2}, {0: 0.3}))
    assert (found.verdict, "predictions" in found.reason) == ("unknown", False)


def test_sentences_alone_make_no_win_of_one_seed() -> None:
    a, b = pair([0.95], [0.80])
    found = compare(a, b, predictions=answers(a0=set(range(10)), b0=set(range(40))))
    assert found.verdict == "unknown"
    assert "the noise between seeds is not known" in found.reason


def test_two_seeds_that_cannot_confirm_the_sentences_leave_it_undecided() -> None:
    # 25 points apart, and yet t = 5 with one degree of freedom: that is no tie.
    a, b = pair([0.79, 0.75], [0.50, 0.54])
    wrong_a, wrong_b = set(range(40)), set(range(90))
    found = compare(a, b, predictions=answers(a0=wrong_a, a1=wrong_a, b0=wrong_b, b1=wrong_b))
    assert found.over_sentences is not None
    assert found.over_sentences.p_value < 0.001
    assert (found.verdict, found.reason.endswith("too few seeds to tell")) == ("unknown", True)


def test_two_seeds_and_the_same_answers_are_a_tie() -> None:
    a, b = pair([0.80, 0.78], [0.79, 0.79])
    assert compare(a, b, predictions=answers(a0={1}, a1={2}, b0={3}, b1={4})).verdict == "tie"


def test_no_interval_reaches_beyond_what_a_difference_can_be() -> None:
    found = compare(*pair([0.9, 0.2], [0.5, 0.6]))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (-1.0, 1.0)


def test_only_common_seeds_are_paired() -> None:
    found = compare(*pair([0.9, 0.91, 0.92], [0.8, 0.81, 0.82], seeds_b=[2, 3, 4]))
    assert found.over_seeds is None


def test_predictions_for_other_sentences_are_not_compared() -> None:
    a, b = pair([0.95], [0.90])
    other = files.records_to_table("predictions", [prediction(row + 1, "b0") for row in range(NUM_SENTENCES)])
    assert compare(a, b, predictions=pa.concat_tables([answers(a0=set()), other])).over_sentences is None


def test_predictions_say_nothing_about_the_last_epoch() -> None:
    a, b = pair([0.95, 0.96], [0.90, 0.92], last_dev_accuracy=0.9)
    found = compare(a, b, predictions=answers(a0=set(), a1=set(), b0=set(), b1=set()), metric="last_dev_accuracy")
    assert found.over_sentences is None


def test_a_lower_loss_wins() -> None:
    a, b = pair([0.9, 0.9, 0.9], [0.9, 0.9, 0.9])
    values = ({0: 0.20, 1: 0.21, 2: 0.22}, {0: 0.30, 1: 0.311, 2: 0.32})
    assert compare(a, b, metric="dev_loss", values=values).winner is a


def test_a_metric_that_a_seed_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="not every seed has best_dev_f1"):
        compare(*pair([0.9], [0.9]), metric="best_dev_f1")


def test_equal_configurations_tie() -> None:
    accuracies = list(np.linspace(0.9, 0.92, 3))
    assert compare(*pair(accuracies, accuracies)).verdict == "tie"
