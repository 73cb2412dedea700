"""Folders of files to label, and what labelling them on a cluster and in one process gives."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ["a gripping film", "it never comes to life", "warm", "no movement", "funny , engaging", "uneasy", "raw", ""]


def review_folder(folder: Path, *, files: int, rows: int, seed: int = 0) -> Path:
    """A folder of Parquet files whose rows have an id, a text, which is blank now and then, and a label."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    for number in range(files):
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))).strip() for _ in range(rows)]
        table = pa.table({
            "id": [number * rows + i for i in range(rows)], "text": texts,
            "label": [draw.choice(("negative", "positive")) for _ in range(rows)],
        })  # fmt: skip
        pq.write_table(table, folder / f"{number:03d}.parquet")
    return folder


def labelled_rows(output: Path) -> pa.Table:
    """The rows of a labelled file, or of the parts of a labelled folder in the order of their names."""
    files = sorted(output.glob("part-*.parquet")) if output.is_dir() else [output]
    return pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()


def counted_rows(output: Path) -> int:
    """Rows of the parts that a folder has now."""
    return sum(json.loads(file.read_text())["num_rows"] for file in (output / "_parts").glob("*.json"))
