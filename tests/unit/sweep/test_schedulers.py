"""Tests of who is stopped on the first seed: by halving, by the median, never for noise, never twice."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.sweep.schedulers import EarlyStopping, Evaluation, noise

MODEL = "sbert-minilm"


def config(scheduler: str, *, evaluations: int = 9, reduction_factor: int = 3) -> SweepConfig:
    base = TrainConfig(evaluations_per_epoch=evaluations)
    return SweepConfig(scheduler=scheduler, epochs=(1,), reduction_factor=reduction_factor, base=base)


def at(trial: str, number: int, accuracy: float, *, num_rows: int = 100_000, model: str = MODEL) -> Evaluation:
    return Evaluation(trial_id=trial, model=model, number=number, score=accuracy, num_rows=num_rows)


def test_halving_stops_what_is_not_among_the_best_of_its_rung() -> None:
    rule = EarlyStopping(config("asha"))
    decisions = {name: rule.decide(at(name, 1, accuracy)) for name, accuracy in (("a", 0.8), ("b", 0.7), ("c", 0.9))}
    assert decisions == {"a": False, "b": True, "c": False}


def test_halving_decides_at_its_rungs_only() -> None:
    rule = EarlyStopping(config("asha"))
    for number in (1, 2, 3):
        assert not rule.decide(at("good", number, 0.9))
    assert not rule.decide(at("bad", 1, 0.9))
    assert not rule.decide(at("bad", 2, 0.5))
    assert rule.decide(at("bad", 3, 0.5))


def test_the_median_rule_stops_what_never_reached_the_average_of_the_others() -> None:
    rule = EarlyStopping(config("median"))
    for name in "abc":
        assert not rule.decide(at(name, 1, 0.9))
    assert rule.decide(at("bad", 1, 0.5))
    assert not rule.decide(at("good", 1, 0.95))


def test_the_median_rule_needs_three_others() -> None:
    rule = EarlyStopping(config("median"))
    assert not any(rule.decide(at(name, 1, accuracy)) for name, accuracy in (("a", 0.9), ("b", 0.9), ("c", 0.5)))


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_stopped_trial_is_never_asked_again(scheduler: str) -> None:
    rule = EarlyStopping(config(scheduler))
    for name in "abc":
        for number in (1, 2, 3):
            rule.decide(at(name, number, 0.9))
    assert rule.decide(at("bad", 1, 0.5))
    assert not rule.decide(at("bad", 1, 0.5))
    assert not rule.decide(at("bad", 3, 0.5))


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_what_an_earlier_session_decided_stands(scheduler: str) -> None:
    past = [at(name, 1, 0.9) for name in "abc"] + [at("bad", 1, 0.5)]
    rule = EarlyStopping(config(scheduler), past)
    assert not rule.decide(at("bad", 1, 0.5))  # it went on then, and reports again from its checkpoint
    assert rule.decide(at("new", 1, 0.5))


@pytest.mark.parametrize(("error", "stops"), [(0.02, True), (0.3, False)])
def test_another_metric_brings_its_own_noise(error: float, stops: bool) -> None:
    """A gap of 0.3 is more than the noise of a difference of two scores with an error of 0.02, not of 0.3."""
    base = TrainConfig(evaluations_per_epoch=9, choose_by="mcc")
    rule = EarlyStopping(SweepConfig(scheduler="asha", epochs=(1,), base=base))
    key = {"model": MODEL, "number": 1, "num_rows": 100, "error": error}
    for name, score in (("a", 0.6), ("b", 0.55), ("c", 0.5)):
        rule.decide(Evaluation(trial_id=name, score=score, **key))
    assert rule.decide(Evaluation(trial_id="bad", score=0.25, **key)) is stops


def test_a_trial_that_failed_is_worse_than_any_that_did_not() -> None:
    """A correlation may be below 0, and a loss with its sign turned always is."""
    for metric, score in (("mcc", -0.4), ("loss", -3.0)):
        base = TrainConfig(evaluations_per_epoch=9, choose_by=metric)
        rule = EarlyStopping(SweepConfig(scheduler="median", epochs=(1,), base=base))
        for name in "abc":
            rule.record_failure(name, MODEL)
        assert not rule.decide(Evaluation(trial_id="d", model=MODEL, number=1, score=score, num_rows=100, error=0.01))


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_models_are_decided_apart(scheduler: str) -> None:
    rule = EarlyStopping(config(scheduler), [at(name, 1, 0.9) for name in "abc"])
    assert not rule.decide(at("other", 1, 0.5, model="modernbert-mini"))


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_nothing_is_stopped_at_its_last_evaluation(scheduler: str) -> None:
    sweep = config(scheduler, evaluations=3)
    rule = EarlyStopping(sweep, [at(name, n, 0.9) for name in "abc" for n in (1, 2, 3)])
    assert not rule.decide(at("bad", 3, 0.5))


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_what_is_behind_by_noise_goes_on(scheduler: str) -> None:
    past = [at(name, 1, 0.94, num_rows=872) for name in "abc"]
    assert noise(0.94, 0.94, 872) == pytest.approx(0.0115, abs=1e-3)
    assert not EarlyStopping(config(scheduler), past).decide(at("close", 1, 0.93, num_rows=872))
    assert EarlyStopping(config(scheduler), past).decide(at("behind", 1, 0.92, num_rows=872))


def test_perfect_accuracies_have_noise_as_well() -> None:
    assert noise(1.0, 1.0, 8) > 0.1


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_configuration_that_failed_for_good_is_the_worst(scheduler: str) -> None:
    rule = EarlyStopping(config(scheduler))
    for name in "abc":
        rule.record_failure(name, MODEL)
    assert not rule.decide(at("poor", 1, 0.5))


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_curve_that_is_not_a_number_counts_as_the_worst(scheduler: str) -> None:
    rule = EarlyStopping(config(scheduler), [at(name, 1, 0.9) for name in "abc"])
    assert rule.decide(at("nan", 1, float("nan")))


def halving(seed: int, *, guarded: bool) -> tuple[bool, float]:
    """Run a halving sweep of 15 configurations 0.1 to 1 point apart, each evaluation on 872 sentences of its own.

    Returns whether the truly best was stopped, and the share of the grid's evaluations that was used.
    """
    draw = random.Random(seed)
    truth = [0.94]
    while len(truth) < 15:
        truth.append(truth[-1] - draw.uniform(0.001, 0.01))
    draw.shuffle(truth)
    rule = EarlyStopping(config("asha"))
    used, stopped = 0, set()
    for trial, true in enumerate(truth):
        for number in range(1, 10):
            used += 1
            accuracy = sum(draw.random() < true for _ in range(872)) / 872
            if rule.decide(at(str(trial), number, accuracy, num_rows=872 if guarded else 10**9)):
                stopped.add(true)
                break
    return max(truth) in stopped, used / (9 * len(truth))


def test_a_margin_of_noise_keeps_the_best_and_still_saves_evaluations() -> None:
    with_margin = [halving(seed, guarded=True) for seed in range(40)]
    without = [halving(seed, guarded=False) for seed in range(40)]
    assert mean(stopped for stopped, _ in with_margin) <= 0.5 * mean(stopped for stopped, _ in without)
    assert mean(share for _, share in with_margin) < 0.6
