"""`--help` of a command, from its dataclass: flags in titled boxes, as wide as the terminal."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sst2_ray.config.fields import Kind, flag, format_value, kinds_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import RenderableType

_UNITS = (
    ("_per_s", "RATE"),
    ("_usd", "USD"),
    ("_per_hour", "USD"),
    ("_hours", "HOURS"),
    ("_s", "SECONDS"),
    ("_fraction", "FRACTION"),
)
_TEXTS = (("_path", "FOLDER"), ("_dir", "FOLDER"), ("_column", "NAME"), ("experiment", "NAME"), ("address", "URL"))
"""Endings of field names -> name of the value."""
RUNS, SWITCH = "@runs", "@switch"
"""Marks in the list of flags: a value that names a run or sweep, a flag without a value."""
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
    else:
        endings, otherwise = (_TEXTS, "TEXT") if kind.type is str else (_UNITS, "N" if kind.type is int else "X")
        word = next((unit for ending, unit in endings if name.endswith(ending)), otherwise)
    return f"{word} ..." if kind.is_tuple else word


def usage(name: str, kind: Kind, *, is_on: bool = False) -> str:
    """Return what to type for a field: `--batch-size N`, `--compile`, `CLUSTER`; for a switch that is on, both forms."""
    if kind.is_positional:
        return name.upper()
    if kind.type is bool:
        both = f"{flag(name)}, {flag(f'no_{name}')}"
        return f"{flag(name)} {{true, false}}" if kind.optional else both if is_on else flag(name)
    return f"{flag(name)} {value_name(name, kind)}"


def default_text(value: object) -> str:
    """Return a default value as one would type it; empty if there is nothing to say."""
    if value is True:
        return "on"
    is_empty = value is None or value is False or value == () or value is dataclasses.MISSING
    return "" if is_empty else format_value(value)


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    kind: Kind
    group: str
    doc: str
    default: object

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def argument(self) -> str:
        """Return what the first line of the help shows."""
        return self.usage if self.is_required else f"[{self.usage}]"

    @property
    def usage(self) -> str:
        return usage(self.name, self.kind, is_on=self.default is True)

    @property
    def explanation(self) -> str:
        default = default_text(self.default)
        doc = self.doc.replace("None: ", "default: ").replace(". default: ", ". Default: ")  # None is a value of Python
        if self.kind.may_be_positional and not self.kind.is_positional:
            doc += " Also without the flag."
        return doc + (" (required)" if self.is_required else f" [{default}]" if default else "")


@dataclass(frozen=True, kw_only=True)
class CommandHelp:
    """The flags of a command, as its help shows them: the fields of one dataclass or of several."""

    prog: str
    """The command."""
    classes: tuple[type[DataclassInstance], ...]
    """A field that several of them have belongs to the first one."""
    description: str = ""
    """Description of the command; empty: the docstring of the first class."""
    first: tuple[str, ...] = ()
    """Fields that `--help` explains; the others it only names, and `--help-all` explains them. Empty: all."""
    hidden: frozenset[str] = frozenset()
    """Fields that are neither shown nor suggested."""
    examples: tuple[str, ...] = ()
    """Command lines that end the help."""
    known_values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Field -> values that a shell completes, for fields that take others as well."""

    def print_help(self, defaults: Mapping[str, object], *, full: bool) -> None:
        """Print the help on stdout.

        Args:
            defaults: Default values that differ from those of the dataclasses.
            full: Explain every flag; False: those of `first`, and only name the others.
        """
        from rich.console import Console
        from rich.text import Text

        out = Console(highlight=False)
        out.width = min(out.width, _LONGEST_WIDTH)
        fields = self._fields(defaults)
        arguments = [f.argument for f in fields if f.is_required or f.kind.is_positional]
        out.print(Text(" ".join(["usage:", self.prog, *arguments, "[FLAGS]"])), end="\n\n")
        description = self.description or inspect.getdoc(self.classes[0]) or ""
        out.print(Text(" ".join(description.split())), end="\n\n")
        left = min(max(len(f.usage) for f in fields), out.width * 3 // 10)
        for title, rows in self._boxes(fields, full or not self.first).items():
            out.print(_box(title, rows, left))
        if self.examples:
            out.print(Text("\n".join(["Examples:", *(f"  {example}" for example in self.examples)])), soft_wrap=True)

    def _boxes(self, fields: Sequence[_Field], full: bool) -> dict[str, list[tuple[str, str]]]:
        """Return the titled groups of rows: usage and explanation, or group and flags."""
        groups = self._groups(fields)
        if full:
            return {title: [(f.usage, f.explanation) for f in members] for title, members in groups.items()}
        first = groups.pop(_FIRST)
        rest = [(title, "  ".join(flag(f.name) for f in members)) for title, members in groups.items()]
        return {
            _FIRST: [(f.usage, f.explanation) for f in first],
            f"More flags; {self.prog} --help-all explains them": rest,
        }

    def list_flags(self) -> None:
        """Print the flags, one a line, each with the choices of its value, or a mark: RUNS, or SWITCH where it takes none."""
        for f in self._fields({}):
            values = self.known_values.get(f.name, f.kind.choices)
            if f.kind.value_name == "RUN":
                values = (RUNS,)
            elif f.kind.type is bool and not f.kind.optional:
                values = (SWITCH,)
            print(*([] if f.kind.is_positional else [flag(f.name)]), *values)

    def _fields(self, defaults: Mapping[str, object]) -> list[_Field]:
        found: dict[str, _Field] = {}
        for cls in self.classes:
            for f in dataclasses.fields(cls):
                if f.name in found or f.name in self.hidden:
                    continue
                own = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
                found[f.name] = _Field(
                    name=f.name,
                    kind=kinds_of(cls)[f.name],
                    group=f.metadata.get("group", "Flags"),
                    doc=docs_of(cls).get(f.name, ""),
                    default=defaults.get(f.name, own),
                )
        return sorted(found.values(), key=lambda f: not f.kind.is_positional)

    def _groups(self, fields: Sequence[_Field]) -> dict[str, list[_Field]]:
        by_name = {f.name: f for f in fields}
        groups = {_FIRST: [by_name[name] for name in self.first]} if self.first else {}
        for f in fields:
            if f.name not in self.first:
                groups.setdefault(f.group, []).append(f)
        return groups


def _box(title: str, rows: Sequence[tuple[str, str]], width: int) -> RenderableType:
    """Draw a box of two columns, the left one of a given width."""
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="bold", width=width, overflow="fold")
    table.add_column(ratio=1)
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    return Panel(table, title=Text(title), title_align="left", box=box.ROUNDED)
