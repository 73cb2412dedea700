"""Tests of where the time of a trial's attempts went."""

from __future__ import annotations

import dataclasses

import pytest

from sst2_ray.records import TrialRecord
from sst2_ray.results.analysis.goodput import goodput, read_goodput
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import trial


def attempt(
    number: int, first: int | None, last: int | None, *, status: str = "failed", **values: float
) -> TrialRecord:
    """Make an attempt of 100 s: 10 s of start-up, 60 s of steps, 5 s of evaluation, 2 s of checkpoints."""
    times = {"seconds": 100.0, "startup_seconds": 10.0, "forward_seconds": 40.0, "backward_seconds": 20.0}
    times |= {"evaluation_seconds": 5.0, "checkpoint_seconds": 2.0}
    row = trial("t", experiment="e", attempt=number, status=status)
    return dataclasses.replace(row, first_global_step=first, last_global_step=last, **{**times, **values})


def test_an_undisturbed_run_counts_all_its_steps():
    found = goodput([attempt(0, 0, 600, status="succeeded")])
    assert (found.share, found.counted, found.repeated, found.num_lost_steps) == (0.6, 60.0, 0.0, 0)
    assert (found.startup, found.restarts, found.num_restarts) == (10.0, 0.0, 0)
    assert found.other == pytest.approx(23.0)
    assert found.words() == (
        "60.0 % of 2 min in steps that counted; start-up 10 s, evaluation 5.0 s, checkpoints 2.0 s, other 23 s"
    )


def test_steps_that_a_later_attempt_does_again_do_not_count():
    found = goodput([attempt(1, 500, 1100, status="succeeded"), attempt(0, 0, 600)])
    assert (found.num_restarts, found.num_lost_steps) == (1, 100)
    assert (found.counted, found.repeated) == (50.0 + 60.0, 10.0)
    assert (found.startup, found.restarts) == (10.0, 10.0)
    assert "1 restart 10 s, 100 steps done again 10 s" in found.words()


def test_a_checkpoint_that_was_damaged_costs_two_attempts():
    found = goodput([attempt(0, 0, 600), attempt(1, 500, 700), attempt(2, 300, 900, status="succeeded")])
    assert found.num_lost_steps == (600 - 300) + (700 - 500)


def test_an_attempt_without_a_step_is_a_restart_from_its_start_to_its_end():
    nothing = attempt(
        1, None, None, startup_seconds=None, forward_seconds=None, backward_seconds=None, evaluation_seconds=None,
        checkpoint_seconds=None,
    )  # fmt: skip
    found = goodput([attempt(0, 0, 600), nothing, attempt(2, 600, 800, status="succeeded")])
    assert (found.restarts, found.num_restarts, found.num_lost_steps) == (110.0, 2, 0)


def test_trials_are_added_up_and_old_rows_count_as_time_alone(tmp_path):
    old = dataclasses.replace(trial("old", experiment="e"), seconds=40.0)
    table = ResultsTable(str(tmp_path))
    table.write("trials", [attempt(0, 0, 600, status="succeeded"), old])
    found = read_goodput(table, "e")
    assert (found.wall, found.counted, found.startup) == (140.0, 60.0, 50.0)
    assert read_goodput(table, "another").share == 0
