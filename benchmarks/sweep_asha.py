"""ASHA against the whole grid on the same configurations: is its winner as good, for how many of the optimizer steps?

    python benchmarks/sweep_asha.py [--folder DIR] [--train-rows 1024] [--json FILE] [FLAG OF THE SWEEP ...]

Nine learning rates of sbert-minilm on the packaged reviews, the lowest and the highest far off; two seeds, two trials at
once. Both choose on held-out training sentences. The grid runs first; its rows say how good ASHA's winner is
under all seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sst2_ray.results.analysis.ranking import rank
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.provenance import collect_provenance

RATES = ("1e-6", "3e-6", "1e-5", "3e-5", "8e-5", "1.6e-4", "3.2e-4", "6.4e-4", "5e-3")
MAX_POINTS, MAX_STEP_SHARE, BAD_POINTS = 0.3, 0.40, 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="keep the sweeps here; by default they are temporary")
    parser.add_argument("--train-rows", type=int, default=1024)
    parser.add_argument("--json", help="write the figures to this file as well")
    arguments, flags = parser.parse_known_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="sweep-asha-"))
    provenance = collect_provenance()
    print(f"{provenance['chip']}, commit {provenance['git_commit']}", flush=True)
    try:
        for name, scheduler in (("grid", "none"), ("asha", "asha")):
            run(folder, name, ["--scheduler", scheduler, "--train-rows", str(arguments.train_rows), *flags])
        seconds = {
            name: json.loads((folder / name / "result.json").read_text())["seconds"] for name in ("grid", "asha")
        }
        figures = {**provenance, "seconds": seconds, **compare(ResultsTable(str(folder)))}
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    print(json.dumps({k: v for k, v in figures.items() if k not in provenance}, indent=1))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if figures["passed"] else 1


def run(folder: Path, name: str, flags: list[str]) -> None:
    common = [
        "--models", "sbert-minilm", "--data", "rotten-tomatoes", "--learning-rates", *RATES, "--batch-sizes", "32",
        "--epochs", "2", "--evaluations-per-epoch", "4", "--num-seeds", "2", "--keep-models", "1",
        "--selection-fraction", "0.05", "--max-concurrent", "2",
    ]  # fmt: skip
    command = [sys.executable, "jobs/sweep.py", *common, *flags, "--storage-path", str(folder), "--name", name]
    subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, check=True)


def compare(table: ResultsTable) -> dict[str, Any]:
    """Winners, steps, and the bad configurations with what ASHA did to them."""
    trials = {name: table.read("trials", experiment=name, attempts="latest") for name in ("grid", "asha")}
    grid = rank(trials["grid"])[0]
    means = {c.setting("learning_rate"): grid.score(c) for c in grid.configurations}
    best = max(means.values())
    winner = rank(trials["asha"])[0].best.setting("learning_rate")
    steps = {name: sum(row["last_global_step"] or 0 for row in rows.to_pylist()) for name, rows in trials.items()}
    bad = [rate for rate, mean in means.items() if 100 * (best - mean) > BAD_POINTS]
    stopped = {row["learning_rate"] for row in trials["asha"].to_pylist() if row["status"] == "early_stopped"}
    behind, share = 100 * (best - means[winner]), steps["asha"] / steps["grid"]
    return {
        "grid_means": means,
        "asha_winner": winner,
        "winner_behind_points": round(behind, 3),
        "steps": steps,
        "step_share": round(share, 3),
        "bad": bad,
        "bad_and_stopped": [rate for rate in bad if rate in stopped],
        "passed": behind <= MAX_POINTS and share <= MAX_STEP_SHARE and len(bad) >= 2 and set(bad) <= stopped,
    }


if __name__ == "__main__":
    sys.exit(main())
