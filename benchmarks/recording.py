"""The share of a step that recording where a run's time goes costs.

    python -m benchmarks.recording [--model modernbert-mini] [--batch-size 32] [--steps 64] [--repeats 5] [--json FILE]

One worker's loop of the main job (ZeRO-2, as in throughput.py) counts the phases it records in a step; then so many are
recorded with nothing in them. The default is the shortest step that the package has. Passes (exit code 0) below 1 %. Data:
the folder SST2_RAY_DATA, else the packaged movie reviews.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from benchmarks.shared import (
    finish,
    parser_of,
    provenance,
    with_the_workers_allocator,
)
from sst2_ray.training.calibrate import measure_steps
from sst2_ray.training.throughput import PhaseTimer

LIMIT = 0.01
RECORDED = 100_000


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="modernbert-mini")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="as of a run")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with_the_workers_allocator("benchmarks.recording")
    from benchmarks.evaluation import made_loop

    found = provenance()
    loop = made_loop(arguments)
    measure_steps(loop, arguments.steps)
    timer = Counting()
    loop.context.timer = timer
    steps, phases = [], []
    for _ in range(arguments.repeats):
        steps.append(measure_steps(loop, arguments.steps)[1] / arguments.steps)
        phases.append(seconds_of_a_phase())
    share = (
        timer.recorded / (arguments.steps * arguments.repeats) * statistics.median(phases) / statistics.median(steps)
    )
    figures: dict[str, Any] = {
        **vars(arguments),
        "phases_a_step": timer.recorded / (arguments.steps * arguments.repeats),
        "seconds_of_a_phase": phases,
        "seconds_a_step": steps,
        "share": share,
    }
    finish({**figures, **found}, table(figures), arguments.json)
    return 0 if share < LIMIT else 1


class Counting(PhaseTimer):
    """Counts the phases that it records."""

    recorded = 0

    def phase(self, name: str):  # type: ignore[no-untyped-def]
        self.recorded += 1
        return super().phase(name)


def seconds_of_a_phase() -> float:
    timer = PhaseTimer()
    start = time.perf_counter()
    for _ in range(RECORDED):
        with timer.phase("forward"):
            pass
    return (time.perf_counter() - start) / RECORDED


def table(figures: dict[str, Any]) -> str:
    return (
        f"{figures['model']}, batch {figures['batch_size']}: {figures['phases_a_step']:.1f} phases a step, "
        f"{1e6 * statistics.median(figures['seconds_of_a_phase']):.2f} us each, of a step of "
        f"{1e3 * statistics.median(figures['seconds_a_step']):.0f} ms: {100 * figures['share']:.3f} %."
    )


if __name__ == "__main__":
    sys.exit(main())
