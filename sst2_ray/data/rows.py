"""Labelled texts: the form in which every source hands over its rows."""

from __future__ import annotations

import functools
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from sst2_ray.data.columns import TextColumn, as_column, pieces_of
from sst2_ray.data.labels import ClassNames, LabelArray, numbers_of, without_unknown
from sst2_ray.data.texts import Text, stripped
from sst2_ray.errors import InputError
from sst2_ray.formatting import count

_MAX_NAMED = 3
_MAX_CLASSES = 8
"""Classes that are counted in one line of the plan."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N labelled texts."""

    texts: Sequence[Text]
    """[N], without white space around; all of them single, or all pairs."""
    labels: LabelArray
    """[N], numbers of the classes."""
    row_ids: npt.NDArray[np.int64]
    """[N], position in the source split, counted from 0."""
    groups: Sequence[str] | None = None
    """[N], group that each row belongs to and that hold-outs keep together; None: there are none."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_different(self) -> int:
        """Count the different labels."""
        if self.labels.dtype == np.float32:
            return len(np.unique(self.labels))
        return int(np.count_nonzero(np.bincount(self.labels)))  # np.unique hashes, which takes 20 times as long

    def take(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        """Return the rows at which the mask `chosen` [N] is true, in their order."""
        positions = np.flatnonzero(chosen)
        return Rows(
            texts=cast(Sequence[Text], as_column(self.texts).take(positions)),  # of rows none is missing
            labels=self.labels[positions],
            row_ids=self.row_ids[positions],
            groups=_at(self.groups, positions.tolist()) if self.groups is not None else None,
        )


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The rows that a run trains on, chooses its best epoch by, and is scored on."""

    train: Rows
    dev: Rows
    classes: ClassNames
    """Classes of the training split; dev holds no others."""
    selection: Rows | None
    """Held-out part of train for choosing the epoch (at most `dev_rows` rows of it); None: dev chooses."""
    source: str
    """Origin of the rows, e.g. nyu-mll/glue@<commit> or a path."""
    eval_split: str
    """Name of `dev`: "SST-2 dev", "hold-out of rotten-tomatoes", "dev of <name>"; a subset says so."""
    fingerprint: str
    """12 hex digits over the texts and labels of all splits, in their order."""
    text_columns: tuple[str, ...] = ()
    """Columns of the two texts of a pair; empty: the texts are single ones."""
    corpus: str | None
    """Name for the rules of known leaks ("glue", "rotten-tomatoes"); None: not a corpus that they know."""
    notes: tuple[str, ...]
    """Remarks for the user, one line each."""
    others: Mapping[str, Rows] = field(default_factory=dict)
    """Further evaluation splits, by name (MNLI's second one); scored once, at the end."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the training loss; None: all rows count the same."""

    @property
    def by_name(self) -> dict[str, Rows]:
        """All splits: train, dev, where a part of train is held out selection, further ones by their names."""
        named = {"train": self.train, "dev": self.dev, "selection": self.selection, **self.others}
        return {name: rows for name, rows in named.items() if rows is not None}

    @property
    def num_rows(self) -> int:
        """Count the rows of all splits."""
        return sum(map(len, self.by_name.values()))

    @property
    def class_words(self) -> str:
        """Describe the classes of the training split: names, rows, share of the largest; of a regression its values."""
        if self.classes.is_regression:
            values = self.train.labels
            return f"none: values from {values.min():g} to {values.max():g}, mean {values.mean():.3g}"
        counts = np.bincount(self.train.labels, minlength=len(self.classes))
        each = [f"{name} {num:,}" for name, num in zip(self.classes.names, counts.tolist(), strict=True)]
        shown = ", ".join(each[:_MAX_CLASSES]) + (f", ... ({len(each)} in all)" if len(each) > _MAX_CLASSES else "")
        return f"{shown}; the largest is {counts.max() / counts.sum():.1%} of train, {self.majority_share:.1%} of dev"

    @property
    def weight_words(self) -> str:
        """Describe the weights of the classes."""
        weights = zip(self.classes.names, self.class_weights or (), strict=False)
        each = [f"{name} {weight:.4g}" for name, weight in weights]
        return ", ".join(each[:_MAX_CLASSES]) + (f", ... ({len(each)} in all)" if len(each) > _MAX_CLASSES else "")

    @property
    def majority_share(self) -> float | None:
        """Compute the accuracy on dev of always answering its most frequent class; None: a regression."""
        if self.classes.is_regression:
            return None
        return float(np.bincount(self.dev.labels).max() / len(self.dev))


@dataclass
class _LeftOut:
    """The rows of a split that no run reads, by the reason."""

    blank: list[int] = field(default_factory=list)
    unlabelled: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def num_rows(self) -> int:
        return len(self.blank) + len(self.unlabelled) + self.dropped.total()


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The text and label cells of a split as they were read, blank ones included."""

    texts: Sequence[Text | None]
    """[N]; of pairs None where one of the two is missing."""
    labels: Sequence[str | None]
    """[N], in their one spelling (see `labels.canonical_label`); None: no label."""
    where: str
    """The file or data set, for messages."""
    dropped: frozenset[str] = frozenset()
    """Labels whose rows are left out."""
    drop_blank: bool = True
    """False: rows without a text or a label are refused."""
    groups: Sequence[str] | None = None
    """[N], group of each row; None: there are none."""
    splits: Sequence[str | None] | None = None
    """[N], lower-case name of the split that each row belongs to, None where it names none; None: no row names one."""
    positions: Sequence[int] | None = None
    """[N], place of each row in its file, counted from 0, for messages; None: all of the file's rows are here."""
    notes: tuple[str, ...] = ()
    """Decisions of the reader."""
    text_columns: tuple[str, ...] = ()
    """Columns of the two texts of a pair; empty: the texts are single ones."""
    class_order: tuple[str, ...] = ()
    """Names of the classes in the order of the data's own numbers; empty: they have none."""

    def of_split(self, split: str) -> Cells:
        """Return the rows of one split."""
        assert self.splits is not None
        chosen = [row for row, name in enumerate(self.splits) if name == split]
        return replace(
            self,
            texts=as_column(self.texts).take(np.array(chosen, dtype=np.int64)),
            labels=[self.labels[i] for i in chosen],
            groups=_at(self.groups, chosen),
            splits=None,
            positions=chosen,
        )

    @functools.cached_property
    def label_counts(self) -> Counter[str]:
        """Rows of each label, rows without a text and labels to be dropped left out."""
        labels = without_unknown(list(self.labels))
        return Counter(
            label
            for text, label in zip(self.texts, labels, strict=True)
            if label is not None and label not in self.dropped and stripped(text) is not None
        )

    def rows(self, classes: ClassNames) -> tuple[Rows, str | None]:
        """Convert the cells to rows; those without a text or a label are left out.

        Returns:
            The rows, and a remark on what was left out (None: nothing).

        Raises:
            InputError: Labels that are no classes, with their counts.
        """
        counts = self.label_counts
        numbers: Mapping[str, float] = numbers_of(counts) if classes.is_regression else classes.match(counts)
        unknown = [f"{label} ({num:,})" for label, num in counts.most_common() if label not in numbers]
        if unknown:
            what = "are no numbers" if classes.is_regression else f"are not among the classes {classes}"
            raise InputError(
                f"{self.where}: labels {_first_three(unknown)} {what}; correct them, or leave them out with --drop-label"
            )
        kept, positions, values, left_out = self._kept(numbers)
        if self.texts and not len(kept):
            raise InputError(f"{self.where}: none of its {len(self.texts):,} rows has both a text and a label")
        rows = Rows(
            texts=cast(Sequence[Text], kept),  # what is missing was left out
            labels=values if classes.is_regression else values.astype(np.int16),
            row_ids=positions,
            groups=_at(self.groups, positions.tolist()) if self.groups is not None else None,
        )
        return rows, self._remark(left_out)

    def _kept(
        self, numbers: Mapping[str, float]
    ) -> tuple[TextColumn, npt.NDArray[np.int64], npt.NDArray[np.float32], _LeftOut]:
        """Find the rows with a text and a label that stands for a number; returns their texts, places and numbers, and the rest."""
        parts, row_ids, values, left_out = [], array("q"), array("f"), _LeftOut()
        column = as_column(self.texts)
        is_whole = True
        for start, cells in pieces_of(column):
            labels = self.labels[start : start + len(cells)]
            texts: list[Text | None] = []
            for position, (cell, label) in enumerate(zip(cells, labels, strict=True), start):
                text = stripped(cell)
                if text is None:
                    left_out.blank.append(position)
                elif label in self.dropped:
                    left_out.dropped[label or ""] += 1
                elif label is None or label not in numbers:
                    left_out.unlabelled.append(position)
                else:
                    texts.append(text)
                    values.append(numbers[label])
                    row_ids.append(position)
            is_whole &= texts == cells
            if texts == cells:  # most pieces: the rows share the memory of the cells
                parts.append(column.arrays(start, start + len(cells)))
            elif texts:
                parts.append(TextColumn.of([texts]).arrays(0, len(texts)))
        return (
            column if is_whole else TextColumn.joined(parts),
            np.array(row_ids, dtype=np.int64),
            np.array(values, dtype=np.float32),
            left_out,
        )

    def _remark(self, left_out: _LeftOut) -> str | None:
        if not left_out.num_rows:
            return None
        parts = [
            f"{len(rows):,} without a {what} ({named_rows(self._in_file(rows))})"
            for what, rows in (("text", left_out.blank), ("label", left_out.unlabelled))
            if rows
        ]
        if parts and not self.drop_blank:
            raise InputError(
                f"{self.where}: has rows {', '.join(parts)}; correct them, or leave them out with --drop-blank"
            )
        parts += [f"{num:,} with the label {label}" for label, num in left_out.dropped.most_common()]
        return f"{self.where}: left out {count(left_out.num_rows, 'row')}: {', '.join(parts)}"

    def _in_file(self, rows: Sequence[int]) -> Sequence[int]:
        return rows if self.positions is None else [self.positions[row] for row in rows]


def require_classes(rows: Rows, classes: ClassNames, where: str) -> None:
    """Refuse a split from which nothing can be learned or measured: without rows, or of one class."""
    if not len(rows):
        raise InputError(f"{where}: has no rows; give a file with labelled sentences")
    if rows.num_different > 1:
        return
    least = rows.labels[0]
    if classes.is_regression:
        raise InputError(f"{where}: all {len(rows):,} rows have the value {least:g}; nothing can be learned from them")
    only = f"{classes.names[least]} ({least})"
    raise InputError(f"{where}: all {len(rows):,} rows are {only}; at least two classes are needed")


def _at(items: Sequence[str] | None, positions: Sequence[int]) -> list[str] | None:
    return None if items is None else [items[position] for position in positions]


def _first_three(items: Sequence[str]) -> str:
    return ", ".join(items[:_MAX_NAMED]) + (", ..." if len(items) > _MAX_NAMED else "")


def named_rows(positions: Sequence[int]) -> str:
    """Name the first three of some positions in a file, counted from 1."""
    word = "row" if len(positions) == 1 else "rows"
    return f"{word} {_first_three([f'{position + 1}' for position in positions])}"
