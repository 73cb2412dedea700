"""Examples a second of the real main job on 1, 2 and 4 workers with the same batch for each: weak scaling.

    python -m benchmarks.weak_scaling [--model sbert-minilm] [--workers 1 2 4] [--batch-per-worker 32] [--steps 60] [--json FILE]

Every worker has one core, `--batch-per-worker` sentences of every step, and is a process of its own; runs alternate. On a
machine with fewer cores than workers the workers share cores, which the table says: there a constant total is the best
that can be expected. About 6 minutes on two cores. Data as in throughput.py.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from typing import Any

from benchmarks.shared import PHASES, data_name, finish, parser_of, provenance, run_job


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="sbert-minilm")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch-per-worker", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    found = provenance()
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in arguments.workers}
    for repeat in range(arguments.repeats):
        for count, rows in runs.items():
            rows.append(run(arguments, count))
            print(
                f"{repeat + 1}/{arguments.repeats} {count} workers: {rows[-1]['examples_per_sec']:.1f} examples/s",
                flush=True,
            )
    figures = {**vars(arguments), "num_cores": os.cpu_count(), "runs": runs}
    finish({**figures, **found}, table(figures), arguments.json)
    return 0


def run(arguments: Any, workers: int) -> dict[str, Any]:
    flags = [
        f"--model={arguments.model}", f"--data={data_name()}", f"--batch-size={workers * arguments.batch_per_worker}",
        f"--max-steps={arguments.steps}", "--epochs=100", "--dev-rows=64", f"--num-workers={workers}", "--cpus-per-worker=1",
    ]  # fmt: skip
    # Ray places one worker a core; told of more cores than there are, it lets workers share them.
    cores = {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": workers})} if workers > (os.cpu_count() or 1) else {}
    row, wall = run_job(flags, environment=cores)
    kept = ("examples_per_sec", "tokens_per_sec", "peak_memory_gib", "startup_seconds")
    return {"wall_s": wall, **{name: row[name] for name in (*kept, *(f"{phase}_seconds" for phase in PHASES))}}


def table(figures: dict[str, Any]) -> str:
    """Markdown: medians, and the share of what as many single workers would do."""
    runs = figures["runs"]

    def median(rows: list[dict[str, Any]], name: str) -> float:
        return statistics.median(row[name] or 0.0 for row in rows)

    first, one = next(iter(runs)), median(next(iter(runs.values())), "examples_per_sec")
    lines = [
        f"{figures['model']}, {figures['batch_per_worker']} sentences a worker and step, {figures['num_cores']} cores.",
        "",
        "| workers | sentences a step | examples/s in all, median | lowest to highest | efficiency | communication, ms a step | |",
        "|---|---|---|---|---|---|---|",
    ]
    for count, rows in runs.items():
        rates = [row["examples_per_sec"] for row in rows]
        shared = count > figures["num_cores"]
        lines.append(
            f"| {count} | {count * figures['batch_per_worker']} | {statistics.median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} "
            f"| {statistics.median(rates) / one * first / count:.0%} "
            f"| {1e3 * median(rows, 'communication_seconds') / figures['steps']:.0f} | {'workers share cores' if shared else ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
