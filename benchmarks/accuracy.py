"""After equal epochs, does the main job learn what the Hugging Face Trainer learns?

    python -m benchmarks.accuracy [--train-rows 2048] [--epochs 2] [--seeds 0 1 2] [--json FILE]

The same model, rows, optimizer and schedule; for every seed the main job (Ray and ZeRO-2), then the Trainer with random
batches and with batches of like length, each scored on dev at the end. Agrees (exit code 0) where the 95 % interval of the
paired difference of the means holds 0, for both. Data as in throughput.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.shared import (
    data_name,
    finish,
    parser_of,
    provenance,
    run_job,
    with_the_workers_allocator,
)
from sst2_ray.config.train import TrainConfig
from sst2_ray.statistics.scores import summarize

OURS = "main-job"
TRAINERS = {"trainer": False, "trainer-grouped": True}


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--train-rows", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    with_the_workers_allocator("benchmarks.accuracy")
    found = provenance()
    config = TrainConfig(
        model="sbert-minilm", data=data_name(), train_rows=arguments.train_rows, batch_size=arguments.batch_size
    )
    job = peers.job_of(config)
    accuracies: dict[str, list[float]] = {name: [] for name in (OURS, *TRAINERS)}
    for seed in arguments.seeds:
        accuracies[OURS].append(ours(arguments, seed))
        for name, grouped in TRAINERS.items():
            accuracies[name].append(theirs(job, arguments, seed, grouped=grouped))
        print(
            f"seed {seed}: {', '.join(f'{name} {values[-1]:.4f}' for name, values in accuracies.items())}", flush=True
        )
    differences = {name: difference(accuracies[OURS], accuracies[name]) for name in TRAINERS}
    figures = {**vars(arguments), "data": data_name(), "accuracies": accuracies, "differences": differences}
    finish({**figures, **found}, table(figures), arguments.json)
    return 0 if all(low <= 0 <= high for _, low, high in differences.values()) else 1


def ours(arguments: argparse.Namespace, seed: int) -> float:
    row, _ = run_job([
        "--model=sbert-minilm", f"--data={data_name()}", f"--train-rows={arguments.train_rows}",
        f"--batch-size={arguments.batch_size}", f"--epochs={arguments.epochs}", f"--seed={seed}",
    ])  # fmt: skip
    return float(row["last_dev_accuracy"])


def theirs(job: peers.Job, arguments: argparse.Namespace, seed: int, *, grouped: bool) -> float:
    torch.manual_seed(seed)
    model, dev = peers.PeerModel(job.folder), job.rows("dev")
    with tempfile.TemporaryDirectory() as scratch:
        trainer = peers.made_trainer(
            job, model, job.rows(), scratch, grouped=grouped, num_train_epochs=arguments.epochs, seed=seed
        )
        trainer.train()
        said = trainer.predict(dev)  # in an order of its own where it groups by length
    return float((np.asarray(said.predictions).argmax(1) == said.label_ids).mean())


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Mean of the paired differences and its 95 % interval, in points."""
    said = summarize([100 * (a - b) for a, b in zip(ours, theirs, strict=True)])
    assert said.interval is not None, "an interval needs two seeds"
    return said.mean, said.interval.low, said.interval.high


def agrees(said: tuple[float, float, float]) -> str:
    """Of a difference and its interval: yes, or which way learned more."""
    mean, low, high = said
    return "yes" if low <= 0 <= high else f"no: {'the main job' if mean > 0 else 'this way'} learned more"


def table(figures: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"sbert-minilm, {figures['train_rows']:,} training sentences, {figures['epochs']} epochs, batch {figures['batch_size']}, "
        f"{len(figures['seeds'])} seeds.",
        "",
        "| way | dev accuracy, mean | by seed | main job less this, points (95 % interval) | the interval holds 0 |",
        "|---|---|---|---|---|",
    ]
    for name, values in figures["accuracies"].items():
        said = figures["differences"].get(name)
        cell = f"{said[0]:+.2f} ({said[1]:+.2f} to {said[2]:+.2f}) | {agrees(said)}" if said else "|"
        runs = ", ".join(f"{100 * value:.1f}" for value in values)
        lines.append(f"| {name} | {100 * statistics.mean(values):.2f} % | {runs} | {cell} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
