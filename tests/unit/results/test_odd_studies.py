"""Studies as odd as they come: what is printed of them is true, nothing contradicts itself, and nothing is a traceback."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sst2_ray.results.analysis import leaderboard, limits, verdict
from sst2_ray.results.analysis.comparison import Comparison, Verdict, compare
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.compare import main_compare
from sst2_ray.results.store.table import ResultsTable
from tests.support.answered import put, wrong_at
from tests.support.worlds import World, configuration, evidence

LABEL = np.arange(400) % 2


def noisy(label: np.ndarray, share: float, seed: int, classes: int = 2) -> np.ndarray:
    """Return answers of which about this share is right."""
    wrong = np.flatnonzero(np.random.default_rng(seed).random(len(label)) > share)
    return wrong_at(label, *wrong, classes=classes)


def read(table: ResultsTable) -> list[Study]:
    return studies(table, table.read("trials", attempts="latest"))


def board(table: ResultsTable) -> str:
    out = io.StringIO()
    rows = leaderboard.load(table, where=None, sort=None, experiment=None)
    leaderboard.print_table(rows, Console(file=out, width=200), title="T", ranked=True, limit=0)
    return out.getvalue()


def two(
    table: ResultsTable, label: np.ndarray, shares: tuple[float, float], num_seeds: int = 3, **values: object
) -> Study:
    """Write a study of modernbert against sbert."""
    classes = int(label.max()) + 1 if label.max() > 1 else 2
    for seed in range(num_seeds):
        for number, (model, share) in enumerate(zip(("modernbert", "sbert"), shares, strict=True)):
            put(table, model, seed, label, noisy(label, share, 10 * seed + number, classes), **values)  # type: ignore[arg-type]
    return read(table)[0]


# ---- compare says what the report says


def test_compare_and_the_report_give_the_same_interval(table: ResultsTable, capsys: pytest.CaptureFixture[str]) -> None:
    study = two(table, LABEL, (0.93, 0.90))
    (found,) = study.comparisons
    assert main_compare(["modernbert", "sbert", "--storage-path", table.storage_path, "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["metrics"]["accuracy"]
    assert found.estimate is not None
    assert (accuracy["low"], accuracy["high"]) == pytest.approx(
        (found.estimate.interval.low, found.estimate.interval.high)
    )
    assert accuracy["degrees_of_freedom"] == pytest.approx(found.estimate.degrees_of_freedom)


def test_compare_says_why_answers_cannot_be_used(table: ResultsTable, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        put(table, "modernbert", seed, LABEL, noisy(LABEL, 0.9, seed), row_ids=np.arange(400) + 1000 * seed)
        put(table, "sbert", seed, LABEL, noisy(LABEL, 0.8, 9 + seed))
    assert main_compare(["modernbert", "sbert", "--storage-path", table.storage_path]) == 0
    assert "the runs of modernbert, lr 8e-5, batch 32 answered different sentences" in capsys.readouterr().out
    assert "no predictions on the single sentences that can be used were stored" in board(table)


# ---- seeds


def test_unequal_seeds_are_ranked_together_and_the_smaller_search_needs_no_correction(table: ResultsTable) -> None:
    for seed in range(5):
        put(table, "modernbert", seed, LABEL, noisy(LABEL, 0.97, seed))
    for seed, rate in ((0, 8e-5), (1, 8e-5), (2, 4e-5)):
        put(table, "sbert", seed, LABEL, noisy(LABEL, 0.80, 20 + seed), learning_rate=rate)
    study = read(table)[0]
    said = " ".join(verdict.sentences(study))
    assert "modernbert wins" in said
    assert "the best of 1 against the best of 2)" in said
    assert "corrected for the larger search" not in said
    assert "Configurations have different numbers of seeds" in " ".join(limits.not_measured(study))


def test_one_collapsed_run_of_one_seed_does_not_void_what_is_known_of_the_others(table: ResultsTable) -> None:
    for seed, rate in itertools.product(range(3), (4e-5, 8e-5)):
        put(table, "sbert", seed, LABEL, noisy(LABEL, 0.95 if rate == 8e-5 else 0.80, seed), learning_rate=rate)
    put(table, "sbert", 0, LABEL, np.ones(400, dtype=int), learning_rate=1e-2)
    study = read(table)[0]
    assert study.bests is not None
    assert {c.setting("learning_rate") for c in study.bests.configurations} == {8e-5, 1e-2}  # it may be bad luck
    assert study.bests.not_known == 1
    assert "1 ok (1 collapsed)" in board(table)


def test_a_search_that_holds_a_single_seed_names_it(table: ResultsTable) -> None:
    for seed, (model, share) in itertools.product(range(3), (("modernbert", 0.95), ("sbert", 0.80))):
        put(table, model, seed, LABEL, noisy(LABEL, share, seed))
    put(table, "modernbert", 0, LABEL, np.ones(400, dtype=int), learning_rate=1e-2)
    said = " ".join(verdict.sentences(read(table)[0]))
    assert "but one seed of modernbert, lr 0.01, batch 32 does not tell how much seeds vary" in said


def test_collapse_is_told_from_hard_data(table: ResultsTable) -> None:
    rare = (np.arange(600) % 20 == 0).astype(int)
    for seed in range(2):
        found_half = np.where((rare == 1) & (np.arange(600) % 40 == 0), 0, rare)
        put(table, "modernbert", seed, rare, found_half)  # 97.5 %, close to the majority share of 95 %, yet it learned
        put(table, "sbert", seed, rare, np.zeros(600, dtype=int))
    study = read(table)[0]
    assert [study.on_dev.num_collapsed(c) for c in study.best_per_model] == [0, 2]


def test_of_one_class_alone_nothing_is_called_collapsed(table: ResultsTable) -> None:
    study = two(table, np.ones(200, dtype=int), (0.95, 0.90), num_seeds=2)
    assert "collapsed" not in " ".join(verdict.sentences(study))


# ---- sentences


@pytest.mark.parametrize("num", [10, 400])
@pytest.mark.parametrize("metric", ["accuracy", "f1", "mcc", "loss"])
def test_equal_answers_are_no_tie_on_few_sentences_in_any_metric(table: ResultsTable, num: int, metric: str) -> None:
    label = np.arange(num) % 2
    for seed, model in itertools.product(range(3), ("modernbert", "sbert")):
        put(table, model, seed, label, label)
    study = read(table)[0]
    a, b = study.best_per_model
    margin = {"mcc": 0.01, "loss": 0.01}.get(metric, 0.005)
    found = compare(a, b, study.on_dev, metric=metric, margin=margin)
    assert found.verdict is (Verdict.TIE if num == 400 else Verdict.NOT_DECIDED)


def test_no_interval_leaves_the_range_of_its_metric(table: ResultsTable) -> None:
    label = np.array([1, 0])
    for seed in range(2):
        put(table, "modernbert", seed, label, label)
        put(table, "sbert", seed, label, np.zeros(2, dtype=int))
    study = read(table)[0]
    a, b = study.best_per_model
    for metric, widest in (("accuracy", 1), ("f1", 1), ("mcc", 2)):
        found = compare(a, b, study.on_dev, metric=metric)
        assert found.verdict is Verdict.NOT_DECIDED, metric
        assert found.estimate is not None
        assert max(abs(found.estimate.interval.low), abs(found.estimate.interval.high)) <= widest
        one = study.on_dev.estimate(b, metric)
        assert one is not None and one.interval.low >= (-1 if metric == "mcc" else 0) and one.interval.high <= 1


def test_a_perfect_score_has_an_interval(table: ResultsTable) -> None:
    study = two(table, LABEL, (1.0, 0.9), num_seeds=2, chosen_by="f1")
    estimate = study.on_dev.estimate(study.best_per_model[0], "f1")
    assert estimate is not None
    assert (estimate.interval.low < 1, estimate.interval.high) == (True, 1)


def test_different_dev_sets_of_one_name_are_not_compared(table: ResultsTable) -> None:
    for seed in range(2):
        put(table, "modernbert", seed, LABEL, noisy(LABEL, 0.95, seed))
        put(table, "sbert", seed, LABEL[:300], noisy(LABEL[:300], 0.80, seed))
    study = read(table)[0]
    assert study.comparisons[0].winner is None
    assert "they were scored on different sentences" in " ".join(verdict.sentences(study))


# ---- two studies in one storage


def test_a_configuration_that_diverged_on_other_data_keeps_its_place(table: ResultsTable) -> None:
    for seed, (data, share) in itertools.product(range(2), (("aa", 0.95), ("bb", 0.80))):
        for model, less in (("modernbert", 0.0), ("sbert", 0.1)):
            put(
                table, model, seed, LABEL, noisy(LABEL, share - less, seed), data_fingerprint=data, eval_split=f"{data} dev",
                experiment=data,
            )  # fmt: skip
    put(
        table, "modernbert", 9, LABEL, None, data_fingerprint="bb", eval_split="bb dev", experiment="bb", status="failed",
        failure_class="non_finite",
    )  # fmt: skip
    found = {study.title: study for study in read(table)}
    assert set(found) == {"aa dev", "bb dev"}
    assert found["aa dev"].main is not None and found["aa dev"].main.best.setting("model") == "modernbert"
    assert found["bb dev"].main is not None and found["bb dev"].main.best.setting("model") == "sbert"
    rows = leaderboard.load(table, where=None, sort=None, experiment=None).to_pylist()
    assert [(r["eval_split"], r["model"]) for r in rows if r["rank"] == 1] == [
        ("aa dev", "modernbert"),
        ("bb dev", "sbert"),
    ]


@pytest.mark.slow
def test_more_than_two_hundred_configurations_say_which_were_not_read(table: ResultsTable) -> None:
    few = np.arange(20) % 2
    for number in range(203):
        put(table, "sbert", 0, few, noisy(few, 0.8, number), learning_rate=1e-5 * (number + 1))
    said = " ".join(limits.not_measured(read(table)[0]))
    assert "The predictions of 3 of 203 configurations were not read, for only those of the best 200 are: no" in said


# ---- metrics, classes, searches


@pytest.mark.parametrize("by", ["f1", "mcc", "loss", "auroc"])
def test_the_verdict_is_in_the_metric_that_was_chosen_by(table: ResultsTable, by: str) -> None:
    study = two(table, LABEL, (0.97, 0.80), chosen_by=by)
    (found,) = study.comparisons
    assert found.metric == by
    assert found.winner is not None and found.winner.setting("model") == "modernbert"
    assert verdict.headline(study).startswith("modernbert beats sbert by ")


def test_five_classes_are_compared_in_all_that_is_stored(
    table: ResultsTable, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.arange(500) % 5
    two(table, label, (0.95, 0.80), probability=np.full(500, 0.8))
    assert main_compare(["modernbert", "sbert", "--storage-path", table.storage_path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert [found[m]["winner"] for m in ("accuracy", "f1", "mcc")] == ["a"] * 3
    assert found["loss"]["why"] == "not decided: of more than two classes the loss on single sentences is not stored"


@pytest.mark.parametrize("metric", ["accuracy", "f1", "mcc", "loss"])
def test_every_metric_is_corrected_for_the_larger_search(metric: str) -> None:
    world = World(4)
    right = [*world.model([0.945] * 15, 3), world.model([0.93], 3)[0]]
    members = [configuration(f"c{i}", x, model="m" if i < 15 else "s") for i, x in enumerate(right)]
    found = evidence(list(zip(members, right, strict=True)))
    best = max(members[:15], key=lambda c: np.mean(c.metric("best_dev_accuracy") or []))
    searched = (members[:15], members[15:])

    def judged(**options: object) -> Comparison:
        return compare(best, members[15], found, metric=metric, **options)  # type: ignore[arg-type]

    plain, corrected = judged(), judged(searched=searched)
    assert plain.p_value is not None and corrected.p_value is not None
    assert corrected.p_value > plain.p_value
    # Whichever comes first, the larger search is the one that is ahead.
    turned = compare(members[15], best, found, metric=metric, searched=searched[::-1])
    assert turned.p_value is not None and turned.p_value > plain.p_value


# ---- less evidence never makes a stronger verdict

STRENGTH = {Verdict.NOT_DECIDED: 0, Verdict.TIE: 1, Verdict.WIN: 2}


def strengths(table: ResultsTable) -> list[int]:
    """Return the strength of every verdict of a report, by the models that it is on, and of who cannot be the best."""
    study = read(table)[0]
    moments = study.head_to_head.moments if study.head_to_head else ()
    compared = [*study.comparisons, *(row.comparison for m in moments for row in m.rows if row.comparison)]
    assert study.bests is not None and study.main is not None
    may_be = {c.configuration_id for c in study.bests.configurations}
    out = [int(c.configuration_id not in may_be) for c in study.main.configurations]
    return [*(STRENGTH[c.verdict] for c in compared), *out]


def random_study(table: ResultsTable, rng: np.random.Generator) -> None:
    world, held_out = World(int(rng.integers(1000)), num_sentences=int(rng.integers(60, 200))), bool(rng.integers(2))
    label = np.arange(world.num_sentences) % 2
    for model in ("modernbert", "sbert", "sbert-mini")[: int(rng.integers(2, 4))]:
        rates, num_seeds = [2e-5 * 2**i for i in range(int(rng.integers(1, 4)))], int(rng.integers(1, 4))
        accuracies = 0.93 - rng.exponential(0.03, len(rates))
        for right, other, rate in zip(
            world.model(accuracies, num_seeds), world.model(accuracies, num_seeds), rates, strict=True
        ):
            for seed in range(num_seeds):
                answers, elsewhere = (np.where(x[seed], label, 1 - label) for x in (right, other))
                put(table, model, seed, label, answers, held_out=elsewhere if held_out else None, learning_rate=rate)


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 30))])
def test_leaving_out_any_one_predictions_file_never_raises_a_verdict(
    table: ResultsTable, tmp_path: Path, seed: int
) -> None:
    random_study(table, np.random.default_rng(seed))
    before = strengths(table)
    files = sorted((tmp_path / "runs" / "results" / "predictions").glob("*.parquet"))
    assert files
    for file in files:
        hidden = file.rename(tmp_path / file.name)
        after = strengths(table)
        hidden.rename(file)
        assert all(y <= x for x, y in zip(before, after, strict=True)), file.name


def test_what_was_chosen_on_a_held_out_part_is_judged_there_too(table: ResultsTable) -> None:
    for seed, (model, share) in itertools.product(range(3), (("modernbert", 0.95), ("sbert", 0.80))):
        answers = noisy(LABEL, share, seed)
        put(table, model, seed, LABEL, answers, held_out=noisy(LABEL, share, 50 + seed))
        put(table, model, seed, LABEL, None, held_out=np.ones(400, dtype=int), learning_rate=1e-2)
    study = read(table)[0]
    assert study.head_to_head is not None
    rows = {row.metric: row.comparison for row in study.head_to_head.moments[0].rows}
    assert {m for m, c in rows.items() if c and c.winner is study.head_to_head.modernbert} == {"accuracy", "f1", "loss"}
    assert board(table).count("3 ok (3 collapsed)") == 2
