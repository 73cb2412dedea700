"""Deduplication on reading: which row counts when restarts and interrupted attempts wrote several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray.records import Status
from sst2_ray.results.store.schema import KEYS

ORDER_COLUMNS: dict[str, tuple[str, ...]] = {
    "trials": ("status", "written_at"),
    "epochs": ("written_at",),
    "predictions": (),
}
"""Columns that decide between rows with the same key; among equals, the row in the later file counts."""

_POSITION = "__position"
_TRIAL = ("experiment", "trial_id")


def deduplicate(dataset: str, table: pa.Table) -> pa.Table:
    """Keep one row per key of `KEYS[dataset]`.

    A trial's end row counts before its start row (status running), then the later `written_at`, then the row further down
    in the table, which is in the order of writing.
    """
    ordered = _in_order(dataset, table)
    keys = list(KEYS[dataset])
    last = _numbered(ordered, keys).group_by(keys).aggregate([(_POSITION, "max")])
    if last.num_rows == ordered.num_rows:
        return ordered
    return ordered.take(last.column(f"{_POSITION}_max").sort())


def latest_attempts(dataset: str, table: pa.Table) -> pa.Table:
    """Reduce a deduplicated table to one history per trial.

    trials: the row of the latest attempt. epochs: an attempt's points up to the first point of a later attempt, which
    resumed from an earlier checkpoint. predictions: per split, those of the latest attempt that has any, and of these the
    model with the most optimizer steps.
    """
    if dataset == "epochs":
        return _without_overtaken(table)
    table = _with_largest(table, "attempt", per=_TRIAL)
    if dataset == "predictions":
        table = _with_largest(table, "global_step", per=(*_TRIAL, "split"))
    return table


def with_totals(latest: pa.Table, every: pa.Table) -> pa.Table:
    """Give the latest attempts of trials the `seconds` and the `cost_usd` of all attempts, as far as the table has them.

    For reading only: rows that are written again keep what their own attempt took.
    """
    names = [name for name in ("seconds", "cost_usd") if name in latest.column_names]
    if not names or latest.num_rows == every.num_rows:
        return latest
    sums = every.group_by(list(_TRIAL)).aggregate([(name, "sum") for name in names])
    joined = _numbered(latest, _TRIAL).join(sums, keys=list(_TRIAL)).sort_by(_POSITION)
    for name in names:
        place = latest.schema.get_field_index(name)
        latest = latest.set_column(place, latest.schema.field(name), joined.column(f"{name}_sum"))
    return latest


def _with_largest(table: pa.Table, column: str, *, per: Sequence[str]) -> pa.Table:
    """Keep the rows with the largest value of a column in their group."""
    largest = table.group_by(list(per)).aggregate([(column, "max")])
    if largest.num_rows == table.num_rows:
        return table
    joined = _numbered(table, [*per, column]).join(largest, keys=list(per), join_type="inner")
    kept = joined.filter(pc.field(column) == pc.field(f"{column}_max")).column(_POSITION)
    return table.take(kept.sort())


def _without_overtaken(table: pa.Table) -> pa.Table:
    """Drop rows at or after the first row of a later attempt of the trial in the same split."""
    key = [*_TRIAL, "split"]
    starts = table.group_by([*key, "attempt"]).aggregate([("global_step", "min")])
    if starts.num_rows == starts.group_by(key).aggregate([]).num_rows:
        return table  # nothing was restarted
    # A trial has few attempts, so every row is joined with the first step of each of them.
    starts = starts.rename_columns({"attempt": "other_attempt", "global_step_min": "other_start"})
    pairs = _numbered(table, [*key, "attempt", "global_step"]).join(starts, keys=key, join_type="inner")
    overtaken = pairs.filter(
        (pc.field("other_attempt") > pc.field("attempt")) & (pc.field("other_start") <= pc.field("global_step"))
    )
    keep = np.ones(table.num_rows, dtype=bool)
    keep[overtaken.column(_POSITION).to_numpy()] = False
    return table.filter(pa.array(keep))


def _in_order(dataset: str, table: pa.Table) -> pa.Table:
    """Sort rows so that those that count more come later; equal rows keep their order."""
    if not ORDER_COLUMNS[dataset]:
        return table
    order = _numbered(table, ORDER_COLUMNS[dataset])
    if dataset == "trials":
        ended = pc.not_equal(order.column("status"), Status.RUNNING).cast(pa.int8())
        order = order.set_column(0, "status", ended)
    keys = [(name, "ascending", "at_start") for name in order.column_names]
    return table.take(pc.sort_indices(order, sort_keys=keys))


def _numbered(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    return table.select(list(columns)).append_column(_POSITION, pa.array(np.arange(table.num_rows)))
