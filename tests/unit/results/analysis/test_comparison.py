"""Every verdict, with the study that gives it and the words that it is said in."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sst2_ray.results.analysis import wording
from sst2_ray.results.analysis.comparison import Comparison, Verdict, compare, possible_bests, with_holm
from sst2_ray.results.analysis.evidence import Evidence, collect
from sst2_ray.results.analysis.ranking import Configuration, configurations
from sst2_ray.results.store import files
from sst2_ray.statistics.scores import f1, matthews
from tests.support.records import prediction, trial
from tests.support.worlds import World, configuration, evidence

Pair = tuple[Configuration, Configuration, Evidence]


def pair(
    accuracies: tuple[float, float], *, seeds: tuple[int, int] = (3, 3), seed: int = 1, **world_options: Any
) -> Pair:
    """Make a ModernBERT and an SBERT with these true accuracies."""
    world = World(seed, **world_options)
    right = [world.model([accuracy], num)[0] for accuracy, num in zip(accuracies, seeds, strict=True)]
    a, b = configuration("a", right[0], model="modernbert"), configuration("b", right[1], model="sbert")
    return a, b, evidence([(a, right[0]), (b, right[1])])


def shares(wrong_a: int, wrong_b: int, *, num_seeds: int = 3, num_sentences: int = 872) -> Pair:
    """Make two that get so many sentences wrong, the same under every seed, the worse one those of the better and more."""
    right = [np.tile(np.arange(num_sentences) >= wrong, (num_seeds, 1)) for wrong in (wrong_a, wrong_b)]
    a, b = configuration("a", right[0], model="modernbert"), configuration("b", right[1], model="sbert")
    return a, b, evidence([(a, right[0]), (b, right[1])])


def said(found: Comparison) -> str:
    return wording.verdict(found, (found.a.setting("model"), found.b.setting("model")))


def test_a_win() -> None:
    found = compare(*pair((0.95, 0.90)))
    assert found.verdict is Verdict.WIN
    assert found.winner is found.a
    assert said(found) == (
        "modernbert wins: 5.81 points more accuracy, 95 % interval +4.38 to +7.25 (p < 0.001; 3 seeds each, all on the "
        "same 872 sentences)"
    )


def test_a_win_of_the_second() -> None:
    found = compare(*pair((0.90, 0.95), seeds=(2, 3)))
    assert found.winner is found.b
    assert said(found).startswith("sbert wins: ")
    assert said(found).endswith("(p < 0.001; 2 seeds and 3 seeds, all on the same 872 sentences)")


def test_a_win_that_is_smaller_than_the_margin() -> None:
    found = compare(*shares(60, 66, num_sentences=3000))
    assert found.verdict is Verdict.WIN
    assert "a real difference, but smaller than the margin of 0.50 points" in said(found)


def test_a_tie() -> None:
    found = compare(*shares(52, 53))
    assert (found.verdict, found.winner) == (Verdict.TIE, None)
    assert said(found) == (
        "a tie: the difference is smaller than the margin of 0.50 points (90 % interval −0.07 to +0.30; 3 seeds each, all on "
        "the same 872 sentences)"
    )


def test_not_decided_says_what_would_decide_it() -> None:
    found = compare(*pair((0.94, 0.935), seed=0))
    assert found.verdict is Verdict.NOT_DECIDED
    assert said(found) == (
        "not decided: modernbert leads by 0.34 points, 95 % interval −0.81 to +1.50 (p = 0.56; 3 seeds each, all on the same "
        "872 sentences); a study of this size detects 1.65 points in four of five cases; to detect 0.50 points as often takes "
        "9,506 sentences; more seeds alone do not suffice"
    )


def test_not_decided_that_more_seeds_would_decide() -> None:
    found = compare(*pair((0.95, 0.92), seeds=(2, 2), seed=2, run_effect_points=3.0))
    assert found.verdict is Verdict.NOT_DECIDED
    assert re.search(r"to detect \d\.\d\d points as often takes \d+ seeds of each", said(found))


def test_not_decided_that_takes_both_more_seeds_and_more_sentences() -> None:
    assert said(compare(*pair((0.94, 0.935), seed=3))).endswith(
        "to detect 0.50 points as often takes more seeds and more sentences"
    )


def test_not_decided_though_the_same_design_would_mostly_decide_it() -> None:
    found = next(
        c for seed in range(99) if 0.005 < ((c := compare(*pair((0.95, 0.93), seed=seed))).p_value or 0) < 0.02
    )
    others = [compare(*_renamed(pair((0.94, 0.94), seed=s), f"x{s}")) for s in range(60)]
    corrected = with_holm([found, *others])[0]
    assert (found.verdict, corrected.verdict) == (Verdict.WIN, Verdict.NOT_DECIDED)
    assert "; the same study again would detect " in said(corrected)


def test_stored_sentences_of_one_only() -> None:
    a, b, found = pair((0.97, 0.80))
    without = Evidence(configurations=(a, b), samples={"a": found.samples["a"]}, split="dev")
    verdict = compare(a, b, without)
    assert (verdict.verdict, verdict.estimate) == (Verdict.NOT_DECIDED, None)
    assert (
        said(verdict)
        == "not decided: the predictions of sbert, lr 8e-5, batch 32 on the single sentences were not stored"
    )


def test_stored_sentences_of_neither() -> None:
    a, b, _ = pair((0.97, 0.80))
    verdict = compare(a, b, Evidence(configurations=(a, b), samples={}, split="dev"))
    assert said(verdict) == (
        "not decided: the predictions of modernbert, lr 8e-5, batch 32 and of sbert, lr 8e-5, batch 32 on the single sentences "
        "were not stored"
    )


def test_other_sentences() -> None:
    a, b, _ = pair((0.97, 0.80))
    other = evidence([(a, np.ones((3, 50), dtype=bool)), (b, np.ones((3, 60), dtype=bool))])
    assert said(compare(a, b, other)) == "not decided: they were scored on different sentences"


def test_one_seed_is_never_a_win() -> None:
    found = compare(*pair((0.97, 0.80), seeds=(1, 1)))
    assert found.verdict is Verdict.NOT_DECIDED
    assert said(found).startswith(
        "not decided: modernbert and sbert ran under one seed each, so how much seeds vary is not known; modernbert leads by "
        "17.32 points, 95 % interval +14.78 to +19.85 for new sentences only"
    )


def test_one_seed_of_a_model_whose_other_configurations_have_several_is_compared() -> None:
    world = World(3)
    right = [*world.model([0.95, 0.95], 3), world.model([0.85], 1)[0], *world.model([0.85], 3)]
    members = [configuration(str(i), x, model="modernbert" if i < 2 else "sbert") for i, x in enumerate(right)]
    found = compare(members[0], members[2], evidence(list(zip(members, right, strict=True))))
    assert found.verdict is Verdict.WIN
    assert "3 seeds and 1 seed, all on the same 872 sentences" in said(found)


def search(
    seed: int, *, num: int = 15, accuracy: float = 0.94, other: float = 0.94
) -> tuple[list[Configuration], Evidence]:
    """Make configurations of ModernBERT and, last, one of SBERT."""
    world = World(seed)
    right = [*world.model([accuracy] * num, 3), world.model([other], 3)[0]]
    members = [configuration(f"m{i}", x, model="modernbert") for i, x in enumerate(right[:-1])]
    members.append(configuration("s", right[-1], model="sbert"))
    return members, evidence(list(zip(members, right, strict=True)))


def test_the_best_of_many_is_corrected_for_the_search() -> None:
    members, found = search(4, accuracy=0.945, other=0.93)
    best = max(members[:-1], key=lambda c: c.summary("best_dev_accuracy").mean)  # type: ignore[union-attr]
    plain = compare(best, members[-1], found)
    corrected = compare(best, members[-1], found, searched=(members[:-1], members[-1:]))
    assert plain.p_value is not None
    assert corrected.p_value is not None
    assert corrected.p_value > plain.p_value
    assert corrected.estimate is not None
    assert plain.estimate is not None
    assert corrected.estimate.interval.low < plain.estimate.interval.low
    assert corrected.estimate.interval.high == plain.estimate.interval.high
    assert "the best of 15 against the best of 1, corrected for the larger search" in said(corrected)


def test_a_search_that_is_not_wholly_stored_is_never_a_win() -> None:
    members, found = search(5, accuracy=0.99, other=0.90)
    lacking = Evidence(
        configurations=found.configurations, samples={k: v for k, v in found.samples.items() if k != "m7"}, split="dev"
    )
    searched = (members[:-1], members[-1:])
    assert compare(members[0], members[-1], found, searched=searched).verdict is Verdict.WIN
    verdict = compare(members[0], members[-1], lacking, searched=searched)
    assert verdict.verdict is Verdict.NOT_DECIDED
    assert (
        "the predictions of 1 of 16 configurations on the single sentences were not stored, so it cannot be corrected"
        in said(verdict)
    )


def test_holm_corrects_the_verdicts_of_a_page() -> None:
    for seed in range(200):
        found = compare(*pair((0.95, 0.93), seed=seed))
        if found.p_value is not None and 0.01 < found.p_value < 0.05:
            break
    corrected = with_holm([found, *(compare(*_renamed(pair((0.94, 0.94), seed=s), f"x{s}")) for s in range(9))])[0]
    assert found.verdict is Verdict.WIN
    assert corrected.verdict is Verdict.NOT_DECIDED
    assert "after Holm's correction for 10 comparisons p = " in said(corrected)


def _renamed(found: Pair, name: str) -> Pair:
    stored = found[2]
    first = configuration(f"{name}-a", stored.samples["a"].correct, model="modernbert")
    second = configuration(f"{name}-b", stored.samples["b"].correct, model="sbert")
    return first, second, evidence([(first, stored.samples["a"].correct), (second, stored.samples["b"].correct)])


def test_comparisons_that_lack_their_sentences_count_in_holms_correction() -> None:
    a, b, found = pair((0.95, 0.93))
    lacking = compare(*pair((0.9, 0.9))[:2], Evidence(configurations=(a, b), samples={}, split="dev"), metric="f1")
    assert with_holm([compare(a, b, found), lacking])[0].num_tests == 2


def test_a_lower_loss_wins() -> None:
    a, b, found = pair((0.99, 0.80))
    verdict = compare(a, b, found, metric="loss", margin=0.01)
    assert verdict.winner is a
    assert "modernbert wins: " in said(verdict)
    assert "nats less loss" in said(verdict)


def test_metrics_that_name_different_winners_say_why() -> None:
    a, b, found = pair((0.99, 0.80))
    accuracy, loss = compare(a, b, found), compare(b, a, found, metric="loss", margin=0.01)
    assert wording.contradiction([accuracy, loss]) == ""
    flipped = dataclasses.replace(loss, a=a, b=b)  # as if the other had the lower loss
    assert wording.contradiction([accuracy, flipped]) == (
        "The metrics name different winners (accuracy modernbert, lr 8e-5, batch 32 and loss sbert, lr 8e-5, batch 32): "
        "accuracy counts right answers, F1 those of the positive class (of more than two classes, every class alike), MCC all "
        "classes alike, loss also how sure the model is of each answer."
    )


@pytest.mark.parametrize("metric", ["accuracy", "f1", "mcc", "loss"])
def test_every_metric_is_compared_in_its_unit(metric: str) -> None:
    found = compare(*pair((0.97, 0.85)), metric=metric)
    assert found.winner is found.a
    unit = {"accuracy": "points", "f1": "points", "mcc": "more MCC", "loss": "nats"}[metric]
    assert unit in said(found)


# ---- which may be the best


def test_one_alone_may_be_the_best() -> None:
    members, found = search(1, num=3, accuracy=0.85, other=0.97)
    bests = possible_bests(sorted(members, key=lambda c: -c.summary("best_dev_accuracy").mean), found)  # type: ignore[union-attr]
    assert bests is not None
    assert [c.configuration_id for c in bests.configurations] == ["s"]
    assert bests.verdict is Verdict.WIN


def test_whose_sentences_were_not_stored_may_be_the_best() -> None:
    members, found = search(1, num=3, accuracy=0.97, other=0.85)
    lacking = Evidence(
        configurations=found.configurations, samples={k: v for k, v in found.samples.items() if k != "s"}, split="dev"
    )
    bests = possible_bests(members, lacking)
    assert bests is not None
    assert bests.not_known == 1
    assert "s" in {c.configuration_id for c in bests.configurations}


def test_without_any_stored_sentences_all_may_be_the_best() -> None:
    members, _ = search(1, num=3)
    bests = possible_bests(members, Evidence(configurations=tuple(members), samples={}, split="dev"))
    assert bests is not None
    assert len(bests.configurations) == 4
    assert bests.reason


# ---- less evidence never makes a stronger verdict

STRENGTH = {Verdict.NOT_DECIDED: 0, Verdict.TIE: 1, Verdict.WIN: 2}


def verdicts(members: list[Configuration], found: Evidence) -> list[int]:
    """Return the strength of every verdict of a page: best against the other model's best, all others, and who may be the best."""
    ranked = sorted(members, key=lambda c: (-c.summary("best_dev_accuracy").mean, c.configuration_id))  # type: ignore[union-attr]
    by_model: dict[str, list[Configuration]] = {}
    for c in ranked:
        by_model.setdefault(c.setting("model"), []).append(c)
    a, b = by_model.values()
    compared = with_holm([
        compare(a[0], b[0], found, searched=(a, b)),
        *(compare(a[0], other, found) for other in ranked if other is not a[0]),
        compare(a[0], b[0], found, metric="f1"),
        compare(a[0], b[0], found, metric="loss", margin=0.01),
    ])  # fmt: skip
    bests = possible_bests(ranked, found)
    assert bests is not None
    may_be = {c.configuration_id for c in bests.configurations}
    return [*(STRENGTH[c.verdict] for c in compared), *(int(c.configuration_id not in may_be) for c in ranked)]


@pytest.mark.parametrize("seed", range(25))
def test_leaving_out_any_predictions_file_never_raises_a_verdict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = World(seed, num_sentences=int(rng.integers(100, 900)), run_effect_points=float(rng.choice([0, 0.4, 1])))
    sizes, num_seeds = rng.integers(1, 6, 2), int(rng.integers(1, 5))
    right = [
        *world.model(0.95 - rng.exponential(0.015, sizes[0]), num_seeds),
        *world.model(0.94 - rng.exponential(0.015, sizes[1]), num_seeds),
    ]
    members = [configuration(f"c{i}", x, model="m" if i < sizes[0] else "s") for i, x in enumerate(right)]
    whole = evidence(list(zip(members, right, strict=True)))
    before = verdicts(members, whole)
    for lost in members:
        samples = {k: v for k, v in whole.samples.items() if k != lost.configuration_id}
        after = verdicts(members, Evidence(configurations=whole.configurations, samples=samples, split="dev"))
        assert all(y <= x for x, y in zip(before, after, strict=True)), lost.configuration_id


# ---- from rows of the table

NUM_SENTENCES = 200


def stored(
    accuracies: dict[str, list[int]], change: Callable[[str, int], dict[str, object]] | None = None
) -> tuple[list[Configuration], pa.Table]:
    """Make trials and predictions with so many wrong sentences for each seed of each configuration."""
    trials, predictions = [], []
    for name, seed_wrongs in accuracies.items():
        for seed, wrong in enumerate(seed_wrongs):
            share = 1 - wrong / NUM_SENTENCES
            trials.append(
                trial(
                    f"{name}{seed}",
                    configuration_id=name,
                    model=name,
                    seed=seed,
                    best_dev_accuracy=share,
                    best_global_step=100,
                )
            )
            predictions += [
                prediction(
                    row, f"{name}{seed}", predicted=0 if row < wrong else 1, **(change(name, row) if change else {})
                )
                for row in range(NUM_SENTENCES)
            ]
    return configurations(files.records_to_table("trials", trials)), files.records_to_table("predictions", predictions)


def test_rows_of_the_table_become_samples() -> None:
    members, rows = stored({"a": [10, 12], "b": [40, 41]})
    found = collect(rows, members)
    assert {name: sample.correct.mean() for name, sample in found.samples.items()} == {"a": 0.945, "b": 0.7975}
    assert compare(*sorted(members, key=lambda c: c.configuration_id), found).verdict is Verdict.WIN


def test_of_more_than_two_classes_all_but_the_loss_is_compared() -> None:
    members, rows = stored({"a": [10, 12], "b": [40, 41]}, lambda _, row: {"label": 2 if row % 3 else 1})
    found = collect(rows, members)
    assert found.values(members[0], "accuracy") is not None
    for metric, score in (("f1", f1), ("mcc", matthews)):
        values, sample = found.values(members[0], metric), found.sample(members[0])
        assert values is not None and sample is not None
        assert values.mean(axis=1) == pytest.approx([score(sample.label, one) for one in sample.predicted])
    assert found.values(members[0], "loss") is None  # only the probability of the answer is stored
    loss = compare(members[0], members[1], found, metric="loss", margin=0.01)
    assert said(loss) == "not decided: of more than two classes the loss on single sentences is not stored"


def test_a_run_without_predictions_makes_its_configuration_missing() -> None:
    members, rows = stored({"a": [10, 12], "b": [40, 41]})
    mask = [row["trial_id"] != "a1" for row in rows.to_pylist()]
    assert set(collect(rows.filter(pa.array(mask)), members).samples) == {"b"}


def test_predictions_of_another_evaluation_than_the_best_do_not_count() -> None:
    members, rows = stored({"a": [10, 12]}, lambda *_: {"global_step": 200})
    assert collect(rows, members).samples == {}


def test_runs_that_answered_different_sentences_make_no_sample() -> None:
    members, rows = stored({"a": [10, 12]})
    assert collect(rows.slice(1), members).samples == {}


def test_seeds_that_did_not_learn_are_counted() -> None:
    world = World(1)
    right = world.model([0.94, 0.94], 3)
    right[1, 2] = np.arange(872) % 2 == 1  # one class only
    members = [configuration(f"c{i}", x) for i, x in enumerate(right)]
    found = evidence(list(zip(members, right, strict=True)))
    assert found.majority_share == 0.5
    assert [found.num_collapsed(c) for c in members] == [0, 1]
    assert found.variance(members[0]) != found.variance(members[1])  # it keeps its own


def test_the_seed_variance_is_pooled_over_a_model() -> None:
    right = World(1).model([0.94] * 6, 2)
    members = [configuration(f"c{i}", x, model="m" if i < 4 else "s") for i, x in enumerate(right)]
    found = evidence(list(zip(members, right, strict=True)))
    pools = [found.variance(c) for c in members]
    assert [p.degrees_of_freedom for p in pools if p] == [4, 4, 4, 4, 2, 2]
    assert all(a == b for a, b in itertools.pairwise(pools[:4]))
