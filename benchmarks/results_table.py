"""The results table at scale: a leaderboard over 100,000 trials that were written in 10,000 files a data set: as they were
written, as runs leave them (they merge small files when they end), and after compaction.

    python -m benchmarks.results_table [--folder DIR] [--num-trials 100000] [--num-files 10000] [--repeats 3] [--json FILE]

Every measurement is the real command, `sst2-ray results`, in a fresh process: its wall-clock and its peak resident memory.
The table is synthetic (ten evaluations and ten predictions a trial, a start row and an end row).
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.shared import finish, parser_of, provenance
from sst2_ray.results.store import files
from sst2_ray.results.store.compaction import MERGE_AT, merge_small_files
from sst2_ray.results.store.schema import arrow_schema
from sst2_ray.results.store.table import ResultsTable, new_file_name
from sst2_ray.statistics.scores import Array

Columns = dict[str, Any]
POINTS_PER_TRIAL = 10
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LIMITS = {"merged": (3.0, 1.0), "after": (2.0, 1.0)}
"""Seconds and GiB that a leaderboard must stay below."""

ROWS = (
    ("`results`, files as they were written", "written"),
    ("`results`, as runs leave the table", "merged"),
    ("`results compact`, all three data sets", "compact"),
    ("`results`, after compaction", "after"),
)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--folder", help="keep the table here; by default it is temporary")
    parser.add_argument("--num-trials", type=int, default=100_000)
    parser.add_argument("--num-files", type=int, default=10_000, help="files a data set")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="results-table-"))
    origin = provenance()
    try:
        for name, merge in (("written", False), ("merged", True)):
            if not (folder / name).exists():
                write_table(folder / name, arguments.num_trials, arguments.num_files, merge=merge)
        found = measure(folder, arguments.repeats)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    figures = {"num_trials": arguments.num_trials, "num_files": arguments.num_files, **origin, **found}
    finish(figures, table(figures), arguments.json)
    return 0 if all(passed(name, runs) for name, runs in found.items() if name in LIMITS) else 1


def write_table(folder: Path, num_trials: int, num_files: int, *, merge: bool) -> None:
    """Files as `ResultsTable.write` makes them, without its fsync of each; `merge`: as runs leave them."""
    begin = time.perf_counter()
    per_file = num_trials // num_files
    for dataset in ("trials", "epochs", "predictions"):
        (folder / "results" / dataset).mkdir(parents=True)
    for number in range(num_files):
        for dataset, rows in synthetic(number * per_file, per_file).items():
            data = files.encode(dataset, rows)
            (folder / "results" / dataset / new_file_name()).write_bytes(memoryview(data))
        if merge and (number + 1) % MERGE_AT == 0:
            merge_small_files(ResultsTable(str(folder)))
    print(f"wrote {num_trials:,} trials in {num_files:,} files a data set: {time.perf_counter() - begin:.0f} s")


def synthetic(first: int, count: int) -> dict[str, pa.Table]:
    """The rows of `count` trials, three seeds a configuration."""
    rng = np.random.default_rng(first)
    trial = np.arange(first, first + count)
    points = _points(trial)
    return {
        "trials": pa.concat_tables([to_table("trials", columns) for columns in _starts_and_ends(trial, rng)]),
        "epochs": to_table("epochs", {**points, **_evaluations(points, rng)}),
        "predictions": to_table("predictions", {**points, **_answers(points, rng)}),
    }


def _starts_and_ends(trial: Array, rng: np.random.Generator) -> tuple[Columns, Columns]:
    """Columns of the start rows and of the end rows."""
    configuration, count = trial // 3, len(trial)
    common = {
        **_names(trial),
        "attempt": np.zeros(count, dtype=int),
        "config_json": [json.dumps({"learning_rate": 8e-5, "batch_size": 32, "filler": "x" * 600})] * count,
        "configuration_id": [f"{n:012x}" for n in configuration],
        "model": [("modernbert-base", "sbert")[n % 2] for n in configuration],
        "model_kind": [("modernbert", "sbert")[n % 2] for n in configuration],
        "eval_split": ["SST-2 dev"] * count,
        "data_fingerprint": ["0123456789ab"] * count,
        "num_dev_rows": [872] * count,
        "learning_rate": [1e-5 * (1 + n % 16) for n in configuration],
        "batch_size": [16 * 2 ** (n % 3) for n in configuration],
        "seed": trial % 3,
    }
    accuracy = rng.normal(0.93, 0.01, count)
    begun = {
        **common,
        "status": ["running"] * count,
        "written_at": [START + dt.timedelta(seconds=int(n)) for n in trial],
    }
    ended = {
        **common,
        "status": ["succeeded"] * count,
        "written_at": [START + dt.timedelta(seconds=int(n) + 600) for n in trial],
        "best_dev_accuracy": accuracy,
        "last_dev_accuracy": accuracy - 0.004,
        "best_dev_f1": accuracy - 0.001,
        "best_dev_loss": 1.1 - accuracy,
        "seconds": rng.normal(600, 20, count),
        "examples_per_sec": rng.normal(400, 10, count),
        "cost_usd": rng.normal(0.5, 0.02, count),
    }
    return begun, ended


def _names(trial: Array) -> Columns:
    return {
        "experiment": [f"sweep-{n // 1000:03d}" for n in trial],
        "trial_id": [f"trial-{n:06d}" for n in trial],
    }


def _points(trial: Array) -> Columns:
    """Return what the rows of `epochs` and `predictions` have in common, ten of each a trial."""
    repeated = np.repeat(trial, POINTS_PER_TRIAL)
    return {**_names(repeated), "attempt": np.zeros(len(repeated), dtype=int), "split": ["dev"] * len(repeated)}


def _evaluations(points: Columns, rng: np.random.Generator) -> Columns:
    index, noise = _index_and_noise(points, rng)
    return {
        "global_step": (index + 1) * 1000,
        "epoch": index + 1.0,
        "dev_accuracy": 0.93 + noise,
        "dev_loss": 0.2 - noise,
        "train_loss": 0.3 - 0.02 * index,
        "written_at": [START] * len(index),
    }


def _answers(points: Columns, rng: np.random.Generator) -> Columns:
    index, noise = _index_and_noise(points, rng)
    return {
        "global_step": np.full(len(index), 2000),
        "row_id": index,
        "text": [f"made-up sentence {i}" for i in index],
        "label": index % 2,
        "predicted": (index + (noise > 0)) % 2,
        "probability": 0.5 + noise,
    }


def _index_and_noise(points: Columns, rng: np.random.Generator) -> tuple[Array, Array]:
    num_rows = len(points["trial_id"])
    return np.arange(num_rows) % POINTS_PER_TRIAL, rng.normal(0, 0.002, num_rows)


def to_table(dataset: str, columns: Columns) -> pa.Table:
    """Columns in the data set's schema, those that are not given null."""
    schema = arrow_schema(dataset)
    num_rows = len(columns["experiment"])
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(num_rows, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def measure(folder: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Raw runs by name, printed as they come."""
    written, merged = folder / "written", folder / "merged"
    shutil.rmtree(merged / "results" / "snapshot", ignore_errors=True)
    found: dict[str, list[dict[str, float]]] = {"written": [], "merged": []}
    for _ in range(repeats):
        found["written"].append(timed("as written", written, "--limit", "5"))
        found["merged"].append(timed("as runs leave it", merged, "--limit", "5"))
    found["compact"] = [timed("compact", merged, subcommand="compact")]
    found["after"] = [timed("after compaction", merged, "--limit", "5") for _ in range(repeats)]
    return found


def timed(name: str, folder: Path, *arguments: str, subcommand: str | None = None) -> dict[str, float]:
    """Time `sst2-ray results` in a process of its own."""
    words = [*([subcommand] if subcommand else []), "--storage-path", str(folder), *arguments]
    code = f"import sys; from sst2_ray.results.commands import main_results; sys.exit(main_results({words!r}))"
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{name}: exit code {os.waitstatus_to_exitcode(status)}")
    figures = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }
    print(f"{name}: {figures['seconds']} s ({figures['cpu_seconds']} s of CPU), {figures['peak_gib']} GiB", flush=True)
    return figures


def table(figures: dict[str, Any]) -> str:
    """Markdown: seconds and memory of every command."""
    lines = [
        f"{figures['num_trials']:,} trials, {POINTS_PER_TRIAL} evaluations and predictions each, in {figures['num_files']:,} "
        "files a data set.",
        "",
        "| the whole command | s, median | lowest to highest | peak memory, GiB |",
        "|---|---|---|---|",
    ]
    for words, name in ROWS:
        seconds = [run["seconds"] for run in figures[name]]
        gib = max(run["peak_gib"] for run in figures[name])
        lines.append(
            f"| {words} | {statistics.median(seconds):.1f} | {min(seconds):.1f} to {max(seconds):.1f} | {gib:.2f} |"
        )
    return "\n".join(lines)


def passed(name: str, runs: list[dict[str, float]]) -> bool:
    """The median run stays below the limits."""
    max_seconds, max_gib = LIMITS[name]
    seconds = sorted(run["seconds"] for run in runs)[len(runs) // 2]
    gib = max(run["peak_gib"] for run in runs)
    good = seconds < max_seconds and (max_gib is None or gib < max_gib)
    limit = f"{max_seconds:g} s" + (f", {max_gib:g} GiB" if max_gib else "")
    print(f"{name}: median {seconds} s, {gib} GiB: {'below' if good else 'NOT BELOW'} {limit}")
    return good


if __name__ == "__main__":
    sys.exit(main())
