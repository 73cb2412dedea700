"""The tables of `make bench` on this machine's GPUs: the real main job on one of them and on all.

    python -m benchmarks.gpu [--steps 200] [--repeats 3] [--batch-per-gpu 64 1024] [--json FILE] [--flags ...]

A worker a GPU, in alternation with a single one, the batch growing with the workers (weak scaling): SBERT, and ModernBERT-base
where SST2_RAY_TOKENIZER names its tokenizer's folder (random weights: that changes no speed), else the small ModernBERT.
--flags, last: of every run, such as --compile, --no-overlap-comm or --attention=sdpa, to see what each is worth.
Examples/s and model FLOP utilisation after warm-up, milliseconds a step by phase, by the GPU's own clock, and peak GPU
memory. Where torch sees no GPU: one line, exit code 2.

Several GPUs were never measured by its authors: no figure of them is claimed anywhere. `python -m pytest tests/gpu` comes first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks import workers
from benchmarks.shared import (
    PHASES,
    WARM_UP_STEPS,
    data_name,
    finish,
    main_job_flags,
    parser_of,
    provenance,
    rate_after_warm_up,
    run_in,
)
from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.prepare import check


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-per-gpu", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="of the main job, besides these ones")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: torch sees none on this machine, so there is nothing to measure", file=sys.stderr)
        return 2
    found = {**provenance(), "gpu": torch.cuda.get_device_name(), "num_gpus": torch.cuda.device_count()}
    tokenizer = os.environ.get("SST2_RAY_TOKENIZER")
    base = ["--random-weights", f"--tokenizer={tokenizer}"]
    models = {"sbert-minilm": [], **({"modernbert-base": base} if tokenizer else {"modernbert-mini": []})}
    tables = [
        measured(arguments, found, model, flags, batch)
        for model, flags in models.items()
        for batch in arguments.batch_per_gpu
    ]
    finish(
        {**found, "flags": arguments.flags, "tables": tables},
        "\n\n".join(table(figures) for figures in tables),
        arguments.json,
    )
    return 0


def measured(arguments: Any, found: dict[str, Any], model: str, flags: list[str], batch: int) -> dict[str, Any]:
    """Make all runs of one model and batch: rows of `trials`, their rates those after warm-up."""
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in sorted({1, found["num_gpus"]})}
    for repeat in range(arguments.repeats):
        for count, rows in runs.items():
            rows.append(run(model, batch * count, arguments.steps, count, ["--use-gpu=True", *flags, *arguments.flags]))
            said = f"{model}, {batch} a GPU, {count} GPUs: {rows[-1]['examples_per_sec']:.0f} examples/s"
            print(f"{repeat + 1}/{arguments.repeats} {said}", flush=True)
    steps = WARM_UP_STEPS + arguments.steps
    return {"model": model, "batch_size": batch, "steps": steps, "runs": runs, "chip": found["gpu"]}


def run(model: str, batch_size: int, steps: int, workers: int, flags: list[str]) -> dict[str, Any]:
    """Run the job once. An epoch is the warm-up: the table of evaluations has the rate of every stretch of as many steps."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_rows(Path(folder), WARM_UP_STEPS * batch_size)
        own = main_job_flags(model, batch_size, steps=WARM_UP_STEPS + steps, workers=workers)
        run_in(f"{folder}/runs", [*own, *files, *flags])
        row = ResultsTable(f"{folder}/runs").read("trials", experiment="benchmark").to_pylist()[-1]
        rate = rate_after_warm_up(f"{folder}/runs")
    kept = ("peak_memory_gib", "startup_seconds", *(f"{phase}_seconds" for phase in PHASES))
    share = rate / row["examples_per_sec"]
    rates = ("examples_per_sec", "tokens_per_sec", "model_flop_utilization")
    return {
        **{name: row[name] for name in kept},
        **{name: row[name] and row[name] * share for name in rates},
    }


def write_rows(folder: Path, count: int) -> list[str]:
    """Write a file of `count` training rows, the sentences over and over, and return the flags that read it."""
    train = check(TrainConfig(data=data_name(), batch_size=1)).splits.train
    shuffled = np.random.default_rng(0).permutation(len(train.texts))  # a corpus may be sorted by label
    place = shuffled[np.arange(count) % len(shuffled)]
    rows = pa.table({"text": pa.array(train.texts).take(place), "label": pa.array(train.labels).take(place)})
    pq.write_table(rows, folder / "train.parquet")
    pq.write_table(rows.slice(0, 64), folder / "dev.parquet")
    return [f"--data={folder}/train.parquet", f"--dev-data={folder}/dev.parquet", "--allow-leak"]


def table(figures: dict[str, Any]) -> str:
    """Format the table of workers.py, with the utilization."""
    shares = {
        count: [row["model_flop_utilization"] for row in rows if row["model_flop_utilization"] is not None]
        for count, rows in figures["runs"].items()
    }
    known = [f"{statistics.median(values):.1%} on {count}" for count, values in shares.items() if values]
    line = f"Model FLOP utilisation: {', '.join(known) if known else 'unknown, the GPU is not in the table of data sheets'}."
    return (
        f"{workers.table(figures)}\n\n{line} The batch is that of one GPU. Rates and utilisation count after {WARM_UP_STEPS} "
        "steps of warm-up; milliseconds by phase are of all steps, the first ones with what they set up and compile included."
    )


if __name__ == "__main__":
    sys.exit(main())
