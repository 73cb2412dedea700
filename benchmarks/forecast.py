"""The planner against the real job: seconds a step, wall-clock and peak memory a worker, predicted and then measured.

    python -m benchmarks.forecast [--steps 200] [--repeats 2] [--only NAME ...] [--json FILE]

For every configuration the forecast of `--dry-run --calibrate` is made and then the real main job is run, Ray included:
nine of them, a quarter of an hour a round on two cores. Passes (exit code 0) where every mean over the rounds is within 20 %
(time) and 10 % (memory) of what was measured: a machine may be faster in one minute than in the next. modernbert-base has
random weights and fewer steps; its tokenizer is the folder SST2_RAY_TOKENIZER, without which it is left out. Data: the
folder SST2_RAY_DATA, else the packaged movie reviews.
"""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.shared import data_name, finish, parser_of, provenance, run_job, steps_seconds
from sst2_ray.config.train import TrainConfig
from sst2_ray.run.environment import prepare_driver
from sst2_ray.run.planning.forecast import forecast
from sst2_ray.run.planning.nodes import this_machine
from sst2_ray.run.planning.placement import decide
from sst2_ray.run.prepare import check
from sst2_ray.run.tokenizing import prepare

TIME_LIMIT, MEMORY_LIMIT = 0.20, 0.10
"""Relative errors that are let pass."""

BASE_STEPS = 64
QUANTITIES = {
    "seconds_per_step": ("s a step", TIME_LIMIT),
    "wall_s": ("s in all", TIME_LIMIT),
    "peak_memory_gib": ("GiB a worker", MEMORY_LIMIT),
}


@dataclass(frozen=True)
class Case:
    """A configuration of the main job."""

    model: str
    batch_size: int
    num_workers: int

    def __str__(self) -> str:
        return f"{self.model}-{self.batch_size}-{self.num_workers}x"

    def config(self, steps: int) -> TrainConfig:
        base = self.model == "modernbert-base"
        return TrainConfig(
            model=self.model,
            random_weights=base,
            tokenizer=os.environ.get("SST2_RAY_TOKENIZER") if base else None,
            data=data_name(),
            batch_size=self.batch_size,
            epochs=100,
            max_steps=BASE_STEPS if base else steps,
            num_workers=self.num_workers,
            cpus_per_worker=max(1, (os.cpu_count() or 1) // self.num_workers),
        )


def cases() -> list[Case]:
    small = [
        Case(model, size, workers)
        for workers in (1, 2)
        for model in ("sbert-minilm", "modernbert-mini")
        for size in (32, 64)
    ]
    return [*small, *([Case("modernbert-base", 32, 1)] if os.environ.get("SST2_RAY_TOKENIZER") else [])]


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=200, help=f"of the real job (modernbert-base: {BASE_STEPS})")
    parser.add_argument("--repeats", type=int, default=2, help="rounds over all configurations")
    parser.add_argument("--only", nargs="+", choices=[str(c) for c in cases()], help="these configurations")
    arguments = parser.parse_args()
    found = provenance()
    prepare_driver()
    rounds = []
    for _ in range(arguments.repeats):
        for case in cases():
            if arguments.only is None or str(case) in arguments.only:
                config = case.config(arguments.steps)
                rounds.append({"case": str(case), "predicted": predicted(config), "measured": measured(config)})
                print(line(rounds[-1]), flush=True)
    runs = means(rounds)
    finish({"steps": arguments.steps, "runs": runs, **found}, table(runs), arguments.json)
    return 0 if all(abs(error(r, name)) <= limit for r in runs for name, (_, limit) in QUANTITIES.items()) else 1


def predicted(config: TrainConfig) -> dict[str, float]:
    """Ask `--dry-run --calibrate`."""
    prepared = prepare(check(config))
    said = forecast(prepared, decide(config, this_machine()))
    return {
        "seconds_per_step": said.seconds_per_step,
        "wall_s": said.seconds,
        "peak_memory_gib": said.peak_memory_gib,
        "evaluation_s": said.evaluation_seconds,
    }


def measured(config: TrainConfig) -> dict[str, float]:
    """Run the same configuration and return what it took."""
    flags = [
        f"--model={config.model}", f"--data={config.data}", f"--batch-size={config.batch_size}",
        f"--epochs={config.epochs}", f"--max-steps={config.max_steps}", f"--num-workers={config.num_workers}",
        f"--cpus-per-worker={config.cpus_per_worker}",
    ]  # fmt: skip
    if config.random_weights:
        flags += ["--random-weights", f"--tokenizer={config.tokenizer}"]
    row, wall = run_job(flags)
    assert config.max_steps is not None
    return {
        "seconds_per_step": steps_seconds(row) / config.max_steps,
        "wall_s": wall,
        "peak_memory_gib": row["peak_memory_gib"],
        "evaluation_s": row["evaluation_seconds"],
        "startup_s": row["startup_seconds"],
    }


def means(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average each configuration over its rounds, which stay beside it."""
    runs = []
    for case in dict.fromkeys(one["case"] for one in rounds):
        of_case = [one for one in rounds if one["case"] == case]
        mean = {
            side: {name: statistics.mean(one[side][name] for one in of_case) for name in of_case[0][side]}
            for side in ("predicted", "measured")
        }
        runs.append({"case": case, **mean, "rounds": [{side: one[side] for side in mean} for one in of_case]})
    return runs


def error(run: dict[str, Any], name: str) -> float:
    """Relative to what was measured."""
    return run["predicted"][name] / run["measured"][name] - 1


def line(run: dict[str, Any]) -> str:
    parts = [
        f"{run['predicted'][name]:.3g} against {run['measured'][name]:.3g} {unit} ({error(run, name):+.0%})"
        for name, (unit, _) in QUANTITIES.items()
    ]
    return f"{run['case']}: {', '.join(parts)}"


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: predicted, measured and relative error of each quantity."""
    heads = " | ".join(f"{unit}: predicted | measured | error" for unit, _ in QUANTITIES.values())
    lines = [f"| model-batch-workers | {heads} |", f"|---|{'---|' * 3 * len(QUANTITIES)}"]
    for run in runs:
        cells = " | ".join(
            f"{run['predicted'][name]:.3g} | {run['measured'][name]:.3g} | {error(run, name):+.0%}"
            for name in QUANTITIES
        )
        lines.append(f"| {run['case']} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
