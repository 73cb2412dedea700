"""Do many classes train at the rate of two? The same 20,000 sentences with 2, 14 and 150 labels, steps in alternation.

    python -m benchmarks.classes [--classes 2 14 150] [--rounds 10] [--json FILE]

Sentences of SST2_RAY_DATA's train split where that is set, else the packaged movie reviews, each class as often; all-MiniLM-L6-v2,
batch 64, the main job's worker loop on plain torch, all models in one process. A round takes 8 steps of each; the ratio is
that of the medians over the rounds. That every ratio to two classes is at least 0.97 is what passes (exit code 0).
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.shared import (
    WARM_UP_STEPS,
    data_name,
    finish,
    parser_of,
    process_group_of_one,
    provenance,
    task_of,
    with_the_workers_allocator,
)
from sst2_ray.config.train import TrainConfig
from sst2_ray.run.prepare import check
from sst2_ray.run.tokenizing import prepare
from sst2_ray.training.calibrate import loop_of, measure_steps
from sst2_ray.training.loop import Loop

LEAST = 0.97
ROWS = 20_000
STEPS = 8


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 14, 150])
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    with_the_workers_allocator("benchmarks.classes")
    found = provenance()
    process_group_of_one()
    data = prepare_texts()
    with tempfile.TemporaryDirectory() as folder:
        loops = {number: loop(Path(folder), *data, number) for number in arguments.classes}
        for one in loops.values():
            measure_steps(one, WARM_UP_STEPS)
        rates: dict[int, list[float]] = {number: [] for number in loops}
        for _ in range(arguments.rounds):
            for number, one in loops.items():
                examples, seconds = measure_steps(one, STEPS)
                rates[number].append(examples / seconds)
    medians = {number: statistics.median(runs) for number, runs in rates.items()}
    first = medians[arguments.classes[0]]
    lines = ["| classes | examples/s, median | lowest to highest | of the first |", "|---|---|---|---|"]
    for number, runs in rates.items():
        lines.append(
            f"| {number} | {medians[number]:.0f} | {min(runs):.0f} to {max(runs):.0f} | {medians[number] / first:.3f} |"
        )
    finish({"rows": ROWS, "examples_per_sec": rates, **found}, "\n".join(lines), arguments.json)
    return 0 if min(medians.values()) >= LEAST * first else 1


def prepare_texts() -> tuple[list[str], list[str]]:
    """ROWS sentences to train on, and some others to evaluate on."""
    splits = check(TrainConfig(data=data_name(), batch_size=1, train_rows=None)).splits
    texts = [str(text) for text in splits.train.texts]
    if len(texts) < ROWS:  # the packaged reviews: each several times, told apart by a number
        texts = [f"{text} {i // len(texts)}" for i, text in enumerate(texts * (1 + ROWS // len(texts)))]
    return texts[:ROWS], [str(text) for text in splits.dev.texts]


def loop(folder: Path, train: list[str], dev: list[str], number: int) -> Loop:
    """The loop of a worker on data of `number` classes, before its first step."""
    files = {name: folder / f"{name}-{number}.csv" for name in ("train", "dev")}
    for path, texts in zip(files.values(), (train, dev), strict=True):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [("text", "label"), *((text, f"class {i % number}") for i, text in enumerate(texts))]
            )
    config = TrainConfig(
        model="sbert-minilm",
        data=str(files["train"]),
        dev_data=str(files["dev"]),
        allow_leak=True,
        batch_size=64,
        epochs=100,
        engine="torch",
    )
    prepared = prepare(check(config))
    assert len(prepared.splits.classes) == number
    return loop_of(task_of(prepared), prepared.tokens)


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
