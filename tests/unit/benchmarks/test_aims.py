"""Tests of the aims' values, and of what the benchmarks that they read compute."""

from __future__ import annotations

from benchmarks import sweep_before, throughput
from benchmarks.aims import AIMS, aims
from benchmarks.values import Ratio, faster_sweep


def test_what_nobody_measured_is_said_to_be_missing_and_not_counted() -> None:
    lines = aims({})
    assert lines[0] == f"This project's own aims: 0 of {len(AIMS)} reached."
    assert sum(line.endswith("| not measured | |") for line in lines) == len(AIMS)


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


def test_a_table_without_avx512_says_so_and_its_ratio_is_of_its_own_file() -> None:
    figures = {
        "batch_size": 64, "num_threads": 2, "chip": "a chip", "bf16": False, "like_avx2": True, "matmul_flops": [2e11],
        "examples_per_sec": {"main-job": [60.0], "trainer-grouped": [40.0]},
    }  # fmt: skip
    assert throughput.table(figures).startswith("Batch 64, 2 threads, a chip, fp32, AVX512 switched off, ")
    assert Ratio("throughput-64-avx2.json", "main-job", "trainer-grouped")({"throughput-64-avx2.json": figures}) == 1.5
