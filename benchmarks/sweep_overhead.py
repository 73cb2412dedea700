"""What a trial costs besides its steps: a sequential sweep of short trials, with forked workers and without.

    python -m benchmarks.sweep_overhead [--folder DIR] [--num-trials 8] [--num-steps 32] [--ways plain forked]
        [--json FILE]

Overhead is the wall-clock of the whole command, start and end of Ray included, less the time inside optimizer steps, a
trial; with the evaluation, of 128 sentences, and without.
"""

from __future__ import annotations

import argparse
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

from benchmarks.shared import steps_seconds
from sst2_ray.launch.warm import SWITCH
from sst2_ray.results.provenance import collect_provenance
from sst2_ray.results.table import ResultsTable

LIMIT_S = 6.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="keep the sweeps here; by default they are temporary")
    parser.add_argument("--num-trials", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--ways", nargs="+", choices=("forked", "plain"), default=["plain", "forked"])
    parser.add_argument("--json", help="write the figures to this file as well")
    arguments = parser.parse_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="sweep-overhead-"))
    provenance = collect_provenance()
    print(f"{provenance['chip']}, commit {provenance['git_commit']}, {provenance['versions_json']}")
    try:
        found = {way: measure(folder, way, arguments.num_trials, arguments.num_steps) for way in arguments.ways}
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    figures = {"num_trials": arguments.num_trials, "num_steps": arguments.num_steps, **provenance, **found}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if found[arguments.ways[-1]]["overhead_per_trial_s"] < LIMIT_S else 1


def measure(folder: Path, way: str, num_trials: int, num_steps: int) -> dict[str, Any]:
    """One sweep of `num_trials` seeds of one configuration, one after the other."""
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


if __name__ == "__main__":
    sys.exit(main())
