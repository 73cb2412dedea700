"""Columns and cells of the tables of runs and trials."""

from __future__ import annotations

from sst2_ray import formatting
from sst2_ray.tables import Column

TRIAL_COLUMNS = (
    Column(title="trial", align="left"),
    Column(title="attempt", rank=5),
    Column(title="status", rank=1, align="left"),
    Column(title="epoch", rank=3),
    Column(title="accuracy, %", rank=1),
    Column(title="time", rank=4),
    Column(title="cost", rank=6),
    Column(title="why", rank=1, align="left", min_width=16),
)

HELD_OUT = "* on the part of train that was held out"


def percent(fraction: float | None, *, held_out: bool = False) -> str:
    """Format an accuracy, with the mark of HELD_OUT, or nothing."""
    return f"{formatting.percent(fraction)}{'*' * held_out}" if fraction is not None else ""
