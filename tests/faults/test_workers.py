"""Worker processes that die or stop, on one machine: the run ends as the undisturbed one, bit for bit."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

from sst2_ray.training.fault_injection import Fault
from tests.support.faults import EVERY_STEPS, STEPS, TinyRun

SEED = 20_26
STEP_TIMEOUT_S = 10.0
FOUND_WITHIN_S = 6.0
"""After the time-out: the line travels, Ray sees a lost worker, and the row is written."""


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
    check_times(run.attempts())
    assert run.digest() == undisturbed.digest()
    assert run.curve() == undisturbed.curve()


def test_a_stopped_worker_and_a_collective_that_never_ends_are_found_named_and_survived(undisturbed, tmp_path):
    marks = [tmp_path / "stopped", tmp_path / "hung"]
    faults = [
        Fault(kind="stop", attempt=0, rank=1, step=33, path=str(marks[0])),
        # Where the other rank waits outside of a step: it evaluates.
        Fault(kind="hang", attempt=1, rank=1, step=STEPS // 2, path=str(marks[1])),
    ]
    run = TinyRun(undisturbed.folder, "hung", step_timeout_s=STEP_TIMEOUT_S)
    ended = run.run(faults)
    assert ended.code == 0, ended.output
    stopped, hung, last = run.attempts()
    assert [row["failure_class"] for row in (stopped, hung, last)] == ["hung", "hung", None]
    assert stopped["failure_message"].startswith("rank 1 was stopped or cannot be reached: last heard of at step ")
    assert hung["failure_message"] == f"rank 1 makes no progress at step {STEPS // 2}, in training"
    for row, mark in zip((stopped, hung), marks, strict=True):
        assert STEP_TIMEOUT_S - 1 < seconds_until_ended(row, mark) < STEP_TIMEOUT_S + FOUND_WITHIN_S
    assert run.digest() == undisturbed.digest()
    assert run.curve() == undisturbed.curve()
    # All threads' stacks: of who waits for the stopped rank, and of what the other one hangs in.
    assert "most recent call first" in run.log(0, 0)
    assert "in _inject" in run.log(1, 1)


def check_times(attempts: list[dict]) -> None:
    """An attempt begins at a checkpoint, and does again at least what the one before did after it."""
    *_, last = attempts
    assert [row["first_global_step"] % EVERY_STEPS for row in attempts] == [0, 0, 0]
    redone = [row["last_global_step"] - after["first_global_step"] for row, after in pairwise(attempts)]
    assert all(0 <= steps < STEPS for steps in redone)
    assert last["num_lost_steps"] == sum(redone)
    assert 0 < last["goodput"] < 1


def seconds_until_ended(row: dict, mark: Path) -> float:
    return row["ended_at"].timestamp() - mark.stat().st_mtime
