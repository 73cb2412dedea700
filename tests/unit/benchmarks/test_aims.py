"""Tests of the aims' values, and of what the benchmarks that they read compute."""

from __future__ import annotations

from benchmarks.aims import AIMS, aims


def test_what_nobody_measured_is_said_to_be_missing_and_not_counted() -> None:
    lines = aims({})
    assert lines[0] == f"This project's own aims: 0 of {len(AIMS)} reached."
    assert sum(line.endswith("| not measured | |") for line in lines) == len(AIMS)
