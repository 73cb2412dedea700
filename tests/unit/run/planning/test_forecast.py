"""A forecast adds up, and is made from real steps on this machine."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError, RunFailedError
from sst2_ray.run.command import main
from sst2_ray.run.planning.forecast import START_S, Forecast, forecast
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import check
from sst2_ray.run.tokenizing import prepare
from sst2_ray.run.train import dry_run
from tests.support import models
from tests.support.reviews import reviews, write_glue_folder


def test_seconds_and_cost_add_up():
    run = Forecast(steps=1000, batch_size=64, seconds_per_step=0.5, evaluation_seconds=85, peak_memory_gib=1.25)
    assert run.seconds == START_S + 500 + 85
    rows = dict(run.rows(price_per_hour=6.0))
    assert rows["a step"].startswith("0.5 s, 128 examples/s")
    assert rows["in all"] == "10 min, evaluations 85 s of it, 1.00 USD"
    assert "USD" not in dict(run.rows(price_per_hour=None))["in all"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("forecast")
    data = write_glue_folder(folder / "data", reviews(50), reviews(10, topic="play"))
    model = models.modernbert_folder(folder / "model")
    return TrainConfig(
        model=str(model), data=str(data), batch_size=16, epochs=3, max_length=64, storage_path=str(folder / "runs")
    )


def test_two_workers_are_measured_on_this_machine(config):
    run = forecast(prepare(check(config)), Placement(num_workers=2, cpus_per_worker=1, use_gpu=False))
    assert run.steps == 12
    assert 0 < run.seconds_per_step < 30
    assert 0.2 < run.peak_memory_gib < 4
    assert run.evaluation_seconds > 0
    assert run.utilization is not None and 0 < run.utilization < 1
    assert dict(run.rows(None))["utilization"].endswith("% of matrix products")


def test_a_process_that_is_killed_ends_the_measurement_of_all(config):
    def kill() -> None:
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.1)
        time.sleep(1.0)
        max(multiprocessing.active_children(), key=lambda process: process.name).kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(RunFailedError, match="was killed, as the system does where memory is full"):
        forecast(prepare(check(config)), Placement(num_workers=2, cpus_per_worker=1, use_gpu=False))
    assert not multiprocessing.active_children()


def test_gpus_are_not_measured(config, monkeypatch):
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')  # Ray's own variable for what a machine has
    with pytest.raises(InputError, match="--calibrate: measures on this machine's CPUs only"):
        dry_run(config, calibrate=True)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--network-gbit-per-s", "10"], "give --dry-run with it"),
        (["--dry-run", "--network-gbit-per-s", "no"], "must be a number"),
        (["--dry-run", "--network-gbit-per-s", "0"], "must be a finite number above 0"),
    ],
)
def test_a_network_s_rate_belongs_to_a_plan(words, line):
    with pytest.raises(InputError, match=line):
        main(words)
