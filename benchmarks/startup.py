"""Time from the command to the end of the first optimizer step, Ray's start included, on this machine alone.

    python -m benchmarks.startup [--repeats 5] [--json FILE]

Data as in throughput.py, 64 sentences a step on all cores; in alternation with data as if they were new, and with what an earlier
command has kept of them. The first run of each warms the machine up and is not counted.
"""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.shared import finish, main_job_flags, parser_of, provenance, run_job

LIMIT_S = 8.0

WAYS = {"new": "data that are new", "kept": "data that an earlier command has read"}

ROWS = (
    ("Python, data, Ray, the driver", "before_attempt_s"),
    ("Train's controller, worker, model, engine, first step", "attempt_s"),
    ("together", "first_step_s"),
    ("the whole command, of one step", "whole_command_s"),
)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    found = provenance()
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for repeat in range(1 + arguments.repeats):
        for way, of_way in runs.items():
            run = measured(keep=way == "kept")
            print(
                f"{repeat}/{arguments.repeats}, {WAYS[way]}: first step after {run['first_step_s']:.1f} s", flush=True
            )
            of_way += [run] if repeat else []
    finish({**found, "runs": runs}, table(runs), arguments.json)
    return 0 if statistics.median(run["first_step_s"] for run in runs["new"]) < LIMIT_S else 1


def measured(*, keep: bool) -> dict[str, float]:
    """Measure one run of the main job, of a single step."""
    begin = time.time()
    environment = {} if keep else {"SST2_RAY_KEEP_DATA": "0"}
    row, wall = run_job(main_job_flags("sbert-minilm", 64, steps=1, workers=1), environment)
    before = row["started_at"].timestamp() - begin
    return {
        "before_attempt_s": before,
        "attempt_s": row["startup_seconds"],
        "first_step_s": before + row["startup_seconds"],
        "whole_command_s": wall,
    }


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Render the table in Markdown."""
    lines = [
        "| from the command to the first step, s: median (lowest to highest) | " + " | ".join(WAYS.values()) + " |"
    ]
    lines.append("|---|" + "---|" * len(runs))
    for words, name in ROWS:
        cells = []
        for of_way in runs.values():
            values = [run[name] for run in of_way]
            cells.append(f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
