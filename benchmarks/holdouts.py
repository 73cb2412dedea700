"""Seconds of reading, holding out and comparing data of many rows, before a run starts.

    python -m benchmarks.holdouts [--rows 1600000] [--json FILE]

A CSV file of real sentences and phrases: those of SST2_RAY_DATA's train split where that is set, else the packaged movie
reviews, over and over, in each round with other words between them, so that few rows are alike and many stand in others.
What is timed is what `train` does before it looks at the model: reading, classes, a hold-out of 5 % that shares no phrase
with the rest, and, with a dev file of 100,000 rows, the comparison of both. That each takes less than a minute is what
passes (exit code 0).
"""

from __future__ import annotations

import csv
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.shared import data_name, finish, parser_of, provenance
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits

MOST_S = 60.0
DEV_ROWS = 100_000
WORDS = ("really", "perhaps", "again", "today", "twice", "at last", "so far", "of course")


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=1_600_000)
    arguments = parser.parse_args()
    found = provenance()
    splits = load_splits(TrainConfig(data=data_name(), batch_size=1))
    base = [(str(text), int(label)) for text, label in zip(splits.train.texts, splits.train.labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        train, dev = Path(folder) / "train.csv", Path(folder) / "dev.csv"
        write(train, perturbed(base, arguments.rows))
        write(dev, ((f"unseen {text}", label) for text, label in perturbed(base, DEV_ROWS)))
        seconds = {
            "hold-out": timed(data=str(train), holdout_fraction=0.05),
            "comparison with a dev file": timed(data=str(train), dev_data=str(dev)),
        }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = [
        "| of | rows | s |",
        "|---|---|---|",
        *(f"| {what} | {arguments.rows:,} | {s:.1f} |" for what, s in seconds.items()),
    ]
    lines += ["", f"Peak memory {memory:.1f} GiB."]
    finish(
        {"rows": arguments.rows, "seconds": seconds, "peak_memory_gib": memory, **found},
        "\n".join(lines),
        arguments.json,
    )
    return 0 if max(seconds.values()) < MOST_S else 1


def perturbed(base: list[tuple[str, int]], count: int) -> Iterator[tuple[str, int]]:
    """`count` rows: the sentences round after round, in each with a word of the round after a place of it."""
    for number in range(count):
        text, label = base[number % len(base)]
        round_of = number // len(base)
        words = text.split()
        place = round_of * 7 % (len(words) + 1)
        added = [WORDS[round_of % len(WORDS)], str(round_of)] if round_of else []
        yield " ".join([*words[:place], *added, *words[place:]]), label


def write(path: Path, rows: Iterator[tuple[str, int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def timed(**config: object) -> float:
    start = time.perf_counter()
    splits = load_splits(TrainConfig(**config))  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    print(f"{len(splits.train):,} train, {len(splits.dev):,} dev rows: {seconds:.1f} s", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
