from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from sst2_ray.results.analysis.ranking import (
    Configuration,
    RankedGroup,
    configurations,
    grid_edge,
    rank,
    searched_axes,
)
from sst2_ray.results.store import files
from sst2_ray.results.store.query import leaderboard
from tests.support.records import at, trial


def runs(configuration: str, accuracies: list[float], **values: Any) -> list[Any]:
    """Make one succeeded run a seed."""
    return [
        trial(
            f"{configuration}-{seed}", configuration_id=configuration, seed=seed, best_dev_accuracy=accuracy,
            last_dev_accuracy=accuracy, **{"model": "sbert", "learning_rate": 8e-5, "batch_size": 32, **values},
        )
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def table(*parts: list[Any]) -> pa.Table:
    return files.records_to_table("trials", [record for part in parts for record in part])


def ids(group: RankedGroup) -> list[str]:
    return [c.configuration_id for c in group.configurations]


def of(found: list[Configuration], configuration: str) -> Configuration:
    return next(c for c in found if c.configuration_id == configuration)


def test_configurations_are_ranked_by_their_mean_over_seeds() -> None:
    found = rank(table(runs("lucky", [0.95, 0.80]), runs("steady", [0.90, 0.90])))
    assert ids(found[0]) == ["steady", "lucky"]
    assert found[0].score(found[0].best) == pytest.approx(0.90)


def test_configurations_are_ranked_together_whatever_number_of_seeds_each_has() -> None:
    found = rank(table(runs("one", [0.89]), runs("three", [0.90, 0.91, 0.92]), runs("two", [0.95, 0.94])))
    assert [ids(group) for group in found] == [["two", "three", "one"]]


def test_nobody_is_best_for_having_more_seeds() -> None:
    found = rank(table(runs("middle", [0.80, 0.81]), runs("good", [0.93], experiment="f"), runs("fair", [0.91])))
    assert [ids(group) for group in found] == [["good", "fair", "middle"]]


def test_who_diverged_under_a_seed_does_not_gain_by_the_others() -> None:
    survived = [run for run in runs("lucky", [0.95, 0.0, 0.95]) if run.seed != 1]
    diverged = trial("lucky-1", configuration_id="lucky", seed=1, status="failed", failure_class="non_finite")
    trials = table(survived, [diverged], runs("steady", [0.94, 0.941, 0.942]), runs("single", [0.5]))
    assert ids(rank(trials)[0]) == ["steady", "single", "lucky"]


def test_the_leaderboard_agrees_with_the_ranking() -> None:
    survived = [run for run in runs("lucky", [0.95, 0.0, 0.95]) if run.seed != 1]
    diverged = trial("lucky-1", configuration_id="lucky", seed=1, status="failed", failure_class="non_finite")
    trials = table(survived, [diverged], runs("middle", [0.80, 0.81]), runs("good", [0.93]), runs("fair", [0.91]))
    assert leaderboard(trials).column("configuration").to_pylist() == ids(rank(trials)[0])


def test_a_ranking_discloses_what_its_best_was_chosen_from() -> None:
    found = rank(table(runs("a", [0.9, 0.91], eval_split="SST-2 dev"), runs("b", [0.8], eval_split="SST-2 dev")))
    assert found[0].chosen == "best of 2 configurations, 3 runs, chosen on SST-2 dev"


def test_other_evaluation_data_is_another_ranking() -> None:
    dev, held_out = runs("a", [0.9], eval_split="SST-2 dev"), runs("a", [0.8], eval_split="hold-out of rotten-tomatoes")
    assert len(rank(table(dev, held_out))) == 2


def test_only_runs_that_succeeded_count() -> None:
    failed = [trial("c-9", configuration_id="c", seed=9, status="failed", best_dev_accuracy=0.99)]
    early = [trial("c-8", configuration_id="c", seed=8, status="early_stopped", best_dev_accuracy=0.99)]
    found = rank(table(runs("c", [0.9, 0.8]), failed, early))
    assert found[0].num_runs == 2


def test_a_seed_that_was_run_twice_counts_once_by_its_later_run() -> None:
    again = [trial("c-0", experiment="f", configuration_id="c", seed=0, best_dev_accuracy=0.7, written_at=at(5))]
    found = configurations(table(runs("c", [0.9, 0.8]), again))
    assert of(found, "c").metric("best_dev_accuracy") == [0.7, 0.8]


def test_runs_without_a_configuration_stand_for_themselves() -> None:
    found = configurations(table([trial("a", best_dev_accuracy=0.9), trial("b", best_dev_accuracy=0.8)]))
    assert sorted(c.configuration_id for c in found) == ["e/a", "e/b"]


def test_a_sweep_that_selects_on_held_out_train_is_ranked_by_that() -> None:
    better_dev = runs("dev", [0.95], selection_accuracy=0.90)
    found = rank(table(better_dev, runs("held-out", [0.94], selection_accuracy=0.91)))
    assert found[0].metric == "selection_accuracy"
    assert ids(found[0]) == ["held-out", "dev"]


def test_the_metric_that_runs_were_chosen_by_ranks_them() -> None:
    values = {"chosen_by": "mcc", "eval_split": "dev of glue/cola"}
    accurate = runs("accurate", [0.95, 0.95], **values, best_score=0.1)
    trials = table(accurate, runs("correlated", [0.80, 0.80], **values, best_score=0.6))
    (group,) = rank(trials)
    assert (group.metric, group.chosen_by, ids(group)) == ("best_score", "mcc", ["correlated", "accurate"])
    board = leaderboard(trials)
    assert board.column("configuration").to_pylist() == ["correlated", "accurate"]
    assert board.column("score").to_pylist() == pytest.approx([0.6, 0.1])


def test_less_loss_is_better() -> None:
    values = {"chosen_by": "loss", "selection_accuracy": 0.9}
    low = runs("low", [0.8], **values, selection_score=0.2)
    trials = table(runs("high", [0.9], **values, selection_score=0.7), low)
    (group,) = rank(trials)
    assert (group.metric, ids(group)) == ("selection_score", ["low", "high"])
    assert leaderboard(trials).column("configuration").to_pylist() == ["low", "high"]


def test_runs_that_were_chosen_by_other_metrics_are_not_ranked_together() -> None:
    older = runs("older", [0.9])  # of a version that knew accuracy only
    trials = table(older, runs("new", [0.8], chosen_by="accuracy"), runs("f1", [0.7], chosen_by="f1", best_score=0.7))
    assert [(group.chosen_by, ids(group)) for group in rank(trials)] == [("accuracy", ["older", "new"]), ("f1", ["f1"])]
    board = leaderboard(trials)
    ranks = zip(*(board.column(n).to_pylist() for n in ("configuration", "rank", "chosen_by")), strict=True)
    assert list(ranks) == [("older", 1, "accuracy"), ("new", 2, "accuracy"), ("f1", 1, "f1")]


def test_nothing_succeeded_is_no_ranking() -> None:
    assert rank(table([trial(status="failed")])) == []


def test_the_best_of_each_model() -> None:
    weak, strong, other = (runs("w", [0.8]), runs("s", [0.9]), runs("o", [0.85], model="modernbert-base"))
    assert [c.configuration_id for c in rank(table(weak, strong, other))[0].best_per_model()] == ["s", "o"]


def test_random_weights_are_another_model_and_say_so() -> None:
    found = configurations(table(runs("r", [0.7], random_weights=True)))
    assert found[0].label == "sbert (random weights), lr 8e-5, batch 32"


def at_rates(rates: list[float], best: float) -> tuple[list[float], Configuration]:
    return rates, configurations(table(runs("best", [0.9], learning_rate=best)))[0]


def test_the_best_inside_the_grid_is_no_edge() -> None:
    assert grid_edge(*at_rates([4e-5, 8e-5, 1.6e-4], 8e-5)) is None


def test_the_best_at_the_upper_edge_proposes_the_next_steps() -> None:
    edge = grid_edge(*at_rates([2e-5, 4e-5, 8e-5], 8e-5))
    assert edge is not None
    assert (edge.side, edge.proposed) == ("highest", (1.6e-4, 3.2e-4))


def test_the_best_at_the_lower_edge_proposes_the_next_steps_down() -> None:
    edge = grid_edge(*at_rates([2e-5, 4e-5, 8e-5], 2e-5))
    assert edge is not None
    assert (edge.side, edge.proposed) == ("lowest", (1e-5, 5e-6))


def test_a_far_outlier_makes_no_absurd_proposal() -> None:
    edge = grid_edge(*at_rates([8e-5, 10.0], 8e-5))
    assert edge is not None
    assert (edge.side, edge.proposed) == ("lowest", (2e-5, 5e-6))


def test_a_single_value_proposes_both_directions() -> None:
    edge = grid_edge(*at_rates([8e-5], 8e-5))
    assert edge is not None
    assert (edge.side, edge.proposed) == ("only", (4e-5, 1.6e-4))


def test_the_edge_of_a_batch_size_is_doubled() -> None:
    best = configurations(table(runs("best", [0.9], batch_size=64)))[0]
    edge = grid_edge([16, 32, 64], best, axis="batch_size")
    assert edge is not None
    assert edge.proposed == (128, 256)


def test_searched_axes_are_those_with_several_values() -> None:
    parts = [runs(str(rate), [0.9], learning_rate=rate, epochs=2) for rate in (4e-5, 8e-5)]
    assert searched_axes(configurations(table(*parts))) == ["learning_rate"]
