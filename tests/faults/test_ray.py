"""Ray's own processes that die, on one machine: the run goes on, or ends in time and goes on when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from sst2_ray.run.environment import prepare_driver
from sst2_ray.run.failures import classify
from sst2_ray.run.liveness import RECONNECT_VARIABLE
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from tests.support.faults import TinyRun, pause_at, processes_of
from tests.support.waiting import waited

START_S, END_S = 180, 240
"""Seconds until a run reaches its fault, and until it has ended, on a machine that others use as well."""


def kill(process: subprocess.Popen[str], title: str) -> None:
    """The one process of that title below the command."""
    (found,) = processes_of(process.pid, title)
    os.kill(found, signal.SIGKILL)


def test_the_progress_actor_is_started_again_and_a_lost_train_controller_costs_an_attempt(undisturbed, tmp_path):
    marks = [tmp_path / "progress-actor", tmp_path / "controller"]
    run = TinyRun(undisturbed.folder, "controller-killed")
    with run.running([*pause_at(25, marks[0]), *pause_at(75, marks[1])]) as process:
        for mark, title in zip(marks, ("ray::ProgressActor", "ray::TrainController"), strict=True):
            waited(mark.exists, f"the step at which {title} is killed", START_S)
            kill(process, title)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=END_S)
    print(f"ended {time.monotonic() - begin:.1f} s after the controller was killed")
    assert process.returncode == 0, output
    assert [(row["status"], row["failure_class"]) for row in run.attempts()] == [
        ("failed", "worker_lost"),
        ("succeeded", None),
    ]
    # Of both evaluations the user was told, of the first by the actor that had been started again.
    assert "epoch 1  step 60" in output
    assert "epoch 2  step 120" in output
    assert run.digest() == undisturbed.digest()
    assert run.curve() == undisturbed.curve()


def test_without_its_head_the_run_ends_in_order_and_goes_on_when_a_ray_runs_again(undisturbed, tmp_path):
    run, mark, patience_s = TinyRun(undisturbed.folder, "head-killed"), tmp_path / "head", 24
    with run.running(pause_at(35, mark), env={RECONNECT_VARIABLE: str(patience_s)}) as process:
        waited(mark.exists, "step 35", START_S)
        kill(process, "gcs_server")
        begin = time.monotonic()
        output, _ = process.communicate(timeout=END_S)
    print(f"ended {time.monotonic() - begin:.1f} s after the head was killed")
    assert process.returncode == 4, output
    assert "failed (worker_lost): Ray's head at" in output
    assert "the same command goes on from the newest checkpoint" in output
    assert time.monotonic() - begin < patience_s + 30
    storage = Storage.open(str(run.run_folder))
    assert [f"step-{step:08d}" for step in ckpt.committed_steps(storage)] == storage.list(ckpt.CHECKPOINT_FOLDER)
    ended = run.run()
    assert ended.code == 0, ended.output
    assert [(row["status"], row["failure_class"]) for row in run.attempts()] == [
        ("failed", "worker_lost"),
        ("succeeded", None),
    ]
    assert run.digest() == undisturbed.digest()
    assert run.curve() == undisturbed.curve()


class Sleeper:
    def sleep(self) -> None:
        time.sleep(60)


def test_what_rays_memory_monitor_kills_has_run_out_of_memory(monkeypatch):
    prepare_driver()
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # of the machine's memory: always exceeded
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    import ray
    from ray.train import WorkerGroupError

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(ray.exceptions.OutOfMemoryError) as caught:
            ray.get(ray.remote(Sleeper).remote().sleep.remote())
    finally:
        ray.shutdown()
    failure = classify(WorkerGroupError("training failed", {0: caught.value}))
    assert (failure.failure_class, failure.may_retry) == ("out_of_memory", True)
    assert "running low on memory" in failure.message
