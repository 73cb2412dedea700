"""Report tables about the runs: status, failures, resources, provenance, single trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from sst2_ray import formatting
from sst2_ray.records import Status
from sst2_ray.results.analysis.leaderboard import Row
from sst2_ray.results.analysis.ranking import model_label
from sst2_ray.results.report.tables import PageTable, number_cell, text_cell, without_empty
from sst2_ray.results.store import query

MAX_TRIALS = 500
MAX_NAMES = 8
"""Sweeps, and runs, that a heading names."""


def statuses(trials: pa.Table) -> PageTable:
    """Count trials by model and status."""
    counted: dict[str, Counter[str]] = {}
    for row in trials.select(["model", "random_weights", "status"]).to_pylist():
        counted.setdefault(model_label(row.get), Counter())[row["status"]] += 1
    shown = [s for s in query.STATUS_ORDER if any(c[s] for c in counted.values())]
    rows = [[text_cell(m), *(number_cell(c[s], formatting.number) for s in shown)] for m, c in sorted(counted.items())]
    return PageTable(columns=("model", *(s.replace("_", " ") for s in shown)), rows=rows)


def experiments(trials: pa.Table) -> str:
    """Name the sweeps and runs that trials are of: `sweep lr-search; runs first and second`."""
    names = trials.select(["experiment", "trial_id"]).to_pylist()
    sweeps = {row["experiment"] for row in names if row["experiment"] != row["trial_id"]}
    runs = {row["experiment"] for row in names} - sweeps
    said = []
    for kind, of_kind in (("sweep", sorted(sweeps)), ("run", sorted(runs))):
        if of_kind:
            more = len(of_kind) - MAX_NAMES
            shown = [*of_kind[:MAX_NAMES], *([f"{more:,} more"] if more > 0 else [])]
            said.append(f"{kind}{'s' * (len(of_kind) > 1)} {formatting.join(shown)}")
    return "; ".join(said)


def failures(trials: pa.Table) -> PageTable | None:
    """List failed, stopped and lost trials by class; None when there are none."""
    names = ("failure_class", "experiment", "trial_id", "attempt", "status", "failure_message")
    rows = [
        r for r in trials.select(list(names)).to_pylist() if r["status"] in (Status.FAILED, Status.LOST, Status.STOPPED)
    ]
    if not rows:
        return None
    rows.sort(key=lambda r: (r["failure_class"] or "~", r["experiment"], r["trial_id"]))
    counts = Counter(r["failure_class"] or r["status"] for r in rows)
    note = "By class: " + ", ".join(f"{name.replace('_', ' ')} {num}" for name, num in counts.most_common()) + "."
    cells = [
        [text_cell(str(r[n]).replace("_", " ") if n == "failure_class" and r[n] else r[n]) for n in names] for r in rows
    ]
    return PageTable(
        columns=("class", "experiment", "trial", "attempt", "status", "message"), rows=cells[:MAX_TRIALS], note=note
    )


def resources(trials: pa.Table) -> PageTable:
    """Show throughput, memory and utilization by model and hardware, as means over succeeded trials."""
    keys = ("model", "random_weights", "chip", "world_size", "precision", "engine", "attention")
    measured = (
        "examples_per_sec", "tokens_per_sec", "padding_fraction", "model_flop_utilization", "peak_memory_gib",
        "startup_seconds", "seconds",
    )  # fmt: skip
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in trials.select([*keys, "status", *measured]).to_pylist():
        if row["status"] == Status.SUCCEEDED:
            groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    rows = []
    for members in groups.values():
        first = members[0]
        mean = {name: _mean([m[name] for m in members]) for name in measured}
        rows.append(
            [
                text_cell(model_label(first.get)),
                text_cell(first["chip"]),
                number_cell(first["world_size"], formatting.number),
                text_cell(", ".join(str(first[k]) for k in ("precision", "engine", "attention") if first[k])),
                number_cell(len(members), formatting.number),
                number_cell(mean["examples_per_sec"], formatting.number),
                number_cell(mean["tokens_per_sec"], formatting.number),
                number_cell(
                    mean["padding_fraction"],
                    lambda v: formatting.NONE if v is None else f"{formatting.percent(v, 1)} %",
                ),
                number_cell(
                    mean["model_flop_utilization"],
                    lambda v: formatting.NONE if v is None else f"{formatting.percent(v, 1)} %",
                ),
                number_cell(mean["peak_memory_gib"], lambda v: formatting.NONE if v is None else f"{v:.1f} GiB"),
                number_cell(mean["startup_seconds"], formatting.duration),
                number_cell(mean["seconds"], formatting.duration),
            ]
        )
    columns, rows = without_empty(
        (
            "model", "chip", "workers", "computed with", "trials", "examples/s", "tokens/s", "padding",
            "FLOP utilization", "peak memory a worker", "start-up", "time a run",
        ),
        rows,
    )  # fmt: skip
    return PageTable(columns=columns, rows=rows, note="Means over the trials that succeeded.")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def provenance(trials: pa.Table) -> PageTable:
    """Show the code, versions, data and seeds of the trials, with the number of trials where they differ."""
    found: dict[str, Counter[str]] = {}
    names = (
        "git_commit", "git_dirty", "versions_json", "data", "data_fingerprint", "eval_split", "model", "model_source",
        "model_revision", "chip", "node_types_json", "seed", "imported_from",
    )  # fmt: skip
    for row in trials.select(list(names)).to_pylist():
        dirty = " (with uncommitted changes)" if row["git_dirty"] else ""
        revision = f" at {row['model_revision'][:12]}" if row["model_revision"] else ""
        values = {
            "code": f"{row['git_commit'][:12]}{dirty}" if row["git_commit"] else None,
            "data": f"{row['data']}, fingerprint {row['data_fingerprint']}" if row["data_fingerprint"] else row["data"],
            "evaluated on": row["eval_split"],
            "weights": f"{row['model']} from {row['model_source']}{revision}" if row["model_source"] else None,
            "chip": row["chip"],
            "nodes": _nodes(row["node_types_json"]),
            "seed": None if row["seed"] is None else str(row["seed"]),
            "imported from": row["imported_from"],
            "versions": _versions(row["versions_json"]),
        }
        for name, value in values.items():
            if value is not None:
                found.setdefault(name, Counter())[value] += 1
    rows = []
    for name, counts in found.items():
        shared = trials.num_rows in counts.values()
        shown = [
            value if shared else f"{value} ({formatting.count(num, 'trial')})" for value, num in counts.most_common(8)
        ]
        more = len(counts) - len(shown)
        rows.append([text_cell(name), text_cell("; ".join(shown) + (f"; {more} more" if more > 0 else ""))])
    return PageTable(columns=("what", "value"), rows=rows)


def _versions(packed: str | None) -> str | None:
    try:
        versions = json.loads(packed or "{}")
        return ", ".join(f"{name} {version}" for name, version in versions.items()) or None
    except (ValueError, AttributeError):
        return None


def _nodes(packed: str | None) -> str | None:
    try:
        nodes = json.loads(packed or "[]")
        addresses = {node.get("address") for node in nodes}
    except (ValueError, AttributeError):
        return None
    return f"{formatting.count(len(nodes), 'worker')} on {formatting.count(len(addresses), 'node')}" if nodes else None


def trials_table(trials: pa.Table) -> PageTable:
    """List single trials, best first."""
    names = (
        "experiment", "trial_id", "attempt", "model", "random_weights", "learning_rate", "batch_size", "seed", "status",
        "best_dev_accuracy", "last_dev_accuracy", "last_epoch", "examples_per_sec", "seconds", "cost_usd",
        "peak_memory_gib", "export_path",
    )  # fmt: skip
    rows = trials.select(list(names)).sort_by([("best_dev_accuracy", "descending")]).slice(0, MAX_TRIALS).to_pylist()
    cells = [
        [
            text_cell(r["experiment"]),
            text_cell(r["trial_id"]),
            text_cell(model_label(r.get)),
            number_cell(r["learning_rate"], formatting.learning_rate),
            number_cell(r["batch_size"], formatting.number),
            number_cell(r["seed"], lambda v: formatting.NONE if v is None else str(v)),
            text_cell(r["status"].replace("_", " ") + (f", attempt {r['attempt']}" if r["attempt"] else "")),
            number_cell(r["best_dev_accuracy"], formatting.percent),
            number_cell(r["last_dev_accuracy"], formatting.percent),
            number_cell(r["last_epoch"], formatting.number),
            number_cell(r["examples_per_sec"], formatting.number),
            number_cell(r["seconds"], formatting.duration),
            number_cell(r["cost_usd"], formatting.dollars),
            text_cell(r["export_path"]),
        ]
        for r in rows
    ]
    columns, cells = without_empty(
        (
            "experiment", "trial", "model", "learning rate", "batch", "seed", "status", "best dev accuracy, %",
            "last, %", "epochs", "examples/s", "time", "cost", "export",
        ),
        cells,
    )  # fmt: skip
    note = f"The first {len(rows)} of {trials.num_rows}." if len(rows) < trials.num_rows else ""
    return PageTable(columns=columns, rows=cells, note=note)
