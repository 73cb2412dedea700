"""Labelled sentences, checked: the form in which every source hands over its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sst2_ray.errors import InputError

# CSV and TSV carry everything as text: "true" is what a Boolean column looks like there.
_LABELS: dict[str | int | bool, int] = {
    0: 0, 1: 1, "0": 0, "1": 1, "negative": 0, "positive": 1, "neg": 0, "pos": 1, "false": 0, "true": 1,
}  # fmt: skip
_VALID_LABELS = "0 or 1, negative or positive, neg or pos, false or true"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N labelled sentences."""

    texts: list[str]
    """[N], without white space around."""
    labels: npt.NDArray[np.int8]
    """[N], 0 negative, 1 positive."""
    row_ids: npt.NDArray[np.int64]
    """[N], position in the source split, counted from 0."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        """The rows at which the mask `chosen` [N] is true, in their order."""
        positions = np.flatnonzero(chosen)
        return Rows(
            texts=[self.texts[i] for i in positions], labels=self.labels[positions], row_ids=self.row_ids[positions]
        )


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What a run trains on, chooses by and is scored on."""

    train: Rows
    dev: Rows
    selection: Rows | None
    """Held-out part of train for choosing the epoch (at most `dev_rows` rows of it); None: dev chooses."""
    source: str
    """Where the rows came from, e.g. nyu-mll/glue@<commit> or a path."""
    eval_split: str
    """What `dev` is: "SST-2 dev", "hold-out of rotten-tomatoes", "dev of <name>"; a subset says so."""
    fingerprint: str
    """12 hex digits over the texts and labels of all splits, in their order."""
    corpus: str | None
    """Name for the rules of known leaks ("glue", "rotten-tomatoes"); None: not a corpus that they know."""
    notes: tuple[str, ...]
    """One-line remarks for the user."""


def make_rows(texts: Sequence[Any], labels: Sequence[Any], where: str) -> Rows:
    """Check and convert what a reader found. Raises InputError naming `where`, the row (from 1) and the value."""
    for position, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: row {position + 1} has no text ({text!r}); delete the row or fill it in")
    return Rows(
        texts=[text.strip() for text in texts],
        labels=_parse_labels(labels, where),
        row_ids=np.arange(len(texts), dtype=np.int64),
    )


def _parse_labels(values: Sequence[Any], where: str) -> npt.NDArray[np.int8]:
    parsed = np.empty(len(values), dtype=np.int8)
    for position, value in enumerate(values):
        name = value.strip().lower() if isinstance(value, str) else value
        if not isinstance(name, str | int) or name not in _LABELS:
            raise InputError(f"{where}: label {value!r} in row {position + 1}: must be {_VALID_LABELS}")
        parsed[position] = _LABELS[name]
    return parsed


def require_two_classes(rows: Rows, where: str) -> None:
    """Raises InputError where there are no rows, or all carry one label: nothing could be learned or measured."""
    if not len(rows):
        raise InputError(f"{where}: has no rows; give a file with labelled sentences")
    positives = int(rows.labels.sum())
    if positives in (0, len(rows)):
        only = "positive (1)" if positives else "negative (0)"
        raise InputError(f"{where}: all {len(rows):,} rows are {only}; both labels are needed")
