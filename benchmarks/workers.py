"""Examples a second of the real main job with this machine's cores in one worker, and shared out to several.

    python -m benchmarks.workers [--model sbert-minilm] [--workers 1 2] [--steps 150] [--repeats 3] [--json FILE] [-- FLAGS]

Every run is `sst2_ray.train` in a process of its own, in alternation, Ray included; the rate is what the results table
says of it: examples over the seconds of training steps. FLAGS go to the job as they are. Data as in throughput.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from benchmarks.shared import PHASES, finish, main_job_flags, parser_of, provenance, run_job


def main() -> int:
    own, _, flags = " ".join(sys.argv[1:]).partition(" -- ")
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="sbert-minilm")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(own.split())
    found = provenance()
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in arguments.workers}
    for repeat in range(arguments.repeats):
        for count, rows in runs.items():
            rows.append(run(arguments, count, flags.split()))
            print(
                f"{repeat + 1}/{arguments.repeats} {count} workers: {rows[-1]['examples_per_sec']:.1f} examples/s",
                flush=True,
            )
    figures = {
        "model": arguments.model,
        "batch_size": arguments.batch_size,
        "steps": arguments.steps,
        "runs": runs,
        **found,
    }
    finish(figures, table(figures), arguments.json)
    return 0


def run(arguments: argparse.Namespace, workers: int, flags: list[str]) -> dict[str, Any]:
    """Run the job once and return what its row says."""
    own = main_job_flags(arguments.model, arguments.batch_size, steps=arguments.steps, workers=workers)
    row, _ = run_job([*own, *flags])
    kept = ("examples_per_sec", "tokens_per_sec", "model_flop_utilization", "peak_memory_gib", "startup_seconds")
    return {name: row[name] for name in (*kept, *(f"{phase}_seconds" for phase in PHASES))}


def table(figures: dict[str, Any]) -> str:
    """Markdown: medians, the spread, and milliseconds a step by phase."""

    def median(rows: list[dict[str, Any]], name: str) -> float:
        return statistics.median(row[name] or 0.0 for row in rows)

    runs = figures["runs"]
    first = median(next(iter(runs.values())), "examples_per_sec")
    lines = [
        f"{figures['model']}, batch {figures['batch_size']}, {figures['steps']} steps, {figures['chip']}.",
        "",
        "| workers | examples/s, median | lowest to highest | of the first | "
        f"{' | '.join(f'{p}, ms a step' for p in PHASES)} | peak memory a worker |",
        f"|---|---|---|---|{'---|' * len(PHASES)}---|",
    ]
    for count, rows in runs.items():
        rates = [row["examples_per_sec"] for row in rows]
        phases = [f"{1e3 * median(rows, f'{p}_seconds') / figures['steps']:.0f}" for p in PHASES]
        lines.append(
            f"| {count} | {statistics.median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} | {statistics.median(rates) / first:.2f} "
            f"| {' | '.join(phases)} | {median(rows, 'peak_memory_gib'):.1f} GiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
