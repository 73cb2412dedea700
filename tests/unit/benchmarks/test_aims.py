"""Tests of the aims' values, and of what the benchmarks that they read compute."""

from __future__ import annotations

import datetime as dt

import pytest

from benchmarks import goodput, sweep_before, throughput
from benchmarks.aims import AIMS, aims
from benchmarks.values import Ratio, after_lost_nodes, faster_sweep, leaderboard


def test_what_nobody_measured_is_said_to_be_missing_and_not_counted() -> None:
    lines = aims({})
    assert lines[0] == f"This project's own aims: 0 of {len(AIMS)} reached."
    assert sum(line.endswith("| not measured | |") for line in lines) == len(AIMS)


def loss(*, found_s: float) -> dict[str, float]:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    killed = at.timestamp()
    return goodput.loss_of(
        {"killed_at": killed, "found_at": killed + found_s},
        {"ended_at": at + dt.timedelta(seconds=11)},
        {"started_at": at + dt.timedelta(seconds=12), "startup_seconds": 3.0},
    )


def test_a_lost_node_costs_what_comes_after_ray_s_detection_if_the_attempt_waited_for_it() -> None:
    waited = {"found_s": 10.0, "ended_s": 11.0, "first_step_s": 15.0, "beyond_s": 5.0}
    assert loss(found_s=10.0) == pytest.approx(waited)
    assert loss(found_s=14.0)["beyond_s"] == pytest.approx(15.0)
    runs = [
        {"name": "undisturbed-0", "losses": []},
        {"name": "killed-0", "losses": [waited, {**waited, "beyond_s": 7.0}]},
    ]
    assert after_lost_nodes({"goodput-node.json": {"runs": runs}}) == 7.0
    assert goodput.losses_table(runs).splitlines()[-1] == "| killed-0 | 10.0 | 11.0 | 15.0 | 7.0 |"
    assert goodput.losses_table(runs[:1]) == ""


def test_the_faster_of_two_sweeps_is_more_than_once_as_fast() -> None:
    run = {"steps_s": 30.0, "evaluation_s": 5.0}
    figures = {
        "before": "0123456", "seconds": {"before": [90.0, 80.0, 100.0], "now": [60.0]},
        "runs": {"before": [run] * 3, "now": [run]},
    }  # fmt: skip
    assert faster_sweep({"sweep-before.json": figures}) == 1.5
    assert sweep_before.table(figures).splitlines()[-2:] == [
        "| commit 0123456 | 90.0 | 80.0 to 100.0 | 30.0 | 5.0 | 1.00 |",
        "| this commit | 60.0 | 60.0 to 60.0 | 30.0 | 5.0 | 1.50 |",
    ]


def test_the_leaderboard_counts_as_runs_leave_the_table() -> None:
    figures = {"merged": [{"seconds": 2.0}, {"seconds": 9.0}, {"seconds": 3.0}], "after": [{"seconds": 1.0}]}
    assert leaderboard({"results_table.json": figures}) == 3.0


def test_a_table_without_avx512_says_so_and_its_ratio_is_of_its_own_file() -> None:
    figures = {
        "batch_size": 64, "num_threads": 2, "chip": "a chip", "bf16": False, "like_avx2": True, "matmul_flops": [2e11],
        "examples_per_sec": {"main-job": [60.0], "trainer-grouped": [40.0]},
    }  # fmt: skip
    assert throughput.table(figures).startswith("Batch 64, 2 threads, a chip, fp32, AVX512 switched off, ")
    assert Ratio("throughput-64-avx2.json", "main-job", "trainer-grouped")({"throughput-64-avx2.json": figures}) == 1.5
