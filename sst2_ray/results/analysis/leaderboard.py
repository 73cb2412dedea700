"""The leaderboard: a table in the terminal, Markdown, CSV or JSON."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
from rich.console import Console

from sst2_ray import formatting, tables
from sst2_ray.config.metrics import METRIC_NAMES, shown
from sst2_ray.records import Status
from sst2_ray.results.analysis import evidence, wording
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.ranking import model_label, rank
from sst2_ray.results.store import query
from sst2_ray.results.store.schema import arrow_schema
from sst2_ray.results.store.table import ResultsTable

Row = dict[str, Any]
_MODEL_WIDTH = 15
_SEEDS = "seeds and sentences"


@dataclass(frozen=True, kw_only=True)
class _Column:
    title: str
    cell: Callable[[Row], str]
    right: bool = True
    rank: int = 0
    """Order of omission in a narrow terminal, the highest number first; 0: identifies the row, always shown."""


def load(table: ResultsTable, *, where: str | None, sort: str | None, experiment: str | None) -> pa.Table:
    """Read a table's leaderboard: `query.leaderboard` with the columns that `with_intervals` adds.

    Args:
        table: The results table.
        where: SQL expression over the columns of `trials`; everything in the leaderboard is of the trials that match.
        sort: SQL expression over the columns of the leaderboard; None: best first.
        experiment: Only this run or sweep.

    Raises:
        InputError: DuckDB does not understand an expression.
    """
    columns = list(query.NEEDED)
    if where:
        words = set(re.findall(r"\w+", where))
        columns += [name for name in arrow_schema("trials").names if name in words and name not in columns]
    trials = table.read("trials", columns=columns, experiment=experiment, attempts="totals")
    if where:
        trials = query.matching(trials, where)
    board = query.leaderboard(trials)
    groups = rank(trials)
    found = [evidence.load(table, group.configurations, "dev", group.chosen_by) for group in groups]
    chosen = [
        evidence.load(table, group.configurations, "selection", group.chosen_by) if group.on_selection else on_dev
        for group, on_dev in zip(groups, found, strict=True)
    ]
    board = with_intervals(board, found, chosen)
    return query.sort_rows(board, sort) if sort else board


COLLAPSED = "collapsed: no better than the more frequent class for every sentence; nothing was learned, however high the accuracy."


def of_study(study: Study) -> pa.Table:
    """Return the leaderboard of one study."""
    return with_intervals(query.leaderboard(study.trials), [study.on_dev], [study.selected_on])


def with_intervals(board: pa.Table, found: Sequence[Evidence], chosen: Sequence[Evidence]) -> pa.Table:
    """Add low and high, the 95 % interval of the metric chosen_by on dev, covers and collapsed to a leaderboard.

    covers: "seeds and sentences", or "sentences" for one seed without a known seed variance; null, as are low and high, when
    the sentences were not stored. collapsed: seeds that did not learn, by the sentences of `chosen`, which rank them.
    """
    by_row = {
        (c.configuration_id, c.setting("data_fingerprint"), c.setting("eval_split")): (c, one, other)
        for one, other in zip(found, chosen, strict=True)
        for c in one.configurations
    }
    rows: list[tuple[float | None, float | None, str | None, int | None]] = []
    for key in zip(
        *(board.column(n).to_pylist() for n in ("configuration", "data_fingerprint", "eval_split")), strict=True
    ):
        c, one, other = by_row.get(key, (None, None, None))
        estimate = one.estimate(c, one.chosen_by) if one is not None and c is not None else None
        collapsed = other.num_collapsed(c) if other is not None and c is not None else None
        if estimate is None:
            rows.append((None, None, None, collapsed))
            continue
        covers = _SEEDS if estimate.covers_seeds else "sentences"
        rows.append((estimate.interval.low, estimate.interval.high, covers, collapsed))
    types = {"low": pa.float64(), "high": pa.float64(), "covers": pa.string(), "collapsed": pa.int64()}
    for i, (name, kind) in enumerate(types.items()):
        board = board.append_column(name, pa.array([row[i] for row in rows], kind))
    return board


def _spread(mean: str, sd: str) -> Callable[[Row], str]:
    return lambda row: (
        formatting.percent(row[mean]) + (f" ± {formatting.percent(row[sd])}" if row[sd] is not None else "")
        if row[mean] is not None
        else formatting.NONE
    )


def _plain(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:g}" if row[name] is not None else formatting.NONE


def _interval(row: Row) -> str:
    if row["low"] is None:
        return formatting.NONE
    mark = "" if row["covers"] == _SEEDS else "*"
    low, high = (shown(row["chosen_by"], row[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{low} – {high}{mark}"


def _interval_title(rows: Sequence[Row]) -> str:
    chosen = {row["chosen_by"] for row in rows}
    of = f" of {METRIC_NAMES[chosen.pop()]}" if len(chosen) == 1 and chosen != {"accuracy"} else ""
    return f"95 % interval{of}"


def _score_columns(rows: Sequence[Row]) -> list[_Column]:
    """Return the columns of the metric that configurations are chosen by, where it is not accuracy."""
    chosen = {row["chosen_by"] for row in rows} - {"accuracy"}
    if not chosen:
        return []
    name = METRIC_NAMES[chosen.pop()] if len(chosen) == 1 else "score"

    def cell(column: str) -> Callable[[Row], str]:
        return lambda row: shown(row["chosen_by"], row[column]) if row["chosen_by"] != "accuracy" else formatting.NONE

    columns = [_Column(title=f"dev {name}", cell=cell("best_score"), rank=1)]
    if any(row["selection_score"] is not None for row in rows):
        columns.insert(0, _Column(title=f"held-out {name}", cell=cell("selection_score"), rank=2))
    return columns


def _status(row: Row) -> str:
    found = [
        f"{row[status]} {status}"
        for status in (Status.FAILED, Status.STOPPED, Status.LOST, Status.RUNNING)
        if row[status]
    ]
    if row[Status.SUCCEEDED] or not found:
        collapsed = f" ({row['collapsed']} collapsed)" if row["collapsed"] else ""
        found.insert(0, f"{row[Status.SUCCEEDED]} ok{collapsed}")
    return ", ".join(found)


def _columns(rows: Sequence[Row]) -> list[_Column]:
    """Choose the columns that are not empty for these rows."""
    varying = [name for name in ("weight_decay", "epochs", "warmup_fraction") if len({row[name] for row in rows}) > 1]
    titles = {"weight_decay": "decay", "epochs": "epochs", "warmup_fraction": "warm-up"}
    columns = [
        _Column(title="#", cell=lambda r: str(r["rank"] or "")),
        _Column(title="model", cell=lambda r: model_label(r.get), right=False),
        _Column(title="lr", cell=lambda r: formatting.learning_rate(r["learning_rate"])),
        _Column(title="batch", cell=lambda r: str(r["batch_size"] or formatting.NONE)),
        *(_Column(title=titles[name], cell=_plain(name)) for name in varying),
        _Column(title="seeds", cell=lambda r: str(r["seeds"]), rank=3),
    ]  # fmt: skip
    columns += _score_columns(rows)
    if any(row["scored_on"] == "selection" for row in rows):
        columns.append(
            _Column(title="held-out acc.", cell=lambda r: formatting.percent(r["selection_accuracy"]), rank=2)
        )
    columns += [
        _Column(title="dev acc.", cell=_spread("accuracy", "accuracy_sd"), rank=1),
        _Column(title=_interval_title(rows), cell=_interval, rank=2),
        _Column(title="last epoch", cell=_spread("last_accuracy", "last_accuracy_sd"), rank=9),
        _Column(title="F1", cell=lambda r: formatting.percent(r["f1"]), rank=7),
        _Column(title="examples/s", cell=lambda r: formatting.number(r["examples_per_sec"]), rank=7),
        _Column(title="time", cell=lambda r: formatting.duration(r["seconds"]), rank=5),
        _Column(title="status", cell=_status, right=False, rank=4),
    ]
    if any(row["cost_usd"] is not None for row in rows):
        columns.insert(-1, _Column(title="cost", cell=lambda r: formatting.dollars(r["cost_usd"]), rank=6))
    if len({row["experiment"] for row in rows}) > 1:
        columns.append(_Column(title="experiment", cell=lambda r: r["experiment"] or "several", right=False, rank=8))
    return columns


def print_table(
    board: pa.Table,
    console: Console,
    *,
    title: str,
    ranked: bool,
    limit: int,
    wide: bool = False,
    whole: str = "--wide",
) -> None:
    """Print a table for each evaluation split.

    Args:
        board: The leaderboard.
        console: Console to print on.
        title: Title above the tables.
        ranked: The first row is the best.
        limit: Rows shown; 0: all of them.
        wide: Show every column, however wide the table gets.
        whole: What to type for all columns.
    """
    rows = board.to_pylist()
    shown = rows[:limit] if limit else rows
    columns = _columns(shown)
    fitted = [
        tables.Column(
            title=c.title, rank=c.rank, align="right" if c.right else "left",
            min_width=_MODEL_WIDTH if c.title == "model" else None,
        )
        for c in columns
    ]  # fmt: skip
    told = ""
    for name, of_split in _by_data(shown):
        cells = [[column.cell(row) for column in columns] for row in of_split]
        fit = tables.print_table(
            console, fitted, cells, wide=wide, title=f"{title}: {name}", whole=whole,
            bold=[n for n, row in enumerate(of_split) if ranked and row["rank"] == 1],
        )  # fmt: skip
        told += " ".join(row[i] for row in cells for i in fit)
    console.print(_caption(shown, len(rows), told), style="dim", highlight=False)


def _by_data(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Divide rows by their evaluation split; two of one name that hold other sentences are told apart by their experiments."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["eval_split"], row["data_fingerprint"]), []).append(row)
    times = Counter(split for split, _ in found)
    named = []
    for (split, _), of_split in found.items():
        experiments = sorted({row["experiment"] or "several" for row in of_split})
        which = f" ({formatting.join(experiments)})" if times[split] > 1 else ""
        named.append((f"{split or 'evaluation data not named'}{which}", of_split))
    return named


def _caption(shown: Sequence[Row], num_all: int, told: str) -> str:
    lines = [
        "± is the standard deviation over seeds, accuracies are in per cent; the interval is for new seeds and new sentences, "
        "and does not count that the best was chosen."
    ]
    if any(row["diverged"] and row["rank"] for row in shown):
        lines.append("Configurations that diverged under a seed are ranked after the others.")
    if " collapsed)" in told:
        lines.append(COLLAPSED)
    if any(row["covers"] == "sentences" for row in shown):
        lines.append(wording.ONE_SEED_ALONE)
    if any(row["seeds"] == 1 and row["covers"] == _SEEDS for row in shown):
        lines.append(wording.ONE_SEED_POOLED)
    if any(row["low"] is None and row["accuracy"] is not None for row in shown):
        lines.append("– no interval: no predictions on the single sentences that can be used were stored.")
    if len(shown) < num_all:
        lines.append(f"{len(shown)} of {num_all} configurations; --limit 0 shows all.")
    return "\n".join(lines)


def to_markdown(board: pa.Table) -> str:
    """Render a GitHub table of the same cells."""
    rows = board.to_pylist()
    columns = _columns(rows)
    split = _Column(title="evaluated on", cell=lambda r: r["eval_split"] or formatting.NONE, right=False)
    if len({row["eval_split"] for row in rows}) > 1:
        columns.insert(1, split)
    rules = ["---:" if c.right else "---" for c in columns]
    cells = [[c.cell(row).replace("|", "\\|") for c in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in ([c.title for c in columns], rules, *cells))


def to_csv(board: pa.Table) -> str:
    """Render all columns of the leaderboard, with their names."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(board, sink)
    return str(sink.getvalue().to_pybytes().decode()).rstrip("\n")


def to_json(board: pa.Table) -> str:
    """Render a list of objects with all columns of the leaderboard."""

    def plain(value: object) -> object:
        if isinstance(value, dt.datetime):
            return value.isoformat()
        return None if isinstance(value, float) and value != value else value

    return json.dumps([{k: plain(v) for k, v in row.items()} for row in board.to_pylist()], indent=1)
