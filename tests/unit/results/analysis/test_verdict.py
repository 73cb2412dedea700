from __future__ import annotations

import numpy as np
import pytest

from sst2_ray.results.analysis import limits, verdict
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics.scores import matthews
from tests.support.records import epoch, prediction, trial

NUM_SENTENCES = 400


def study(table: ResultsTable, *, stored: bool = True, **wrong: list[int]) -> Study:
    """Write one configuration a model, named by its kind, that gets so many of 400 sentences wrong under seeds 0, 1, ..."""
    for kind, counts in wrong.items():
        for seed, count in enumerate(counts):
            run, accuracy = f"{kind}{seed}", 1 - count / NUM_SENTENCES
            settings = {"model": kind, "model_kind": kind, "learning_rate": 8e-5, "batch_size": 32, "seed": seed}
            scores = {"best_dev_accuracy": accuracy, "best_global_step": 100, "eval_split": "SST-2 dev"}
            table.write("trials", [trial(run, configuration_id=kind, **settings, **scores)])
            table.write("epochs", [epoch(step, run, dev_accuracy=accuracy, seconds=float(step)) for step in (100, 200)])
            if stored:
                # Labels alternate; each seed gets some other sentences wrong.
                rows = [(row, row % 2, (row - 7 * seed) % NUM_SENTENCES < count) for row in range(NUM_SENTENCES)]
                answers = [prediction(r, run, label=y, predicted=1 - y if bad else y) for r, y, bad in rows]
                table.write("predictions", answers)
    return studies(table, table.read("trials", attempts="latest"))[0]


def mcc_study(table: ResultsTable) -> Study:
    """Write two configurations that were chosen by MCC: `skewed` is right on more sentences, `fair` on both classes."""
    labels = [int(row % 5 != 0) for row in range(NUM_SENTENCES)]  # a fifth is of class 0
    for name in ("skewed", "fair"):
        for seed in range(3):
            run = f"{name}{seed}"
            rows = [
                (row, y, 1 if name == "skewed" else y ^ ((row // 5 + seed) % 4 == 0)) for row, y in enumerate(labels)
            ]
            truth, answer = np.array([y for _, y, _ in rows]), np.array([p for *_, p in rows])
            settings = {"model": name, "model_kind": "encoder", "learning_rate": 8e-5, "batch_size": 32, "seed": seed}
            scores = {
                "best_dev_accuracy": float((truth == answer).mean()), "best_score": matthews(truth, answer),
                "best_num_answered": len(np.unique(answer)), "best_global_step": 100, "eval_split": "dev of cola",
                "chosen_by": "mcc",
            }  # fmt: skip
            table.write("trials", [trial(run, configuration_id=name, **settings, **scores)])
            table.write("predictions", [prediction(r, run, label=y, predicted=int(p)) for r, y, p in rows])
    return studies(table, table.read("trials", attempts="latest"))[0]


def test_the_verdict_goes_by_the_metric_that_was_chosen(table: ResultsTable) -> None:
    found = mcc_study(table)
    assert found.main is not None and found.bests is not None
    assert [c.label.split(",")[0] for c in found.main.configurations] == ["fair", "skewed"]
    assert [c.label.split(",")[0] for c in found.bests.configurations] == ["fair"]
    assert verdict.headline(found) == "fair beats skewed by 0.419 of MCC."
    best = verdict.sentences(found)[0]
    assert "MCC on dev at the best epoch (mean ± standard deviation of 3 seeds" in best
    assert "scores an accuracy of 80.00 %" in best
    (comparison,) = (c for c in found.against_best if c is not None)
    assert (comparison.metric, comparison.margin) == ("mcc", 0.01)
    assert comparison.difference == pytest.approx(0.4193, abs=1e-4)


def test_a_constant_answer_is_said(table: ResultsTable) -> None:
    skewed = mcc_study(table).configurations[1]
    assert verdict.constant_answers(skewed) == " 3 of its 3 seeds answer one class for every sentence of dev."


def test_what_was_tried_and_stopped_is_not_proposed(table: ResultsTable) -> None:
    rates = {8e-5: "succeeded", 4e-5: "succeeded", 1.6e-4: "early_stopped", 3.2e-4: "failed"}
    table.write(
        "trials",
        [
            trial(
                f"lr{rate}", configuration_id=f"{rate}", learning_rate=rate, status=status, model="sbert", seed=0,
                best_dev_accuracy={8e-5: 0.9, 4e-5: 0.8}.get(rate),
            )
            for rate, status in rates.items()
        ],
    )  # fmt: skip
    (found,) = studies(table, table.read("trials", attempts="latest"))
    assert found.edges == ()


def test_a_win_is_called_one(table: ResultsTable) -> None:
    found = study(table, modernbert=[20, 21, 22], sbert=[60, 61, 62])
    assert verdict.headline(found) == "modernbert beats sbert by 10.00 points."


def test_sbert_may_win(table: ResultsTable) -> None:
    found = study(table, modernbert=[60, 61, 62], sbert=[20, 21, 22])
    assert verdict.headline(found) == "sbert beats modernbert by 10.00 points."


def test_what_is_smaller_than_the_margin_is_called_a_tie(table: ResultsTable) -> None:
    wrong = {"modernbert": [20, 20, 20], "sbert": [20, 20, 20]}
    assert verdict.headline(study(table, **wrong)) == "A tie: modernbert and sbert differ by 0.00 points."


def test_noise_is_not_decided(table: ResultsTable) -> None:
    found = study(table, modernbert=[20, 28, 24], sbert=[24, 22, 28])
    assert verdict.headline(found) == "Not decided: modernbert and sbert differ by 0.17 points."


def test_one_seed_is_called_undecided(table: ResultsTable) -> None:
    found = study(table, modernbert=[20], sbert=[60])
    assert verdict.headline(found) == "Not decided: modernbert and sbert differ by 10.00 points."
    assert any("under one seed" in line for line in limits.not_measured(found))
    assert any("how much seeds vary is not known" in sentence for sentence in verdict.sentences(found))


def test_without_stored_sentences_nothing_is_decided(table: ResultsTable) -> None:
    found = study(table, stored=False, modernbert=[20, 21, 22], sbert=[60, 61, 62])
    assert verdict.headline(found) == "Not decided: modernbert and sbert differ by 10.00 points."
    said = " ".join(verdict.sentences(found))
    assert (
        "not decided: the predictions of modernbert, lr 8e-5, batch 32 and of sbert, lr 8e-5, batch 32 on the single sentences "
        "were not stored" in said
    )
    assert "no interval, as its predictions on the single sentences were not stored" in said
    assert any(
        "The predictions of 2 of 2 configurations on the single sentences were not" in line
        for line in limits.not_measured(found)
    )


def test_the_best_says_what_it_was_chosen_from_and_on(table: ResultsTable) -> None:
    found = study(table, modernbert=[20, 21, 22], sbert=[60, 61, 62])
    best, bias, bests, *_ = verdict.sentences(found)
    assert best == (
        "The best of 2 configurations, 6 runs, chosen on SST-2 dev, is modernbert, lr 8e-5, batch 32: 94.75 ± 0.25 % dev "
        "accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.66 to 96.27). Always answering the more "
        "frequent class scores 50.00 %."
    )
    assert bias == (
        "Its score is too high, by less than 0.01 points, because it was chosen by these very scores among 2 configurations "
        "(bootstrap estimate; the choice of its epochs is not in this figure)."
    )
    assert bests == "With 95 % confidence modernbert, lr 8e-5, batch 32 is the best of the 2 configurations."


def test_those_that_may_be_the_best_are_named(table: ResultsTable) -> None:
    found = study(table, modernbert=[20, 28, 24], sbert=[24, 22, 28])
    assert (
        "Which configuration is best is not decided; with 95 % confidence none of the 2 can be ruled out: modernbert, lr 8e-5, "
        "batch 32; sbert, lr 8e-5, batch 32."
    ) in verdict.sentences(found)


def test_seeds_that_failed_and_collapsed_stand_beside_the_mean(table: ResultsTable) -> None:
    table.write("trials", [trial("m9", configuration_id="modernbert", seed=9, status="failed", eval_split="SST-2 dev")])
    found = study(table, modernbert=[20, 21, 200], sbert=[60, 61, 62])
    best = found.best_per_model[1]
    assert verdict.seeds_lost(found, best) == (
        ", 1 of 4 seeds failed, 1 of 3 seeds collapsed, within the noise of the majority share"
    )


def test_unequal_numbers_of_seeds_are_compared_by_their_own_errors(table: ResultsTable) -> None:
    found = study(table, modernbert=[20, 21, 22], sbert=[60, 61])
    assert verdict.headline(found) == "modernbert beats sbert by 9.87 points."
    assert any("different numbers of seeds" in line for line in limits.not_measured(found))


def test_searches_of_unequal_size_are_compared_at_equal_size(table: ResultsTable) -> None:
    for rate, count in ((4e-5, 30), (1.6e-4, 40)):
        settings = {
            "model": "modernbert",
            "model_kind": "modernbert",
            "learning_rate": rate,
            "batch_size": 32,
            "seed": 0,
        }
        scores = {"best_dev_accuracy": 1 - count / NUM_SENTENCES, "best_global_step": 100, "eval_split": "SST-2 dev"}
        table.write("trials", [trial(f"m{rate}", configuration_id=f"m{rate}", **settings, **scores)])
    found = study(table, modernbert=[20, 20], sbert=[20, 20])
    assert (
        "modernbert was searched with 3 configurations, sbert with 1; one drawn at random from each would score 92.50 % and "
        "95.00 % on average (Tang et al. 2020)."
    ) in verdict.sentences(found)


def test_trials_that_still_run_may_change_the_ranking(table: ResultsTable) -> None:
    table.write("trials", [trial("late", model="sbert", status="running", eval_split="SST-2 dev")])
    found = study(table, sbert=[24, 20])
    assert any("1 trial had not ended" in line for line in limits.not_measured(found))


def test_a_part_of_the_training_split_is_told_beside_published_figures(table: ResultsTable) -> None:
    for run, rows in (("a", 1024), ("b", 2048)):
        table.write(
            "trials",
            [trial(run, best_dev_accuracy=0.8, eval_split="SST-2 dev", num_train_rows=rows, model_kind="sbert")],
        )
    (found,) = studies(table, table.read("trials", attempts="latest"))
    assert any("at most 2,048 rows; the published figures stand on all 67,349" in s for s in limits.not_measured(found))


def test_a_single_learning_rate_proposes_others(table: ResultsTable) -> None:
    found = study(table, sbert=[40, 36])
    assert any("next to try: 4e-5 and 1.6e-4" in line for line in verdict.sentences(found))
