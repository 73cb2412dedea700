"""Small data sets of the tests' own, as rows and as files of every format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Review = tuple[str, object]

_SUBJECTS = ("the plot", "its lead", "every joke", "the score", "this sequel", "the camera", "a twist", "the ending")
_OPINIONS = {1: ("glows", "sings", "delights", "soars"), 0: ("drags", "grates", "sinks", "bores")}


def reviews(num_rows: int, *, topic: str = "film") -> list[Review]:
    """`num_rows` distinct sentences, positive and negative in turn; another topic gives other sentences."""
    made = []
    for i in range(num_rows):
        label = 1 - i % 2
        half = i // 2
        opinion = _OPINIONS[label][half % 4]
        made.append((f"{_SUBJECTS[half // 4 % 8]} of {topic} number {half} {opinion} .", label))
    return made


def write_tsv(path: Path, rows: Sequence[Review], *, header: str = "sentence\tlabel") -> Path:
    """GLUE's layout: a header, tabs, no quoting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in (header, *(f"{text}\t{label}" for text, label in rows))))
    return path


def write_glue_folder(folder: Path, train: Sequence[Review], dev: Sequence[Review]) -> Path:
    write_tsv(folder / "train.tsv", train)
    write_tsv(folder / "dev.tsv", dev)
    return folder


def write_parquet(path: Path, rows: Sequence[Review], *, names: tuple[str, str] = ("text", "label")) -> Path:
    texts, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({names[0]: list(texts), names[1]: list(labels)}), path)
    return path


def write_jsonl(path: Path, rows: Sequence[Review]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


def write_csv(path: Path, rows: Sequence[Review], *, header: str = "text,label") -> Path:
    quoted = (f'"{str(text).replace(chr(34), chr(34) * 2)}",{label}' for text, label in rows)
    path.write_text("".join(f"{line}\n" for line in (header, *quoted)))
    return path
