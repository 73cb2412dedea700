"""After equal epochs, does the main job learn what the Hugging Face Trainer learns?

    python -m benchmarks.accuracy [--train-rows 4096] [--margin POINTS] [--seeds 0 1 2] [--json FILE]

The same model, rows, optimizer and schedule for one epoch; for every seed the main job (Ray and ZeRO-2), then the Trainer
with random batches and with batches of like length, each scored on dev at the end. The main job is not inferior (exit code
0) where the 95 % interval of its accuracy less the Trainer's, for new seeds and new sentences, lies above minus the margin,
for both. Seeds whose answers are in the JSON file already are not run again. Data as in throughput.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.aims import ACCURACY_MARGIN
from benchmarks.shared import data_name, finish, parser_of, provenance, run_in, with_the_workers_allocator
from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics import crossed

OURS = "main-job"
TRAINERS = {"trainer": False, "trainer-grouped": True}
Answers = dict[str, dict[str, list[int]]]
"""Way -> seed -> the numbers of the dev sentences that it gets wrong."""


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--train-rows", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--margin", type=float, default=ACCURACY_MARGIN, help="points that count as no worse")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    with_the_workers_allocator("benchmarks.accuracy")
    found = provenance()
    config = TrainConfig(
        model="sbert-minilm", data=data_name(), train_rows=arguments.train_rows, batch_size=arguments.batch_size
    )
    job = peers.job_of(config)
    num_sentences = len(job.rows("dev"))
    assert job.prepared.tokens["dev"].row_ids.tolist() == list(range(num_sentences))
    wrong = earlier(arguments)
    for seed in arguments.seeds:
        if str(seed) not in wrong[OURS]:
            answers = {OURS: run_main_job(arguments, seed)}
            answers |= {name: run_trainer(job, seed, grouped=grouped) for name, grouped in TRAINERS.items()}
            for name, rows in answers.items():
                wrong[name][str(seed)] = rows
        shown = ", ".join(f"{name} {1 - len(runs[str(seed)]) / num_sentences:.4f}" for name, runs in wrong.items())
        print(f"seed {seed}: {shown}", flush=True)
    figures = {
        **{name: getattr(arguments, name) for name in ("train_rows", "batch_size", "margin")},
        "data": data_name(),
        "seeds": sorted(map(int, wrong[OURS])),
        "num_sentences": num_sentences,
        "wrong": wrong,
        "differences": {name: difference(wrong[OURS], wrong[name], num_sentences) for name in TRAINERS},
    }
    finish({**figures, **found}, table(figures), arguments.json)
    return 0 if all(low > -arguments.margin for _, low, _ in figures["differences"].values()) else 1


def earlier(arguments: argparse.Namespace) -> Answers:
    """Read the answers that the JSON file holds already, of the same training."""
    path = Path(arguments.json) if arguments.json else None
    known = json.loads(path.read_text()) if path is not None and path.exists() else {}
    same = all(known.get(name) == getattr(arguments, name) for name in ("train_rows", "batch_size"))
    return known["wrong"] if same and "wrong" in known else {name: {} for name in (OURS, *TRAINERS)}


def run_main_job(arguments: argparse.Namespace, seed: int) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        run_in(folder, [
            "--model=sbert-minilm", f"--data={data_name()}", f"--train-rows={arguments.train_rows}",
            f"--batch-size={arguments.batch_size}", "--epochs=1", f"--seed={seed}",
        ])  # fmt: skip
        rows = ResultsTable(folder).read("predictions", columns=["row_id", "label", "predicted"]).to_pylist()
    return sorted(row["row_id"] for row in rows if row["predicted"] != row["label"])


def run_trainer(job: peers.Job, seed: int, *, grouped: bool) -> list[int]:
    torch.manual_seed(seed)
    model, dev = peers.PeerModel(job.folder), job.rows("dev")
    with tempfile.TemporaryDirectory() as scratch:
        trainer = peers.made_trainer(job, model, job.rows(), scratch, grouped=grouped, num_train_epochs=1, seed=seed)
        trainer.train()
        trainer.args.train_sampling_strategy = "random"  # grouped by length, it would predict in an order of its own
        said = trainer.predict(dev)
    assert said.label_ids.tolist() == [row["labels"] for row in dev], "its answers are not in the order of dev"
    return np.flatnonzero(np.asarray(said.predictions).argmax(1) != said.label_ids).tolist()


def difference(ours: dict[str, list[int]], theirs: dict[str, list[int]], num_sentences: int) -> list[float]:
    """Accuracy of the main job less that of a peer and its 95 % interval for new seeds and new sentences, in points."""

    def correct(runs: dict[str, list[int]]) -> np.ndarray:
        right = np.ones((len(runs), num_sentences), dtype=bool)
        for number, seed in enumerate(sorted(runs, key=int)):
            right[number, runs[seed]] = False
        return right

    said = crossed.compare(correct(ours), correct(theirs))
    return [100 * value for value in (said.value, said.interval.low, said.interval.high)]


def table(figures: dict[str, Any]) -> str:
    """Markdown."""
    num, margin = figures["num_sentences"], figures["margin"]
    lines = [
        f"sbert-minilm, {figures['train_rows']:,} training sentences, 1 epoch, batch {figures['batch_size']}, "
        f"{len(figures['seeds'])} seeds, {num} dev sentences. Not inferior: the interval lies above -{margin:g} points.",
        "",
        "| way | dev accuracy, mean | by seed | main job less this, points (95 % interval) | the main job is not inferior |",
        "|---|---|---|---|---|",
    ]
    for name, runs in figures["wrong"].items():
        scores = [100 * (1 - len(runs[seed]) / num) for seed in sorted(runs, key=int)]
        said = figures["differences"].get(name)
        cell = (
            f"{said[0]:+.2f} ({said[1]:+.2f} to {said[2]:+.2f}) | {'yes' if said[1] > -margin else 'not shown'}"
            if said
            else "|"
        )
        lines.append(f"| {name} | {statistics.mean(scores):.2f} % | {', '.join(f'{s:.1f}' for s in scores)} | {cell} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
