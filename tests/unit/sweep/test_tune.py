"""Tests of what Tune is given, called and pickled as Tune does it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.tune.callback import CallbackList

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.records import EpochRecord
from sst2_ray.run.tracking.trackers import Trackers
from sst2_ray.storage import Storage
from sst2_ray.sweep.budget import Budget, Durations
from sst2_ray.sweep.configurations import TrialSpec, planned_configurations, trials_of
from sst2_ray.sweep.queue import Outcome, TrialQueue
from sst2_ray.sweep.schedulers import EarlyStopping, Evaluation
from sst2_ray.sweep.tune import FirstSeedScheduler, SweepSearcher, TrackingCallback

SWEEP = SweepConfig(scheduler="median", base=TrainConfig(evaluations_per_epoch=2), num_seeds=2)


def trial(position: int, *, seed: int = 0) -> SimpleNamespace:
    """Make a trial as Tune hands it to schedulers and callbacks."""
    return SimpleNamespace(config={"spec": trials_of(SWEEP, planned_configurations(SWEEP)[position])[seed]})


def evaluation(spec: TrialSpec, accuracy: float, number: int = 1) -> Evaluation:
    return Evaluation(trial_id=spec.trial_id, model=spec.config.model, number=number, score=accuracy, num_rows=100_000)


@pytest.fixture
def stopped() -> list[str]:
    return []


@pytest.fixture
def scheduler(stopped: list[str]) -> FirstSeedScheduler:
    """Make a scheduler of median stopping that has seen three good trials."""
    made = FirstSeedScheduler(EarlyStopping(SWEEP), stopped.append)
    for position in range(3):
        one = trial(position)
        made.on_trial_result(None, one, {"evaluation": evaluation(one.config["spec"], 0.9)})
    return made


def test_a_stopped_trial_may_report_again(scheduler: FirstSeedScheduler, stopped: list[str]) -> None:
    """The return value of a trial function reaches the scheduler as one more result."""
    bad = trial(3)
    for result in (
        {"evaluation": evaluation(bad.config["spec"], 0.5)},
        {"outcome": Outcome(status="early_stopped", score=0.5)},
    ):
        assert scheduler.on_trial_result(None, bad, result) == "CONTINUE"
    scheduler.on_trial_complete(None, bad, {"outcome": Outcome(status="early_stopped", score=0.5)})
    assert stopped == [bad.config["spec"].trial_id]


def test_other_seeds_are_never_stopped(scheduler: FirstSeedScheduler, stopped: list[str]) -> None:
    bad = trial(3, seed=1)
    scheduler.on_trial_result(None, bad, {"evaluation": evaluation(bad.config["spec"], 0.1)})
    assert stopped == []


@pytest.mark.parametrize(("failure_class", "is_stopped"), [("non_finite", False), ("worker_lost", True)])
def test_what_failed_for_good_is_the_worst_and_a_lost_worker_says_nothing(
    scheduler: FirstSeedScheduler, stopped: list[str], failure_class: str, is_stopped: bool
) -> None:
    """The others are three trials at 0.9 and three more that failed: their median is 0.45, or 0.9."""
    for name in "abc":
        failed = SimpleNamespace(config={"spec": dataclasses.replace(trial(3).config["spec"], trial_id=name)})
        outcome = Outcome(status="failed", score=None, failure_class=failure_class)
        scheduler.on_trial_complete(None, failed, {"outcome": outcome})
    poor = trial(4)
    scheduler.on_trial_result(None, poor, {"evaluation": evaluation(poor.config["spec"], 0.5)})
    assert bool(stopped) is is_stopped


def test_trackers_hear_of_a_trial_through_tune_s_callbacks(tmp_path: Path) -> None:
    one = trial(0)
    record = EpochRecord(
        experiment="e", trial_id="t", attempt=0, split="dev", global_step=7, epoch=0.5, dev_accuracy=0.9
    )
    with Trackers(("jsonl",), Storage.open(str(tmp_path)), "e", print) as trackers:
        callbacks = CallbackList([TrackingCallback(trackers)])
        info = {"iteration": 1, "trials": [one], "trial": one}
        callbacks.on_trial_start(**info)
        callbacks.on_trial_result(**info, result={"evaluation": evaluation(one.config["spec"], 0.9), "record": record})
        callbacks.on_trial_result(**info, result={"outcome": Outcome(status="succeeded", score=0.9)})
        callbacks.on_trial_complete(**info)
    events = [json.loads(line) for line in (tmp_path / "trackers" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "evaluation", "end"]
    assert events[0]["params"]["learning_rate"] == one.config["spec"].config.learning_rate
    assert events[2]["status"] == "succeeded"


def test_nothing_of_a_sweep_is_pickled_into_tune_s_folder(scheduler: FirstSeedScheduler, tmp_path: Path) -> None:
    searcher = SweepSearcher(
        TrialQueue(SWEEP),
        budget=Budget(hours=None, usd=None, price_per_hour=None, num_nodes=1),
        clock=SimpleNamespace(seconds=0.0),
        durations=Durations(1000),
        begun=(),
        on_change=lambda: None,
    )
    with Trackers(("jsonl",), Storage.open(str(tmp_path)), "e", print) as trackers:
        for given in (scheduler, searcher, TrackingCallback(trackers)):
            assert b"sst2_ray" not in cloudpickle.dumps(given)
