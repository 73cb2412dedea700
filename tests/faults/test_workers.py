"""Worker processes that die, on one machine: the run ends as the undisturbed one, bit for bit."""

from __future__ import annotations

import random

import pytest

from sst2_ray.training.faults import Fault
from tests.support.faults import STEPS, TinyRun

SEED = 20_26


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> TinyRun:
    run = TinyRun(tmp_path_factory.mktemp("faults"), "undisturbed")
    ended = run.run()
    assert ended.code == 0, ended.output
    return run


def test_killed_workers_cost_seconds_and_no_bit(undisturbed):
    draw = random.Random(SEED)
    steps = sorted(draw.sample(range(5, STEPS), 2))
    faults = [
        Fault(kind="kill", attempt=attempt, rank=draw.randrange(2), step=step) for attempt, step in enumerate(steps)
    ]
    print(f"seed {SEED}: {faults}")
    run = TinyRun(undisturbed.folder, "killed")
    ended = run.run(faults)
    assert ended.code == 0, ended.output
    assert [(row["status"], row["failure_class"]) for row in run.attempts()] == [
        ("failed", "worker_lost"),
        ("failed", "worker_lost"),
        ("succeeded", None),
    ]
    assert run.digest() == undisturbed.digest()
    assert run.curve() == undisturbed.curve()
