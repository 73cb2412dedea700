"""The cost of a trial besides its steps: a sequential sweep of short trials, with forked workers and without.

    python -m benchmarks.sweep_overhead [--folder DIR] [--num-trials 8] [--num-steps 32] [--ways plain forked]
        [--json FILE]

Overhead is the wall-clock of the whole command, start and end of Ray included, less the time inside optimizer steps, a
trial; with the evaluation, of 128 sentences, and without.
"""

from __future__ import annotations

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

from benchmarks.shared import finish, parser_of, provenance, steps_seconds
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.ray.fork_server import SWITCH

LIMIT_S = 6.0

ROWS = (
    ("besides steps and evaluation", "overhead_per_trial_s"),
    ("besides steps", "overhead_with_evaluation_per_trial_s"),
    ("from a trial's start to its first step, median", "median_startup_s"),
    ("evaluation, median", "median_evaluation_s"),
    ("last checkpoint and export, median", "median_checkpoint_and_export_s"),
    ("outside of trials: start and end of Ray and Tune shared out, and between trials", "between_trials_s"),
)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--folder", help="keep the sweeps here; by default they are temporary")
    parser.add_argument("--num-trials", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--ways", nargs="+", choices=("forked", "plain"), default=["plain", "forked"])
    arguments = parser.parse_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="sweep-overhead-"))
    origin = provenance()
    try:
        found = {way: measure(folder, way, arguments.num_trials, arguments.num_steps) for way in arguments.ways}
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    figures = {"num_trials": arguments.num_trials, "num_steps": arguments.num_steps, **origin, "ways": found}
    finish(figures, table(figures), arguments.json)
    return 0 if found[arguments.ways[-1]]["overhead_per_trial_s"] < LIMIT_S else 1


def measure(folder: Path, way: str, num_trials: int, num_steps: int) -> dict[str, Any]:
    """Run one sweep of `num_trials` seeds of one configuration, one after the other."""
    command = [
        sys.executable, "jobs/sweep.py", "--models", "sbert-minilm", "--data", "rotten-tomatoes", "--learning-rates", "8e-5",
        "--batch-sizes", "32", "--epochs", "1", "--train-rows", str(32 * num_steps), "--dev-rows", "128",
        "--num-seeds", str(num_trials), "--max-concurrent", "1",
        "--storage-path", str(folder), "--name", way,
    ]  # fmt: skip
    begin = time.perf_counter()
    root = Path(__file__).resolve().parent.parent
    subprocess.run(command, cwd=root, env={**os.environ, SWITCH: str(int(way == "forked"))}, check=True)
    wall = time.perf_counter() - begin
    rows = ResultsTable(str(folder)).read("trials", experiment=way, attempts="latest").to_pylist()
    steps = [steps_seconds(row) for row in rows]
    evaluation = sum(row["evaluation_seconds"] for row in rows)
    figures = {
        "wall_s": round(wall, 1),
        "steps_s": round(sum(steps), 1),
        "overhead_per_trial_s": round((wall - sum(steps) - evaluation) / num_trials, 2),
        "overhead_with_evaluation_per_trial_s": round((wall - sum(steps)) / num_trials, 2),
        "median_trial_s": round(statistics.median(row["seconds"] for row in rows), 2),
        "median_startup_s": round(statistics.median(row["startup_seconds"] for row in rows), 2),
        "median_evaluation_s": round(statistics.median(row["evaluation_seconds"] for row in rows), 2),
        "median_checkpoint_and_export_s": round(statistics.median(row["checkpoint_seconds"] for row in rows), 2),
        "between_trials_s": round((wall - sum(row["seconds"] for row in rows)) / num_trials, 2),
    }
    print(f"{way}: {json.dumps(figures)}", flush=True)
    return figures


def table(figures: dict[str, Any]) -> str:
    """Markdown: seconds a trial, by way."""
    ways = figures["ways"]
    lines = [
        f"{figures['num_trials']} trials of {figures['num_steps']} steps of 32 sentences, sbert-minilm, evaluated on 128.",
        "",
        f"| seconds a trial | {' | '.join(f'{way} workers' for way in ways)} |",
        f"|{'---|' * (1 + len(ways))}",
    ]
    for words, name in ROWS:
        lines.append(f"| {words} | {' | '.join(f'{found[name]:.1f}' for found in ways.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
