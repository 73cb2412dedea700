"""Tables that fit the width they are given, and results that show themselves as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sst2_ray.formatting import NONE
from sst2_ray.terminal import print_line, text_console


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table that is fitted into a width."""

    title: str
    rank: int = 0
    """0: identifies the row, never left out and never cut; 1: what a row is read for. If the width does not do, the highest
    ranks are left out first; a printed table whose rank 1 would be left out has rows of two lines instead."""
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
) -> Table:
    """Make a table of the columns that fit into a width.

    What identifies a row is never cut: if even that is too wide, it takes several lines.
    """
    shown = fit_columns(columns, rows, width)
    needed = _table_width(_needed(columns[i], [row[i] for row in rows]) for i in shown)
    must_fold = width is not None and needed > width
    table = Table(title=None if title is None else Text(title, style="bold"), title_justify="left")
    for column in (columns[i] for i in shown):
        no_wrap = column.min_width is None and not must_fold
        table.add_column(column.title, justify=column.align, overflow="fold", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in shown))
    return table


def _stacked_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int, title: str | None
) -> tuple[Table, list[int]]:
    """Make a table of one column whose rows have what identifies them on one line and all else on the next.

    Returns:
        The table, and the indices of the columns that it shows.
    """
    filled = fit_columns(columns, rows, None)
    names, rest = ([i for i in filled if (columns[i].rank == 0) is is_name] for is_name in (True, False))
    below = [
        rest[k] for k in fit_columns([columns[i] for i in rest], [[row[i] for i in rest] for row in rows], width - 2)
    ]
    lines = [(names, _shared(columns, rows, names, width - 4), 0), (below, _shared(columns, rows, below, width - 6), 2)]

    def stacked(cells: Sequence[str]) -> Group:
        found = []
        for indices, widths, indent in lines:
            grid = Table.grid(padding=(0, 2))
            for i, room in zip(indices, widths, strict=True):
                grid.add_column(justify=columns[i].align, overflow="fold", width=room)
            grid.add_row(*(Text(cells[i]) for i in indices))
            found.append(Padding(grid, (0, 0, 0, indent)))
        return Group(*found)

    table = Table(title=None if title is None else Text(title, style="bold"), title_justify="left")
    table.add_column(stacked([column.title for column in columns]))
    for row in rows:
        table.add_row(stacked(row))
    return table, sorted(names + below)


def _shared(columns: Sequence[Column], rows: Sequence[Sequence[str]], indices: Sequence[int], room: int) -> list[int]:
    """Share `room` characters among columns with two spaces between them: what each needs, and what is left from the first on."""
    cells = {i: [row[i] for row in rows] for i in indices}
    widths = [_needed(columns[i], cells[i]) for i in indices]
    spare = room - sum(widths) - 2 * (len(widths) - 1)
    for k, i in enumerate(indices):
        more = max(0, min(_longest(columns[i], cells[i]) - widths[k], spare))
        widths[k], spare = widths[k] + more, spare - more
    if spare < 0 and widths:
        widest = widths.index(max(widths))
        widths[widest] = max(1, widths[widest] + spare)
    return widths


def print_table(
    out: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    wide: bool = False,
    title: str | None = None,
    whole: str = "--wide",
    bold: Sequence[int] = (),
) -> list[int]:
    """Print a table that fits the console; a line below it names the columns that were left out.

    Args:
        out, columns, rows: Console, all columns, and the cells, a row for each line.
        wide: Leave nothing out, however wide the table is.
        title: Title above the table.
        whole: What to type for all columns.
        bold: Rows to stress.

    Returns:
        Indices of the columns that are shown.
    """
    filled = fit_columns(columns, rows, None)
    shown = filled if wide else fit_columns(columns, rows, out.width)
    if any(columns[i].rank == 1 for i in filled if i not in shown):
        table, shown = _stacked_table(columns, rows, width=out.width, title=title)
    else:
        table = fitted_table(columns, rows, width=None if wide else out.width, title=title)
    for row in bold:
        table.rows[row].style = "bold"
    before = out.width
    if wide:
        out.width = max(before, _table_width(_longest(c, [row[i] for row in rows]) for i, c in enumerate(columns)))
    out.print(table, crop=False)
    out.width = before
    if missing := [columns[i].title.partition(", ")[0] for i in filled if i not in shown]:
        out.print(Text(f"not shown at this width: {', '.join(missing)} ({whole} shows all)", style="dim"))
    return shown


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
