"""`--help` of a command, from its dataclass: flags in titled boxes, as wide as the terminal."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sst2_ray.config.fields import Kind, flag, kinds_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_UNITS = (("_usd", "USD"), ("_per_hour", "USD"), ("_hours", "HOURS"), ("_s", "SECONDS"), ("_fraction", "FRACTION"))
_LONGEST_WIDTH = 120


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
        word = "{" + ",".join(kind.choices) + "}"
    elif kind.value_name is not None:
        word = kind.value_name
    elif kind.type in (int, float):
        word = next((unit for ending, unit in _UNITS if name.endswith(ending)), "N" if kind.type is int else "X")
    else:
        word = "TEXT"
    return f"{word} ..." if kind.is_tuple else word


def usage(name: str, kind: Kind) -> str:
    """Return what to type for a field: `--batch-size N`, `--compile`, `CLUSTER`."""
    if kind.is_positional:
        return name.upper()
    if kind.type is bool and not kind.optional:
        return flag(name)
    if kind.type is bool:
        return f"{flag(name)} {{true,false}}"
    return f"{flag(name)} {value_name(name, kind)}"


def default_text(value: object) -> str:
    """Return a default value as one would type it; empty if there is nothing to say."""
    if value is None or value is False or value == () or value is dataclasses.MISSING:
        return ""
    if isinstance(value, tuple | list):
        return " ".join(default_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return "on" if value is True else str(value)


def print_help(
    cls: type,
    *,
    prog: str,
    description: str | None = None,
    default: object = None,
    first: Sequence[str] = (),
    examples: Sequence[str] = (),
    full: bool = True,
) -> None:
    """Print the help of a command on stdout.

    Args:
        cls: Dataclass whose fields are the flags.
        prog: The command.
        description: What it does; None: the docstring of `cls`.
        default: Instance whose values are shown as the defaults; None: those of `cls`.
        first: Fields that stand in a box of their own, before the others.
        examples: Command lines, with or without a comment.
        full: Explain every flag; False: of those outside `first`, the names only.
    """
    from rich.console import Console
    from rich.text import Text

    out = Console(highlight=False)
    out.width = min(out.width, _LONGEST_WIDTH)
    kinds = kinds_of(cls)
    positional = [name for name, kind in kinds.items() if kind.is_positional]
    out.print(Text(" ".join(["usage:", prog, *(_bracketed(cls, name) for name in positional), "[FLAGS]"])))
    out.print()
    out.print(Text(" ".join((description or inspect.getdoc(cls) or "").split())))
    out.print()
    values = {f.name: getattr(default, f.name) if default is not None else _default(f) for f in _fields(cls)}
    groups = _groups(cls, first)
    for title, names in groups.items():
        if full or title == _FIRST or len(groups) == 1:
            out.print(_box(title, [(usage(n, kinds[n]), _explanation(cls, n, values[n])) for n in names]))
    if not full and len(groups) > 1:
        rest = [(title, "  ".join(flag(n) for n in names)) for title, names in groups.items() if title != _FIRST]
        out.print(_box(f"More flags, explained by {prog} --help-all", rest))
    if examples:
        out.print(Text("Examples"))
        for line in examples:
            out.print(Text(f"  {line}"), soft_wrap=True)


_FIRST = "Most used"


def _groups(cls: type, first: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {_FIRST: list(first)} if first else {}
    for f in _fields(cls):
        if f.name not in first:
            groups.setdefault(f.metadata.get("group", "Flags"), []).append(f.name)
    return groups


def _fields(cls: type) -> Iterable[dataclasses.Field[Any]]:
    return dataclasses.fields(cls)


def _default(f: dataclasses.Field[Any]) -> object:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _bracketed(cls: type, name: str) -> str:
    required = any(f.name == name and _default(f) is dataclasses.MISSING for f in _fields(cls))
    return name.upper() if required else f"[{name.upper()}]"


def _explanation(cls: type, name: str, value: object) -> str:
    default = default_text(value)
    ending = " (required)" if value is dataclasses.MISSING else f" [{default}]" if default else ""
    return docs_of(cls).get(name, "") + ending


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
