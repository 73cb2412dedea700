"""The cost of checkpoints: the share of the time that training stands still for them, and the whole slow-down.

    SST2_RAY_TOKENIZER=DIR python -m benchmarks.checkpoint_cost [--every-s 60] [--steps 64] [--repeats 3] [--json FILE]
        [--flags --model=modernbert-mini ...]

The main job on ModernBERT-base's shape from random weights, one worker on two threads, with a checkpoint every minute and
with none but the last in turns. Training stands still while the state is copied, and for a checkpoint before that is not
written yet; writing goes on beside the steps, on the same cores. What both kinds of run do once, the last checkpoint and
the export, is taken off. Real SST-2 from the folder SST2_RAY_DATA where that is set, else the packaged movie reviews.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import Any

from benchmarks.shared import data_name, finish, parser_of, provenance, run_job, steps_seconds
from sst2_ray import formatting

LIMIT = 0.03
"""Largest share of the time that a run may spend standing still."""

FLAGS = (
    "--model=modernbert-base", "--random-weights", "--num-workers=1", "--cpus-per-worker=2", "--batch-size=64", "--epochs=1",
    "--dev-rows=64", "--learning-rate=3e-5",
)  # fmt: skip


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--steps", type=int, default=64, help="a run; they should take four times --every-s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="of the main job, besides these ones")
    arguments = parser.parse_args()
    found = provenance()
    runs: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for repeat in range(arguments.repeats):
        for way, flags in (("without", []), ("with", [f"--checkpoint-every-s={arguments.every_s}"])):
            runs[way].append(measure([*flags, *common(arguments.steps), *arguments.flags], arguments.steps))
            print(f"{repeat + 1}/{arguments.repeats} {way}: {runs[way][-1]}", flush=True)
    figures = {
        "every_s": arguments.every_s,
        "steps": arguments.steps,
        "flags": [*common(arguments.steps), *arguments.flags],
        **summary(runs, arguments.every_s),
        "runs": runs,
        **found,
    }
    runs_each = formatting.count(arguments.repeats, "run")
    slower = f"slower by {figures['slow_down']:.1%}" if figures["slow_down"] > 0 else "no slower"
    line = (
        f"stands still {figures['stands_still_share']:.1%} of the time ({figures['stands_still_s_a_checkpoint']:.2f} s a "
        f"checkpoint), {slower} in all ({runs_each} each); peak memory {figures['peak_memory_gib_with']:.1f} GiB, "
        f"{figures['peak_memory_gib_without']:.1f} without"
    )
    finish(figures, line, arguments.json)
    return 0 if figures["stands_still_share"] < LIMIT else 1


def common(steps: int) -> list[str]:
    tokenizer = os.environ.get("SST2_RAY_TOKENIZER")
    return [
        *FLAGS, f"--max-steps={steps}", f"--data={data_name()}", *([f"--tokenizer={tokenizer}"] if tokenizer else []),
    ]  # fmt: skip


def measure(flags: list[str], steps: int) -> dict[str, float]:
    """Read the figures of one run from its row."""
    row, _ = run_job(flags)
    training = steps_seconds(row)
    return {
        "training_s": round(training, 3),
        "checkpoint_s": round(row["checkpoint_seconds"], 3),
        "steps_per_s": round(steps / training, 4),
        "examples_per_s": round(row["examples_per_sec"], 3),
        "peak_memory_gib": round(row["peak_memory_gib"], 2),
    }


def summary(runs: dict[str, list[dict[str, float]]], every_s: float) -> dict[str, Any]:
    """Medians. Slow-down: of examples a second over steps and stand-still together."""

    def median(way: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[way])

    training = median("with", "training_s")
    still = max(0.0, median("with", "checkpoint_s") - median("without", "checkpoint_s"))
    checkpoints = max(1, int(training // every_s))
    return {
        "checkpoints_a_run": checkpoints,
        "stands_still_s_a_checkpoint": round(still / checkpoints, 3),
        "stands_still_share": round(still / (training + still), 5),
        "slow_down": round(1 - median("without", "training_s") / (training + still), 5),
        "peak_memory_gib_with": median("with", "peak_memory_gib"),
        "peak_memory_gib_without": median("without", "peak_memory_gib"),
    }


if __name__ == "__main__":
    sys.exit(main())
