from __future__ import annotations

from sst2_ray.results.analysis import verdict
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import epoch, prediction, trial


def study(table: ResultsTable, **accuracies: list[float]) -> Study:
    """One configuration a model, named by its kind, with these accuracies over seeds 0, 1, ..."""
    for kind, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            run = f"{kind}{seed}"
            settings = {"model": kind, "model_kind": kind, "learning_rate": 8e-5, "batch_size": 32, "seed": seed}
            scores = {"best_dev_accuracy": accuracy, "best_global_step": 100}
            table.write("trials", [trial(run, configuration_id=kind, **settings, **scores)])
            points = [epoch(step, run, dev_accuracy=accuracy, seconds=float(step)) for step in (100, 200)]
            table.write("epochs", points)
    return studies(table, table.read("trials", attempts="latest"))[0]


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
    found = study(table, modernbert=[0.95, 0.951, 0.952], sbert=[0.90, 0.9015, 0.902])
    assert verdict.headline(found) == "modernbert beats sbert by 4.98 points."


def test_sbert_may_win(table: ResultsTable) -> None:
    found = study(table, modernbert=[0.90, 0.9015, 0.902], sbert=[0.95, 0.951, 0.952])
    assert verdict.headline(found).startswith("sbert beats modernbert")


def test_noise_is_called_a_tie(table: ResultsTable) -> None:
    found = study(table, modernbert=[0.95, 0.93, 0.94], sbert=[0.94, 0.945, 0.93])
    assert verdict.headline(found).startswith("A tie: modernbert and sbert differ by")


def test_one_seed_is_called_undecided(table: ResultsTable) -> None:
    found = study(table, modernbert=[0.95], sbert=[0.94])
    assert verdict.headline(found).startswith("Not decided")
    assert any("One seed" in line for line in verdict.not_measured(found))


def test_sentences_that_differ_make_no_win_of_one_seed(table: ResultsTable) -> None:
    for run, num_wrong in (("modernbert0", 10), ("sbert0", 40)):
        rows = range(200)
        table.write("predictions", [prediction(row, run, predicted=0 if row < num_wrong else 1) for row in rows])
    found = study(table, modernbert=[0.95], sbert=[0.80])
    assert verdict.headline(found) == "Not decided: modernbert and sbert differ by 15.00 points."
    assert any("the noise between seeds is not known" in sentence for sentence in verdict.sentences(found))


def test_ties_are_counted_over_seeds_only(table: ResultsTable) -> None:
    assert study(table, modernbert=[0.95], sbert=[0.94], other=[0.93]).num_tied == 0


def test_two_seeds_count_no_ties(table: ResultsTable) -> None:
    assert study(table, modernbert=[0.95, 0.96], sbert=[0.90, 0.91], other=[0.80, 0.81]).num_tied == 0


def test_a_runner_up_that_is_better_on_the_common_seeds_is_not_called_worse(table: ResultsTable) -> None:
    for model, first_seed, values in (("x", 0, [0.99, 0.80, 0.80, 0.80]), ("y", 1, [0.82, 0.8201, 0.82, 0.82])):
        settings = {"configuration_id": model, "model": model, "learning_rate": 8e-5, "batch_size": 32}
        rows = [
            trial(f"{model}{seed}", seed=seed, best_dev_accuracy=value, **settings)
            for seed, value in enumerate(values, first_seed)
        ]
        table.write("trials", rows)
    (found,) = studies(table, table.read("trials", attempts="latest"))
    assert found.runner_up is not None
    assert found.runner_up.winner is found.runner_up.b
    assert any("On the seeds that both have, the runner-up, y" in sentence for sentence in verdict.sentences(found))


def test_unequal_numbers_of_seeds_are_not_compared(table: ResultsTable) -> None:
    found = study(table, modernbert=[0.95, 0.94], sbert=[0.94])
    assert verdict.headline(found).startswith("Best: modernbert")
    assert any("no ranking with equal numbers of seeds" in line for line in verdict.not_measured(found))


def test_the_best_is_said_to_be_that_of_its_ranking(table: ResultsTable) -> None:
    found = study(table, modernbert=[0.95, 0.94], sbert=[0.94])
    assert verdict.sentences(found)[0].startswith(
        "The only configuration with 2 seeds is modernbert, lr 8e-5, batch 32"
    )


def test_trials_that_still_run_may_change_the_ranking(table: ResultsTable) -> None:
    table.write("trials", [trial("late", model="sbert", status="running")])
    found = study(table, sbert=[0.94, 0.95])
    assert any("1 trial had not ended" in line for line in verdict.not_measured(found))


def test_a_part_of_the_training_split_is_told_beside_published_figures(table: ResultsTable) -> None:
    for run, rows in (("a", 1024), ("b", 2048)):
        table.write(
            "trials",
            [trial(run, best_dev_accuracy=0.8, eval_split="SST-2 dev", num_train_rows=rows, model_kind="sbert")],
        )
    (found,) = studies(table, table.read("trials", attempts="latest"))
    assert any(
        "at most 2,048 rows; the published figures stand on all 67,349" in s for s in verdict.not_measured(found)
    )


def test_a_single_learning_rate_proposes_others(table: ResultsTable) -> None:
    found = study(table, sbert=[0.9, 0.91])
    assert any("next: 4e-5 and 1.6e-4" in line for line in verdict.sentences(found))
