"""`--help` of a command, from its dataclass: flags in titled boxes, as wide as the terminal."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sst2_ray import formatting
from sst2_ray.config.fields import Kind, flag, kinds_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_UNITS = (("_usd", "USD"), ("_per_hour", "USD"), ("_hours", "HOURS"), ("_s", "SECONDS"), ("_fraction", "FRACTION"))
_LONGEST_WIDTH = 120
_FIRST = "Most used"


@functools.cache
def docs_of(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass and its bases, as one line; empty without the source."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError):
            continue
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for node, following in itertools.pairwise(statements):
            match node, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs


def value_name(name: str, kind: Kind) -> str:
    """Return the name of a field's value: `{auto,bf16}`, SECONDS, FOLDER, N."""
    if kind.choices:
        word = "{" + ", ".join(kind.choices) + "}"
    elif kind.value_name is not None:
        word = kind.value_name
    elif kind.type in (int, float):
        word = next((unit for ending, unit in _UNITS if name.endswith(ending)), "N" if kind.type is int else "X")
    else:
        word = "TEXT"
    return f"{word} ..." if kind.is_tuple else word


def usage(name: str, kind: Kind, *, is_on: bool = False) -> str:
    """Return what to type for a field: `--batch-size N`, `--compile`, `CLUSTER`; `--no-x` for a switch that is on."""
    if kind.is_positional:
        return name.upper()
    if kind.type is bool:
        return f"{flag(name)} {{true, false}}" if kind.optional else flag(f"no_{name}" if is_on else name)
    return f"{flag(name)} {value_name(name, kind)}"


def default_text(value: object) -> str:
    """Return a default value as one would type it; empty if there is nothing to say."""
    if value is None or value is False or value == () or value is dataclasses.MISSING:
        return ""
    if isinstance(value, tuple | list):
        return " ".join(default_text(item) for item in value)
    if isinstance(value, float):
        return formatting.learning_rate(value)
    return "" if value is True else str(value)


@dataclass(frozen=True, kw_only=True)
class HelpPage:
    """The help of one command."""

    fields: type
    """Dataclass whose fields are the flags."""
    prog: str
    description: str | None = None
    """Sentences about what the command does; None: the docstring of `fields`."""
    default: object = None
    """Instance whose values are shown as the defaults; None: those of `fields`."""
    first: Sequence[str] = ()
    """Fields in a box of their own, before the others."""
    examples: Sequence[str] = ()
    """Command lines."""

    def print(self, *, full: bool = True) -> None:
        """Print the page on stdout. `full`: explain every flag; else of those outside `first` the names only."""
        from rich.console import Console
        from rich.text import Text

        out = Console(highlight=False)
        out.width = min(out.width, _LONGEST_WIDTH)
        kinds, groups = kinds_of(self.fields), self._groups()
        arguments = [self._bracketed(name) for name, kind in kinds.items() if kind.is_positional]
        out.print(Text(" ".join(["usage:", self.prog, *arguments, "[FLAGS]"])), end="\n\n")
        out.print(Text(" ".join((self.description or inspect.getdoc(self.fields) or "").split())), end="\n\n")
        for title, names in groups.items():
            if full or title == _FIRST:
                out.print(_box(title, [self._row(name, kinds[name]) for name in names]))
        if not full:
            rest = [(title, "  ".join(flag(n) for n in names)) for title, names in groups.items() if title != _FIRST]
            out.print(_box(f"More flags, explained by {self.prog} --help-all", rest))
        if self.examples:
            out.print(Text("\n".join(["Examples:", *(f"  {line}" for line in self.examples)])), soft_wrap=True)

    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {_FIRST: list(self.first)} if self.first else {}
        for f in dataclasses.fields(self.fields):
            if f.name not in self.first:
                groups.setdefault(f.metadata.get("group", "Flags"), []).append(f.name)
        return groups

    def _bracketed(self, name: str) -> str:
        return name.upper() if self._value(name) is dataclasses.MISSING else f"[{name.upper()}]"

    def _value(self, name: str) -> object:
        if self.default is not None:
            return getattr(self.default, name)
        field = next(f for f in dataclasses.fields(self.fields) if f.name == name)
        return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()

    def _row(self, name: str, kind: Kind) -> tuple[str, str]:
        value = self._value(name)
        default = default_text(value)
        ending = " (required)" if value is dataclasses.MISSING else f" [{default}]" if default else ""
        return usage(name, kind, is_on=value is True), docs_of(self.fields).get(name, "") + ending


def _box(title: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="bold", ratio=2, overflow="fold")
    table.add_column(ratio=5)
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    return Panel(table, title=Text(title), title_align="left", box=box.ROUNDED)
