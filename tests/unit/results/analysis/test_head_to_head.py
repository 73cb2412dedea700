"""The best ModernBERT against the best SBERT: at equal epochs, at equal time, and where both were chosen on held-out train."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from sst2_ray.results.analysis import limits, verdict
from sst2_ray.results.analysis.comparison import Verdict
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.analysis.head_to_head import HeadToHead
from sst2_ray.results.report import page as report
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import epoch, prediction, trial

NUM_SEEDS = 2
STEPS = (100, 200, 300)  # 100 an epoch


@dataclass(frozen=True, kw_only=True)
class Course:
    """Course of the runs of one kind: dev accuracy after each epoch, and the seconds an epoch took."""

    kind: str
    accuracy: tuple[float, float, float]
    seconds: float

    def settings(self, seed: int) -> dict[str, object]:
        return {"model": self.kind, "model_kind": self.kind, "learning_rate": 8e-5, "batch_size": 32, "seed": seed}


SLOW = Course(kind="modernbert", accuracy=(0.90, 0.95, 0.94), seconds=20.0)
FAST = Course(kind="sbert", accuracy=(0.91, 0.92, 0.93), seconds=10.0)


def write_course(table: ResultsTable, course: Course, *, split: str = "dev") -> None:
    """Write a run a seed, the second a thousandth better; on the held-out part of train nothing is known of dev."""
    for seed in range(NUM_SEEDS):
        run = f"{course.kind}-{seed}"
        accuracies = [accuracy + 0.001 * seed for accuracy in course.accuracy]
        table.write(
            "epochs",
            [
                epoch(
                    step, run, split=split, dev_accuracy=accuracy, dev_f1=accuracy, seconds=course.seconds * step / 100
                )
                for step, accuracy in zip(STEPS, accuracies, strict=True)
            ],
        )
        best = "best_dev_accuracy" if split == "dev" else "selection_accuracy"
        scores = {best: max(accuracies), "best_global_step": STEPS[accuracies.index(max(accuracies))]}
        table.write("trials", [trial(run, configuration_id=course.kind, **course.settings(seed), **scores)])


def only_study(table: ResultsTable) -> Study:
    (found,) = studies(table, table.read("trials", attempts="latest"))
    return found


def duel_of(table: ResultsTable) -> HeadToHead:
    found = only_study(table).head_to_head
    assert found is not None
    return found


def means(duel: HeadToHead, moment: int) -> dict[str, tuple[float, float]]:
    """Map each metric to (ModernBERT, SBERT)."""
    return {row.metric: (round(row.mean_a, 4), round(row.mean_b, 4)) for row in duel.moments[moment].rows}


def test_at_equal_epochs_the_best_evaluations_and_the_time_they_took(table: ResultsTable) -> None:
    for course in (SLOW, FAST):
        write_course(table, course)
    duel = duel_of(table)
    assert duel.moments[0].title == "at equal epochs"
    assert means(duel, 0) == {
        "accuracy": (0.9505, 0.9305),
        "f1": (0.9505, 0.9305),
        "seconds": (60.0, 30.0),
    }
    # Without stored answers nothing is decided, and of times nothing is tested.
    assert [row.comparison.verdict if row.comparison else None for row in duel.moments[0].rows] == [
        Verdict.NOT_DECIDED,
        Verdict.NOT_DECIDED,
        None,
    ]


def test_at_equal_time_the_slower_model_has_done_fewer_epochs(table: ResultsTable) -> None:
    for course in (SLOW, FAST):
        write_course(table, course)
    duel = duel_of(table)
    assert duel.moments[1].detail == "the best evaluation in the first 30 s of training"
    assert means(duel, 1) == {"accuracy": (0.9005, 0.9305), "f1": (0.9005, 0.9305), "epoch": (1.0, 3.0)}


def test_what_is_known_at_equal_epochs_is_decided_there_though_answers_at_equal_time_are_missing(
    table: ResultsTable,
) -> None:
    for course, num_wrong in ((SLOW, 10), (FAST, 80)):
        write_course(table, course)
        best = STEPS[course.accuracy.index(max(course.accuracy))]
        for seed in range(NUM_SEEDS):
            run, wrong = f"{course.kind}-{seed}", num_wrong - seed
            answers = (prediction(i, run, global_step=best, predicted=int(i >= wrong)) for i in range(400))
            table.write("predictions", list(answers))
    epochs, time = ([row.comparison for row in moment.rows[:2]] for moment in duel_of(table).moments)
    assert [c.verdict for c in epochs if c] == [Verdict.WIN, Verdict.WIN]
    assert {c.num_tests for c in epochs if c} == {4}
    assert all(c and c.p_value is not None and c.p_value < 0.001 for c in epochs)
    assert [c.verdict for c in time if c] == [Verdict.NOT_DECIDED, Verdict.NOT_DECIDED]


def test_a_model_without_an_evaluation_in_that_time_is_not_compared(table: ResultsTable) -> None:
    write_course(table, Course(kind="modernbert", accuracy=SLOW.accuracy, seconds=100.0))
    write_course(table, FAST)
    assert duel_of(table).moments[1].rows == ()
    assert "Not measured: one of them had no evaluation by then" in report.build(table).html


def test_time_goes_on_over_a_restart(table: ResultsTable) -> None:
    for course in (SLOW, FAST):
        write_course(table, course)
    # The first run was killed after its second epoch and went on from there, its own clock at 0.
    table.write("epochs", [epoch(300, "sbert-0", attempt=1, dev_accuracy=0.93, seconds=12.0)])
    curve = only_study(table).curves["e", "sbert-0"]
    assert curve.seconds.tolist() == [10.0, 20.0, 32.0]


@pytest.fixture
def selected(table: ResultsTable) -> ResultsTable:
    """Write both kinds, chosen on a held-out part of train, then scored on dev, where it is the other way round."""
    for course, dev, num_wrong in ((SLOW, 0.80, 40), (FAST, 0.90, 20)):
        write_course(table, course, split="selection")
        for record in table.records("trials"):
            if record.model != course.kind:
                continue
            seed = record.seed
            scores = {"best_dev_accuracy": dev + 0.001 * seed, "last_dev_accuracy": dev - 0.01}
            chosen = {"selection_accuracy": record.selection_accuracy, "best_global_step": record.best_global_step}
            table.write(
                "trials",
                [trial(record.trial_id, configuration_id=course.kind, **course.settings(seed), **scores, **chosen)],
            )
            table.write("epochs", [epoch(record.best_global_step, record.trial_id, dev_accuracy=dev)])
            answers = [
                prediction(
                    row, record.trial_id, global_step=record.best_global_step, predicted=0 if row < num_wrong else 1
                )
                for row in range(200)
            ]
            table.write("predictions", answers)
    return table


def test_what_was_chosen_on_held_out_train_is_compared_on_dev(selected: ResultsTable) -> None:
    duel = duel_of(selected)
    assert duel.overall.winner is duel.sbert
    assert duel.overall.searched == (1, 1)  # dev had no part in the choice
    assert verdict.headline(only_study(selected)) == "sbert beats modernbert by 10.00 points."


def test_the_curves_of_a_selecting_sweep_are_those_of_held_out_train(selected: ResultsTable) -> None:
    study = only_study(selected)
    assert study.curve_split == "selection"
    assert study.curves["e", "sbert-0"].global_step.tolist() == [100, 200, 300]
    duel = study.head_to_head
    assert duel is not None
    assert all("held-out part of train" in moment.detail for moment in duel.moments)
    # The stored answers are those of dev: they say nothing about other sentences.
    compared = [row.comparison for moment in duel.moments for row in moment.rows if row.comparison]
    assert compared
    assert all("not stored" in c.missing for c in compared)


def test_the_verdict_says_what_dev_had_to_do_with_the_choice(selected: ResultsTable) -> None:
    study = only_study(selected)
    said = " ".join(verdict.sentences(study))
    assert re.search(r"95\.05 ± \d\.\d\d % accuracy on the held-out part of train", said)
    assert "which had no part in the choice, sbert, lr 8e-5, batch 32 scores 90.05 ± 0.07 %" in said


def test_a_selecting_sweep_that_has_not_ended_says_that_dev_is_not_scored(table: ResultsTable) -> None:
    write_course(table, FAST, split="selection")
    study = only_study(table)
    assert verdict.headline(study) == "Best: sbert, lr 8e-5, batch 32, 93.05 % accuracy on the held-out part of train."
    assert any("has not been scored on dev" in line for line in limits.not_measured(study))
