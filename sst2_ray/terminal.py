"""Consoles that outlive their reader, and tables that fit the width they are given."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table
from rich.text import Text

from sst2_ray.formatting import NONE, hide_secrets
from sst2_ray.lasting_file import LastingFile, without_padding
from sst2_ray.notebook import in_notebook

_PIPE_WIDTH = 160
"""Least width if stdout is not a terminal: wide enough for paths."""
_NOTEBOOK_WIDTH = 100


class _CopyingConsole(Console):
    """A console that hands on what it prints, as plain text."""

    def __init__(self, on_text: Callable[[str], None] | None, **options: Any) -> None:
        super().__init__(**options)
        self._on_text = on_text

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, and hand on."""
        super().print(*objects, **options)
        if self._on_text is not None:
            copy = text_console(_PIPE_WIDTH)
            copy.print(*objects, **{**options, "soft_wrap": all(isinstance(one, str) for one in objects)})
            self._on_text(without_padding(copy.file.getvalue()))  # type: ignore[attr-defined]


def text_console(width: int) -> Console:
    """Return a console that keeps plain text in its `file`; in a notebook as well, where rich would display it instead."""
    return Console(file=io.StringIO(), width=width, color_system=None, highlight=False, force_jupyter=False)


def has_width(out: Console) -> bool:
    """Tell whether lines have to fit: a terminal shows them, or COLUMNS says a width; 0 and what is no number say none."""
    given = os.environ.get("COLUMNS", "")
    return out.is_terminal or (given.isdigit() and int(given) > 0)


def console(on_text: Callable[[str], None] | None = None, *, pipe_width: int = _PIPE_WIDTH) -> Console:
    """Return a console on stdout that goes on where nobody reads any more.

    In a notebook its lines are one output of the cell, not a box each.

    Args:
        on_text: Is given the plain text of all that is printed.
        pipe_width: Least width if stdout is not a terminal and COLUMNS is not set.
    """
    file: Any = LastingFile(sys.stdout)
    # A notebook's stdout says that it is a terminal.
    force: Any = {"force_jupyter": False, "force_terminal": False if in_notebook() else None}
    plain = _CopyingConsole(on_text, file=file, **force)
    if plain.is_terminal:
        return plain
    least = 0 if has_width(plain) else pipe_width
    width = _NOTEBOOK_WIDTH if in_notebook() else max(plain.width, least)
    return _CopyingConsole(on_text, file=file, width=width, highlight=False, **force)


def print_line(out: Console, line: str, **options: Any) -> None:
    """Print a line as it is: in a terminal broken between words, elsewhere in one piece. `options`: of Console.print."""
    out.print(line, soft_wrap=not out.is_terminal, markup=False, **options)


def show_plan(out: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")  # a long path is cut otherwise
    for name, value in rows:
        table.add_row(Text(name), Text(value))  # no markup: names of files and classes may hold brackets
    out.print(table)


class Rows(ABC):
    """A base class of results that show themselves as names and values, in a notebook as a table."""

    @abstractmethod
    def rows(self) -> Sequence[tuple[str, str]]:
        """Return name and value of each line."""

    def __repr__(self) -> str:
        rows = [row for row in self.rows() if any(row)]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _repr_html_(self) -> str:
        columns = [Column(title="", align="left"), Column(title=type(self).__name__, align="left")]
        return html_table(columns, [row for row in self.rows() if any(row)])


class Tabular(ABC):
    """A base class of results that show themselves as a table with sentences below it, in a notebook as well."""

    @abstractmethod
    def table(self) -> tuple[Sequence[Column], Sequence[Sequence[str]]]:
        """Return the columns and the cells, a row for each line."""

    def notes(self) -> Sequence[str]:
        """Return the sentences below the table."""
        return ()

    def show(self, out: Console) -> None:
        """Print table and sentences."""
        print_table(out, *self.table(), whole="a wider terminal")
        for note in self.notes():
            print_line(out, note, highlight=False)

    def __repr__(self) -> str:
        out = text_console(max(Console().width, 80))
        self.show(out)
        return out.file.getvalue().rstrip()  # type: ignore[attr-defined, no-any-return]

    def _repr_html_(self) -> str:
        return html_table(*self.table()) + "".join(f"<p>{escape(note)}</p>" for note in self.notes())


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table that is fitted into a width."""

    title: str
    rank: int = 0
    """0: identifies the row, never left out and never cut. If the width does not do, the highest ranks are left out first."""
    align: Literal["left", "right"] = "right"
    min_width: int | None = None
    """Width down to which the column may shrink, its text then takes several lines; None: it does not shrink."""


def fit_columns(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Choose the columns of a table that fit into a width.

    Args:
        columns: All columns.
        rows: Cells, a row for each line.
        width: Of the terminal, in characters; None: no limit.

    Returns:
        Indices of the columns to show, in order; columns without any value are left out as well.
    """
    shown = [
        i for i, column in enumerate(columns) if not rows or column.rank == 0 or {row[i] for row in rows} - {"", NONE}
    ]
    needed = [_needed(column, [row[i] for row in rows]) for i, column in enumerate(columns)]
    while width is not None and _table_width(needed[i] for i in shown) > width:
        last = max(shown, key=lambda i: (columns[i].rank, i))
        if columns[last].rank == 0:
            break
        shown.remove(last)
    return shown


def _table_width(widths: Iterable[int]) -> int:
    return sum(width + 3 for width in widths) + 1  # two spaces and a border a column, and one more border


def _needed(column: Column, cells: Sequence[str]) -> int:
    longest = _longest(column, cells)
    return longest if column.min_width is None else min(longest, column.min_width)


def _longest(column: Column, cells: Sequence[str]) -> int:
    return max((cell_len(line) for cell in (column.title, *cells) for line in cell.splitlines()), default=0)


def fitted_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None, title: str | None = None
) -> tuple[Table, tuple[str, ...]]:
    """Make a table that fits into a width.

    What identifies a row is never cut: if even that is too wide, it takes several lines.

    Returns:
        The table, and the titles of the columns that the width left out.
    """
    shown = fit_columns(columns, rows, width)
    missing = [
        column.title for i, column in enumerate(columns) if i in fit_columns(columns, rows, None) and i not in shown
    ]
    needed = _table_width(_needed(columns[i], [row[i] for row in rows]) for i in shown)
    must_fold = width is not None and needed > width
    table = Table(title=None if title is None else Text(title, style="bold"), title_justify="left")
    for column in (columns[i] for i in shown):
        no_wrap = column.min_width is None and not must_fold
        table.add_column(column.title, justify=column.align, overflow="fold", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in shown))
    return table, tuple(missing)


def print_table(
    out: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    wide: bool = False,
    title: str | None = None,
    whole: str = "--wide",
    bold: Sequence[int] = (),
) -> None:
    """Print a table that fits the console; a line below it names the columns that were left out.

    Args:
        out, columns, rows: Console, all columns, and the cells, a row for each line.
        wide: Leave nothing out, however wide the table is.
        title: Title above the table.
        whole: What to type for all columns.
        bold: Rows to stress.
    """
    table, missing = fitted_table(columns, rows, width=None if wide else out.width, title=title)
    for row in bold:
        table.rows[row].style = "bold"
    before = out.width
    if wide:
        out.width = max(before, _table_width(_longest(c, [row[i] for row in rows]) for i, c in enumerate(columns)))
    out.print(table, crop=False)
    out.width = before
    if missing:
        out.print(Text(f"not shown at this width: {', '.join(missing)} ({whole} shows all)", style="dim"))


def html_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """Return a table as HTML, for notebooks."""
    head = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:{c.align}">{escape(cell)}</td>' for c, cell in zip(columns, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Name what is done meanwhile on a live line of stderr in a terminal, nowhere else; URIs without their credentials."""
    out = Console(stderr=True)
    with out.status(escape_markup(f"{hide_secrets(what)} ...")) if out.is_terminal else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def rows_bar(num_rows: int, what: str = "") -> Iterator[Callable[[int], None]]:
    """Show the rows done on a live line of stderr in a terminal, nowhere else; yields a function that takes their number."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    out = Console(stderr=True)
    words = TextColumn(f"{what} {{task.completed:,.0f}} of {{task.total:,.0f}} rows".strip())
    with Progress(
        BarColumn(), words, TimeRemainingColumn(), console=out, transient=True, disable=not out.is_terminal
    ) as bar:
        task = bar.add_task(what, total=num_rows)
        yield lambda done: bar.update(task, completed=done)
