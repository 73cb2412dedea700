"""Labelled texts from data files: the one place that picks columns and reads their cells, for training and prediction."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sst2_ray.data.columns import TextColumn, arrays_of
from sst2_ray.data.labels import canonical_labels
from sst2_ray.data.options import LABEL_COLUMN, ReadOptions, folded
from sst2_ray.data.rows import Cells
from sst2_ray.data.tables import BATCH_ROWS, TableFile, open_table
from sst2_ray.data.texts import Text, paired
from sst2_ray.errors import InputError
from sst2_ray.formatting import count

_MAX_NAMED = 3
TEXT_COLUMNS = ("sentence", "text")
SPLIT_COLUMN = "split"
_REMEDIES = {
    ("--text-column", False): "name one with --text-column (the two of a pair with --text-columns)",
    ("--text-columns", True): "name the two of a pair with --text-columns",
}
"""Remedy for a missing column, by the flag and whether it was given, where it is not to name one with the flag."""
INDEX_COLUMNS = ("idx", "id", "index", "unnamed: 0", "")
"""Columns of row numbers, which nobody misses."""
_WHOLE_GROUP = re.compile(r"(-?\d+)\.0")
_NO_GROUP = "\0"
"""Begins the group of a row that names none; its text follows."""
USUAL_COLUMNS = frozenset((*TEXT_COLUMNS, LABEL_COLUMN))


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """A data file with its text column, or the two of a pair, and, where it has one, its label column."""

    table: TableFile
    text: str
    second: str | None
    """Column of the second text of a pair; None: the texts are single ones."""
    label: str | None
    split: str | None
    """Column that may say which split a row belongs to."""
    group: str | None
    """Column of the groups that hold-outs keep together."""

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield all columns of all rows."""
        return self.table.batches(rows)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns of the two texts of a pair; empty: the texts are single ones."""
        return () if self.second is None else (self.text, self.second)

    def texts(self, batch: pa.RecordBatch) -> Sequence[Text | None]:
        """Return the text cells of a batch, [rows]; of pairs None where one of the two is missing."""
        firsts = [cell if isinstance(cell, str) else None for cell in _cells(batch, self.text)]
        if self.second is None:
            return firsts
        return paired(firsts, [cell if isinstance(cell, str) else None for cell in _cells(batch, self.second)])

    def labels(self, batch: pa.RecordBatch) -> list[str | None]:
        """Return the label cells of a batch in their one spelling, [rows]. Raises InputError: several labels a row."""
        assert self.label is not None
        try:
            return canonical_labels(_cells(batch, self.label), self.table.class_names(self.label))
        except InputError as error:
            raise InputError(f"{self.table.path}: {error}") from None

    def splits(self, batch: pa.RecordBatch) -> list[str | None]:
        """Return the lower-case names of the splits that the rows of a batch belong to, [rows]; None: none is named."""
        if self.split is None:
            return [None] * batch.num_rows
        cells = _cells(batch, self.split)
        return [(cell.strip().lower() or None) if isinstance(cell, str) else None for cell in cells]

    def groups(self, batch: pa.RecordBatch) -> list[str | None]:
        """Return the groups that the rows of a batch belong to, [rows], None where none is named; empty: there are none."""
        return [] if self.group is None else [_group_of(cell) for cell in _cells(batch, self.group)]

    @property
    def unused_note(self) -> list[str]:
        """Name the columns that are not read, in at most one line."""
        used = {self.text, self.second, self.label, self.split, self.group}
        unused = [name for name in self.table.columns if name not in used and folded(name) not in INDEX_COLUMNS]
        shown = ", ".join(unused[:_MAX_NAMED]) + (", ..." if len(unused) > _MAX_NAMED else "")
        return [f"{self.table.path.name}: {count(len(unused), 'column')} not used: {shown}"] if unused else []


def open_labelled(path: Path, options: ReadOptions, where: str, *, needs_label: bool) -> LabelledFile:
    """Open a data file and pick its columns.

    Args:
        path: File, or folder of class folders.
        options: The user's choices.
        where: Name of the file in messages.
        needs_label: Refuse a file without a label column; else `label` is None there.

    Raises:
        InputError: The file is damaged, or a column cannot be found; lists the columns that there are.
    """
    table = open_table(path, options, USUAL_COLUMNS)
    names = table.columns
    flag = "--text-column" if options.second is None else "--text-columns"
    text = _pick(options.text, TEXT_COLUMNS, table, where, flag)
    second = _pick(options.second, (), table, where, flag) if options.second is not None else None
    texts = (text,) if second is None else (text, second)
    named = texts if not table.header else ()  # here, not in the file
    label = None
    usual = [folded(name) for name in options.usual_labels]
    if options.label or needs_label or any(folded(n) in usual and n not in named for n in names):
        if len(names) < 2:
            raise InputError(f"{where}: has one column ({names[0]}); a text and a label column are needed")
        label = _pick(options.label, usual, table, where, "--label-column")
    _check_texts(texts, label, table, where, flag)
    split = _pick(options.split, (), table, where, "--split-column") if options.split else _first(names, SPLIT_COLUMN)
    group = _pick(options.group, (), table, where, "--group-column") if options.group else None
    return LabelledFile(table=table, text=text, second=second, label=label, split=split, group=group)


def _check_texts(texts: Sequence[str], label: str | None, table: TableFile, where: str, flag: str) -> None:
    """Refuse columns that hold no texts, or the labels."""
    for name in texts:
        if name == label:
            raise InputError(f"{where}: column {name!r} cannot be both the text and the label; name two columns")
        kind = table.schema.field(table.columns.index(name)).type
        if not _is_text(kind):
            raise InputError(f"{where}: column {name!r} is {kind}, not text; name another with {flag}")
        if num_nested := table.num_nested(name):
            raise InputError(
                f"{where}: column {name!r} holds a list or an object, not text, in {count(num_nested, 'row')}; "
                f"name another with {flag}"
            )


def read_files(paths: Sequence[Path], options: ReadOptions) -> Cells:
    """Read the texts and labels of files of one split; rows are numbered through. Raises InputError with one line."""
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    parts: list[list[pa.Array]] = []
    labels: list[str | None] = []
    columns: tuple[str, ...] = ()
    splits: list[str | None] = []
    groups: list[str | None] = []
    notes: dict[str, None] = {}
    orders: set[tuple[str, ...]] = set()
    for path in paths:
        file = open_labelled(path, options, str(path), needs_label=True)
        notes.update(dict.fromkeys((*file.table.notes, *file.unused_note)))
        columns = file.text_columns
        orders.add(tuple(file.table.class_names(file.label or "") or ()))
        for batch in file.batches():
            parts.append(arrays_of(file.texts(batch)))
            labels += file.labels(batch)
            splits += file.splits(batch)
            groups += file.groups(batch)
    if num_alone := groups.count(None):
        notes[f"{count(num_alone, 'row')} without a {options.group}: each text is a group of its own"] = None
    texts = TextColumn.joined(parts)
    return Cells(
        texts=texts,
        labels=labels,
        where=where,
        splits=splits if options.split or any(splits) else None,
        groups=[group or f"{_NO_GROUP}{text}" for group, text in zip(groups, texts, strict=True)] if groups else None,
        notes=tuple(notes),
        text_columns=columns,
        class_order=orders.pop() if len(orders) == 1 else (),
    )


def _pick(named: str | None, usual: Sequence[str], table: TableFile, where: str, flag: str) -> str:
    """Pick the column that was named, or the first of the usual names; case and white space around do not matter."""
    names = table.columns
    if named and named in names and names.count(named) == 1:
        return named
    if named and named.isdecimal() and not table.header and 1 <= int(named) <= len(names):
        return names[int(named) - 1]
    for candidate in (named,) if named else usual:
        found = [name for name in names if folded(name) == folded(candidate)]
        if len(found) > 1:
            raise InputError(f"{where}: has several columns {candidate!r}; rename all but one")
        if found:
            return found[0]
    wanted, kind = " or ".join(map(repr, (named,) if named else usual)), flag.removeprefix("--").split("-")[0]
    remedy = _REMEDIES.get((flag, named is not None), f"name one with {flag}")
    raise InputError(f"{where}: has no {kind} column {wanted}; it has {', '.join(names)}; {remedy}")


def _first(names: Sequence[str], usual: str) -> str | None:
    return next((name for name in names if folded(name) == usual), None)


def _group_of(cell: object) -> str | None:
    """Return the one spelling of a group: of several files one may hold 3, another 3.0; None: the cell names none."""
    if isinstance(cell, float):
        cell = None if math.isnan(cell) else int(cell) if cell.is_integer() else cell
    name = "" if cell is None else str(cell).strip()
    whole = _WHOLE_GROUP.fullmatch(name)
    return whole[1] if whole else name or None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _cells(batch: pa.RecordBatch, name: str) -> list[object]:
    cells: list[object] = batch.column(batch.schema.names.index(name)).to_pylist()
    return cells
