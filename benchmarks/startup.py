"""Time from the command to the end of the first optimizer step, Ray's start included, on this machine alone.

    python -m benchmarks.startup [--repeats 5] [--json FILE]

Data as in throughput.py, 64 sentences a step on all cores. The first run warms the machine up and is not counted.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from benchmarks.shared import finish, main_job_flags, parser_of, provenance, run_job

LIMIT_S = 15.0

ROWS = (
    ("Python, data, Ray, the driver", "before_attempt_s"),
    ("Train's controller, worker, model, engine, first step", "attempt_s"),
    ("together", "first_step_s"),
)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    found = provenance()
    runs = []
    for repeat in range(1 + arguments.repeats):
        run = measured()
        print(f"{repeat}/{arguments.repeats} first step after {run['first_step_s']:.1f} s", flush=True)
        runs += [run] if repeat else []
    figures = {**found, "runs": runs}
    finish(figures, table(runs), arguments.json)
    return 0 if statistics.median(run["first_step_s"] for run in runs) < LIMIT_S else 1


def measured() -> dict[str, float]:
    """Measure one run of the main job, of a single step."""
    begin = time.time()
    row, wall = run_job(main_job_flags("sbert-minilm", 64, steps=1, workers=1))
    before = row["started_at"].timestamp() - begin
    return {
        "before_attempt_s": before,
        "attempt_s": row["startup_seconds"],
        "first_step_s": before + row["startup_seconds"],
        "whole_command_s": wall,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Render the table in Markdown."""
    lines = ["| from the command to the first step | s, median | lowest to highest |", "|---|---|---|"]
    for words, name in ROWS:
        values = [run[name] for run in runs]
        lines.append(f"| {words} | {statistics.median(values):.1f} | {min(values):.1f} to {max(values):.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
