"""Sweeps in which something goes wrong: every failure is a row of its class, and the other trials do not notice."""

from __future__ import annotations

import json

import pytest

from tests.support.sweeps import Sweeps

OOM_STEP, KILL_STEP = 10, 20
"""Optimizer steps that only trials of batch 8 (16 steps) and of batch 4 (32 steps) reach."""


@pytest.mark.slow
def test_out_of_memory_is_tried_again_and_then_a_row(sweeps: Sweeps) -> None:
    faults = [{"kind": "oom", "attempt": attempt, "rank": 0, "step": OOM_STEP} for attempt in range(2)]
    common = ("--num-seeds", "1", "--max-retries", "1", "--keep-models", "9", "--checkpoint-every-steps", "4")
    words = ("--learning-rates", "1e-4", "--batch-sizes", "32", "8", *common)
    done = sweeps.run("failures", *words, env={"SST2_RAY_FAULTS": json.dumps(faults)})
    assert done.returncode == 4, done.stdout + done.stderr
    rows = {row["batch_size"]: row for row in sweeps.rows("failures").values()}
    assert (rows[32]["status"], rows[32]["attempt"]) == ("succeeded", 0)
    assert (rows[8]["status"], rows[8]["failure_class"], rows[8]["attempt"]) == ("failed", "out_of_memory", 1)
    assert "2 trials: 1 succeeded, 1 failed (1 out_of_memory)" in done.stdout


def test_a_killed_worker_and_a_loss_that_is_not_finite(sweeps: Sweeps) -> None:
    faults = [{"kind": "kill", "attempt": 0, "rank": 0, "step": KILL_STEP}]
    words = ("--learning-rates", "1e-4", "1e30", "--batch-sizes", "32", "4", "--num-seeds", "1")
    done = sweeps.run("nan", *words, env={"SST2_RAY_FAULTS": json.dumps(faults)})
    assert done.returncode == 4, done.stdout + done.stderr
    rows = {(row["learning_rate"], row["batch_size"]): row for row in sweeps.rows("nan").values()}
    for batch_size in (32, 4):
        bad = rows[1e30, batch_size]
        assert (bad["status"], bad["failure_class"], bad["attempt"]) == ("failed", "non_finite", 0)
    killed = rows[1e-4, 4]
    assert (killed["status"], killed["attempt"]) == ("succeeded", 1)
    assert killed["last_global_step"] == 32
