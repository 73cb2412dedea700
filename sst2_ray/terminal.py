"""Consoles, and tables that fit the width that they are given."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Return a console on stdout; wide enough for paths if stdout is not a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=max(plain.width, 160), highlight=False)


def show_plan(out: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    out.print(table)
