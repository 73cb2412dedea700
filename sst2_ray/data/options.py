"""Choices of the user about reading files; what is not chosen is decided by each file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Quoting = Literal["auto", "standard", "none"]
Header = Literal["auto", "yes", "no"]
LABEL_COLUMN = "label"


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Columns and form of data files, as the user gave them."""

    text: str | None = None
    """Column of the text, or of the first text of a pair; None: sentence or text."""
    second: str | None = None
    """Column of the second text of a pair; None: the texts are single ones."""
    label: str | None = None
    """Column of the label; None: label."""
    trained_label: str | None = None
    """Column that the model which reads the rows was trained on: read before label, where a file has it."""
    split: str | None = None
    """Column that says which split a row belongs to; None: split, where its cells name train and an evaluation split."""
    group: str | None = None
    """Column of the groups that hold-outs keep together; None: there are none."""
    delimiter: str | None = None
    """Character between the cells of CSV, TSV and TXT; None: found in the file."""
    encoding: str | None = None
    """Encoding of text files, by its Python name; None: that of the byte order mark, else UTF-8."""
    quoting: Quoting = "auto"
    """standard: cells may stand in quotation marks, doubled inside. none: a quotation mark is a character. auto: standard,
    but for TSV as the file shows."""
    header: Header = "auto"
    """Does the first row hold the names of the columns? auto: unless its cells recur below as data."""

    @property
    def columns(self) -> frozenset[str]:
        """Names of columns that the user gave, as they are compared."""
        return frozenset(folded(name) for name in (self.text, self.second, self.label) if name)

    @property
    def usual_labels(self) -> tuple[str, ...]:
        """Names of the label column where the user gave none, the first that a file has."""
        return (self.trained_label, LABEL_COLUMN) if self.trained_label else (LABEL_COLUMN,)

    def scored_by(self, columns: Iterable[str]) -> str | None:
        """Return the column that rows are scored by because training read it; None: it is another one."""
        if self.label is not None or self.trained_label is None:
            return None
        return next((name for name in columns if folded(name) == folded(self.trained_label)), None)

    @property
    def of_dev(self) -> ReadOptions:
        """Return the options for rows that are only evaluated: they are neither divided nor held out in groups."""
        return replace(self, split=None, group=None)

    @property
    def separator(self) -> str | None:
        """The delimiter as a character: shells make it hard to pass a tab."""
        return {"tab": "\t", "\\t": "\t"}.get(self.delimiter or "", self.delimiter)


def folded(name: str) -> str:
    """Return the form in which names of columns are compared."""
    return name.strip().casefold()
