"""Small data of the tests' own in the layout of GLUE's repository on the hub, for every task."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

LABELS: dict[str, tuple[str, ...]] = {
    "cola": ("unacceptable", "acceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qnli": ("entailment", "not_entailment"),
    "qqp": ("not_duplicate", "duplicate"),
    "rte": ("entailment", "not_entailment"),
    "sst2": ("negative", "positive"),
    "stsb": (),
    "wnli": ("not_entailment", "entailment"),
}
"""Names of each task's labels in the order of their numbers; none: a score from 0 to 5."""
COLUMNS: dict[str, tuple[str, ...]] = {
    "cola": ("sentence",),
    "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"),
    "sst2": ("sentence",),
    "stsb": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}
NUM_ROWS = {"train": 96, "validation": 30, "validation_matched": 30, "validation_mismatched": 24, "test": 9}

_WHO = ("a man", "the girl", "her dog", "an old teacher", "the band", "nobody", "the crowd", "my uncle")
_DOES = ("plays a guitar", "runs in the park", "reads a letter", "sleeps on the grass", "cooks some rice", "sings")
_WHERE = ("today", "at night", "near the river", "in the rain", "again", "for an hour")


def splits_of(task: str) -> tuple[str, ...]:
    """Names of a task's splits."""
    dev = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
    return ("train", *dev, "test")


def glue_rows(task: str, split: str) -> list[tuple[tuple[str, ...], float]]:
    """Texts and label of each row; no text stands in two splits, a tenth of each is decided by its last word."""
    classes = LABELS[task]
    rows = []
    for number in range(NUM_ROWS[split]):
        who, does = _WHO[number % 8], _DOES[number // 8 % 6]
        first = f"{who} {does} {_WHERE[number % 6]} , {split.replace('_', ' ')} {number} ."
        label = float(number % len(classes)) if classes else float(number % 26) / 5
        second = f"{who} {('rests', 'works', 'waits')[number % 3]} ."
        rows.append(((first, second)[: len(COLUMNS[task])], -1.0 if split == "test" else label))
    return rows


def glue_files(tasks: Sequence[str] = tuple(LABELS)) -> dict[str, bytes]:
    """The files of the repository: Parquet a split, and the card that declares the tasks."""
    files = {"README.md": _card(tasks).encode()}
    for task, split in itertools.chain.from_iterable(((t, s) for s in splits_of(t)) for t in tasks):
        files[f"{task}/{split}-00000-of-00001.parquet"] = _parquet(task, split)
    return files


def _parquet(task: str, split: str) -> bytes:
    rows = glue_rows(task, split)
    texts = {name: pa.array([row[i] for row, _ in rows], pa.string()) for i, name in enumerate(COLUMNS[task])}
    kind = pa.int64() if LABELS[task] else pa.float32()
    labels = pa.array([label for _, label in rows], pa.float32()).cast(kind)
    table = pa.table({**texts, "label": labels, "idx": pa.array(range(len(rows)), pa.int32())})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _card(tasks: Sequence[str]) -> str:
    configs, infos = [], []
    for task in tasks:
        paths = "".join(f"  - split: {split}\n    path: {task}/{split}-*\n" for split in splits_of(task))
        configs.append(f"- config_name: {task}\n  data_files:\n{paths}")
        texts = "".join(f"  - name: {name}\n    dtype: string\n" for name in COLUMNS[task])
        names = "".join(f"          '{number}': {name}\n" for number, name in enumerate(LABELS[task]))
        label = f"    dtype:\n      class_label:\n        names:\n{names}" if names else "    dtype: float32\n"
        infos.append(
            f"- config_name: {task}\n  features:\n{texts}  - name: label\n{label}  - name: idx\n    dtype: int32\n"
        )
    return f"---\nconfigs:\n{''.join(configs)}dataset_info:\n{''.join(infos)}---\n# Data of the tests' own in GLUE's layout\n"
