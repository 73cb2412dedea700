"""Labelled texts from data files: the one place that picks columns and reads their cells, for training and prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sst2_ray.data.files import DEV_STEMS, TRAIN_STEMS
from sst2_ray.data.labels import canonical_labels
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.rows import Cells
from sst2_ray.data.tables import BATCH_ROWS, TableFile, open_table
from sst2_ray.data.texts import Text, paired
from sst2_ray.errors import InputError
from sst2_ray.formatting import count

_MAX_NAMED = 3
TEXT_COLUMNS = ("sentence", "text")
LABEL_COLUMNS = ("label",)
SPLIT_COLUMN = "split"
INDEX_COLUMNS = ("idx", "id", "index", "unnamed: 0", "")
"""Columns of row numbers, which nobody misses."""
USUAL_COLUMNS = frozenset((*TEXT_COLUMNS, *LABEL_COLUMNS))


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
        return [cell.strip().lower() if isinstance(cell, str) else None for cell in _cells(batch, self.split)]

    @property
    def unused_note(self) -> list[str]:
        """Name the columns that are not read, in at most one line."""
        used = {self.text, self.second, self.label, self.split}
        unused = [name for name in self.table.columns if name not in used and _folded(name) not in INDEX_COLUMNS]
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
    kind = "text" if options.second is None else "texts"
    text = _pick(options.text, TEXT_COLUMNS, table, where, kind)
    second = _pick(options.second, (), table, where, kind) if options.second is not None else None
    taken = () if table.header else (text, second)  # named here, not in the file
    has_label = any(_folded(name) in LABEL_COLUMNS and name not in taken for name in names)
    if options.label is None and not needs_label and not has_label:
        label = None
    else:
        if len(names) < 2:
            raise InputError(f"{where}: has one column ({names[0]}); a text and a label column are needed")
        label = _pick(options.label, LABEL_COLUMNS, table, where, "label")
    if label is not None and label in (text, second):
        raise InputError(f"{where}: column {label!r} cannot be both the text and the label; name two columns")
    for name in (text, second):
        cells = table.schema.field(names.index(name)).type if name is not None else pa.string()
        if not _is_text(cells):
            flag = "--text-column" if second is None else "--text-columns"
            raise InputError(f"{where}: column {name!r} is {cells}, not text; name another with {flag}")
    split = _pick(options.split, (), table, where, "split") if options.split else _first(names, SPLIT_COLUMN)
    return LabelledFile(table=table, text=text, second=second, label=label, split=split)


def read_files(paths: Sequence[Path], options: ReadOptions) -> Cells:
    """Read the texts and labels of files of one split; rows are numbered through. Raises InputError with one line."""
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    texts: list[Text | None] = []
    labels: list[str | None] = []
    columns: tuple[str, ...] = ()
    splits: list[str | None] = []
    notes: dict[str, None] = {}
    for path in paths:
        file = open_labelled(path, options, str(path), needs_label=True)
        notes.update(dict.fromkeys((*file.table.notes, *file.unused_note)))
        columns = file.text_columns
        for batch in file.batches():
            texts += file.texts(batch)
            labels += file.labels(batch)
            splits += file.splits(batch)
    divided = options.split is not None or (any(splits) and set(splits) <= {*TRAIN_STEMS, *DEV_STEMS, None})
    return Cells(
        texts=texts,
        labels=labels,
        where=where,
        splits=splits if divided else None,
        notes=tuple(notes),
        text_columns=columns,
    )


def _pick(named: str | None, usual: Sequence[str], table: TableFile, where: str, kind: str) -> str:
    """Pick the column that was named, or the first of the usual names; case and white space around do not matter."""
    names = table.columns
    if named and named in names and names.count(named) == 1:
        return named
    if named and named.isdecimal() and not table.header and 1 <= int(named) <= len(names):
        return names[int(named) - 1]
    for candidate in (named,) if named else usual:
        found = [name for name in names if _folded(name) == _folded(candidate)]
        if len(found) > 1:
            raise InputError(f"{where}: has several columns {candidate!r}; rename all but one")
        if found:
            return found[0]
    has, wanted = ", ".join(names), repr(named) if named else " or ".join(map(repr, usual))
    hint = {
        "text": "name one with --text-column" + ("" if named else " (of a pair two with --text-columns)"),
        "texts": "name the two of a pair with --text-columns",
    }.get(kind, f"name one with --{kind}-column")
    raise InputError(f"{where}: has no {kind.removesuffix('s')} column {wanted}; it has {has}; {hint}")


def _first(names: Sequence[str], usual: str) -> str | None:
    return next((name for name in names if _folded(name) == usual), None)


def _folded(name: str) -> str:
    return name.strip().casefold()


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _cells(batch: pa.RecordBatch, name: str) -> list[object]:
    cells: list[object] = batch.column(batch.schema.names.index(name)).to_pylist()
    return cells
