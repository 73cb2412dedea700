"""The tables of `make bench` on this machine's GPUs: the real main job on one of them and on all.

    python -m benchmarks.gpu [--steps 200] [--repeats 3] [--batch-per-gpu 64 1024] [--json FILE] [--flags ...]

A worker a GPU, in alternation with a single one, the batch growing with the workers (weak scaling): SBERT, and ModernBERT-base
where SST2_RAY_TOKENIZER names its tokenizer's folder (random weights: that changes no speed), else the small ModernBERT.
--flags, last: of every run, such as --compile, --no-overlap-comm or --attention=sdpa, to see what each is worth.
Examples/s, milliseconds a step by phase, peak GPU memory and model FLOP utilisation as the results table has them: by
the GPU's own clock. Where torch sees no
GPU: one line, exit code 2.

This was never run on a GPU by its authors: no figure of it is claimed anywhere. `python -m pytest tests/gpu` comes first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import Any

import torch

from benchmarks import workers
from benchmarks.shared import finish, parser_of, provenance


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
    """All runs of one model and batch, as workers.py has them."""
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in sorted({1, found["num_gpus"]})}
    for repeat in range(arguments.repeats):
        for count, rows in runs.items():
            arguments.model, arguments.batch_size = model, batch * count
            rows.append(workers.run(arguments, count, ["--use-gpu=True", *flags, *arguments.flags]))
            said = f"{model}, {batch} a GPU, {count} GPUs: {rows[-1]['examples_per_sec']:.0f} examples/s"
            print(f"{repeat + 1}/{arguments.repeats} {said}", flush=True)
    return {"model": model, "batch_size": batch, "steps": arguments.steps, "runs": runs, "chip": found["gpu"]}


def table(figures: dict[str, Any]) -> str:
    """That of workers.py, and the utilisation."""
    shares = {
        count: [row["model_flop_utilization"] for row in rows if row["model_flop_utilization"] is not None]
        for count, rows in figures["runs"].items()
    }
    known = [f"{statistics.median(values):.1%} on {count}" for count, values in shares.items() if values]
    line = f"Model FLOP utilisation: {', '.join(known) if known else 'unknown, the GPU is not in the table of data sheets'}."
    return f"{workers.table(figures)}\n\n{line} The batch is that of one GPU."


if __name__ == "__main__":
    sys.exit(main())
