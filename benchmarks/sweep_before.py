"""Eight trials of the demo's sweep, with the sweep of another checkout of this repository and with today's, in alternation.

    python -m benchmarks.sweep_before --before CHECKOUT [--repeats 3] [--json FILE] [FLAG OF THE SWEEP ...]

The sweep of `make demo` with two seeds: two models and two learning rates on 2,048 of the packaged movie reviews. Seconds are
those of the whole command, start and end of Ray included. Which way begins a round alternates.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared import REPOSITORY, commit_of, finish, parser_of, provenance, steps_seconds
from sst2_ray.results.store.table import ResultsTable

NUM_TRIALS = 8
TRIALS = (
    "--models sbert-minilm modernbert-mini --learning-rates 8e-5 8e-4 --batch-sizes 32 --epochs 1 --num-seeds 2 "
    "--data rotten-tomatoes --train-rows 2048"
)
"""The demo's, spelled out: an earlier commit's preset may differ."""


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--before", required=True, help="checkout of the earlier commit")
    parser.add_argument("--repeats", type=int, default=3)
    arguments, flags = parser.parse_known_args()
    figures: dict[str, Any] = {"flags": flags, "before": commit_of(arguments.before), **provenance()}
    checkouts = {"before": Path(arguments.before).resolve(), "now": REPOSITORY}
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in checkouts}
    for repeat in range(arguments.repeats):
        for way in sorted(checkouts, reverse=repeat % 2 == 1):
            runs[way].append(swept(checkouts[way], flags))
            print(f"{repeat + 1}/{arguments.repeats} {way}: {runs[way][-1]['seconds']:.1f} s", flush=True)
    figures |= {"runs": runs, "seconds": {way: [run["seconds"] for run in of_way] for way, of_way in runs.items()}}
    finish(figures, table(figures), arguments.json)
    return 0


def swept(checkout: Path, flags: list[str]) -> dict[str, float]:
    """Run the sweep of a checkout; return its seconds, and those of all trials in steps and evaluations."""
    with tempfile.TemporaryDirectory(prefix="sweep-before-") as folder:
        command = [
            sys.executable, "jobs/sweep.py", *TRIALS.split(), "--name=demo", f"--storage-path={folder}", *flags,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        begin = time.perf_counter()
        subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        trials = ResultsTable(folder).read("trials", experiment="demo", attempts="latest").to_pylist()
    done = [trial for trial in trials if trial["status"] == "succeeded"]
    assert len(done) == len(trials) == NUM_TRIALS, f"{len(done)} of {len(trials)} trials succeeded"
    return {
        "seconds": seconds,
        "steps_s": sum(map(steps_seconds, trials)),
        "evaluation_s": sum(trial["evaluation_seconds"] for trial in trials),
    }


def table(figures: dict[str, Any]) -> str:
    """Markdown: medians, and what of them went into steps and evaluations."""
    runs = figures["runs"]
    commits = {"before": f"commit {figures['before']}", "now": "this commit"}
    first = statistics.median(figures["seconds"]["before"])
    lines = [
        f"{NUM_TRIALS} trials of the demo's sweep.",
        "",
        "| sweep of | s, median | lowest to highest | in steps, s | in evaluations, s | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    for way, seconds in figures["seconds"].items():
        median = statistics.median(seconds)
        steps, evaluation = (statistics.median(run[name] for run in runs[way]) for name in ("steps_s", "evaluation_s"))
        lines.append(
            f"| {commits[way]} | {median:.1f} | {min(seconds):.1f} to {max(seconds):.1f} | {steps:.1f} | {evaluation:.1f} | "
            f"{first / median:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
