"""Consoles that outlive their reader, lines and plans on them, and live lines of what is under way."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table
from rich.text import Text

from sst2_ray.formatting import hide_secrets
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
