"""The demonstration sweep: 24 trials (2 models x 3 learning rates x 2 batch sizes x 2 seeds) on 2,048 rows of the packaged data.

    python -m benchmarks.sweep_demo [--folder DIR] [--json FILE] [FLAG OF THE SWEEP ...]

Passes (exit code 0) where every trial succeeds within a quarter of an hour.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared import REPOSITORY, finish, parser_of, provenance
from sst2_ray.results.analysis import leaderboard
from sst2_ray.results.store.table import ResultsTable

LIMIT_S = 15 * 60

OF_A_TRIAL = (
    "trial_id", "learning_rate", "batch_size", "seed", "status", "attempt", "selection_accuracy", "best_dev_accuracy",
    "last_dev_accuracy", "last_epoch", "seconds", "peak_memory_gib",
)  # fmt: skip


def main() -> int:
    figures = run_sweep(__doc__, "demo-grid", ["--preset", "demo-grid"])
    print(f"limit: {LIMIT_S} s")
    return 0 if figures["exit_code"] == 0 and figures["wall_s"] < LIMIT_S else 1


def run_sweep(doc: str | None, name: str, flags: list[str]) -> dict[str, Any]:
    """Run one sweep as a user does, or go on with it; what it came to and every trial, printed and kept as --json says."""
    parser = parser_of(doc)
    parser.add_argument("--folder", help="keep the sweep here; by default it is temporary")
    arguments, more = parser.parse_known_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix=f"sweep-{name}-"))
    found = provenance()
    command = [sys.executable, "jobs/sweep.py", *flags, *more, "--storage-path", str(folder), "--name", name]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, check=False)
    wall = time.perf_counter() - begin
    result = json.loads((folder / name / "result.json").read_text())
    sessions = json.loads((folder / name / "clock.json").read_text())["sessions"]
    table = ResultsTable(str(folder))
    trials = table.read("trials", columns=OF_A_TRIAL, experiment=name, attempts="latest").to_pylist()
    board = leaderboard.load(table, where=None, sort=None, experiment=name)
    if not arguments.folder:
        shutil.rmtree(folder)
    figures = {
        "flags": [*flags, *more],
        **found,
        "wall_s": round(wall, 1),
        "sessions_s": [session["seconds"] for session in sessions],
        "exit_code": done.returncode,
        **{key: result[key] for key in ("counts", "best", "mean", "metric", "verdict")},
        "trials": trials,
    }
    finish(figures, leaderboard.to_markdown(board), arguments.json)
    print(f"wall-clock {wall:.0f} s, exit code {done.returncode}, {result['counts']}")
    return figures


if __name__ == "__main__":
    sys.exit(main())
