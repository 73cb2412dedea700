"""Examples a second of the real main job with this machine's cores in one worker, and shared out to several.

    python -m benchmarks.workers [--model sbert-minilm] [--workers 1 2] [--steps 150] [--repeats 3] [--json FILE] [-- FLAGS]

Every run is `sst2_ray.train` in a process of its own, in alternation, Ray included; the rate is what the results table
says of it: examples over the seconds of training steps. FLAGS go to the job as they are. Data as in throughput.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sst2_ray.results.provenance import collect_provenance
from sst2_ray.results.table import ResultsTable

REPOSITORY = Path(__file__).resolve().parents[1]
PHASES = ("data", "forward", "backward", "communication", "optimizer")


def main() -> int:
    own, _, flags = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sbert-minilm")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the figures to this file as well")
    arguments = parser.parse_args(own.split())
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
        **collect_provenance(),
    }
    print(table(figures))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def run(arguments: argparse.Namespace, workers: int, flags: list[str]) -> dict[str, Any]:
    """One run of the job, and what its row says."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "jobs/train.py", f"--model={arguments.model}", "--name=benchmark", f"--storage-path={folder}",
            f"--data={os.environ.get('SST2_RAY_DATA', 'rotten-tomatoes')}", f"--batch-size={arguments.batch_size}",
            f"--max-steps={arguments.steps}", "--epochs=100", "--dev-rows=64", f"--num-workers={workers}",
            f"--cpus-per-worker={max(1, cores // workers)}", *flags,
        ]  # fmt: skip
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
        row = ResultsTable(folder).read("trials", experiment="benchmark").to_pylist()[-1]
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
