"""Declarations of config fields: their rules, their groups, and the conversion of YAML and JSON values to their types."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from sst2_ray import formatting
from sst2_ray.config.habits import hint
from sst2_ray.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Rule(Generic[T]):
    """A condition on the value of a field; it stands in the field's annotation: `Annotated[int, Rule(...)]`."""

    holds: Callable[[T], bool]
    otherwise: str
    """End of the sentence that refuses a value, e.g. "must be at least 1"."""


@dataclass(frozen=True)
class Value:
    """A name for the value of a field in `--help`, e.g. FOLDER; it stands in the field's annotation."""

    name: str


class _Positional:
    """A marker of fields that are given without a flag, in the order of their declaration."""


@dataclass(frozen=True)
class AlsoPositional:
    """A marker of fields whose value is taken without the flag as well."""


@dataclass(frozen=True)
class OldName:
    """A former name of a field, whose flag is still taken."""

    name: str


@dataclass(frozen=True)
class UpTo:
    """A marker of fields whose flag takes a range, `--num-workers 2:8`, and the name of the field of its upper end."""

    field: str


Positional = Annotated[T, _Positional()]
Folder = Annotated[str, Value("FOLDER")]
File = Annotated[str, Value("FILE")]
Name = Annotated[str, Value("NAME")]
RunName = Annotated[str, Value("RUN")]  # of the storage folder: a shell completes it
Positive = Annotated[Number, Rule[float](lambda v: math.isfinite(v) and v > 0, "must be a finite number above 0")]
NotNegative = Annotated[
    Number, Rule[float](lambda v: math.isfinite(v) and v >= 0, "must be a finite number, 0 or above")
]
Fraction = Annotated[float, Rule[float](lambda v: 0 <= v < 1, "must be at least 0 and below 1")]
AtLeastOne = Annotated[int, Rule[int](lambda v: v >= 1, "must be a whole number, at least 1")]
NotEmpty = Annotated[Folder, Rule[str](bool, "is empty; is a variable of the shell not set?")]


def group(title: str, **metadata: bool) -> Callable[[type[T]], type[T]]:
    """Put the fields of a class into a titled group of `--help` and give all of them the same metadata.

    Stands below `@dataclass`. Every field needs a default.
    """

    def decorate(cls: type[T]) -> type[T]:
        for name in cls.__annotations__:
            setattr(cls, name, field(default=getattr(cls, name), metadata={"group": title, **metadata}))
        return cls

    return decorate


def flag(name: str) -> str:
    """Return the command-line flag of a field: `--batch-size` for `batch_size`."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Kind:
    """The declared type of a field."""

    type: type
    choices: tuple[str, ...]
    optional: bool
    is_tuple: bool = False
    """`type` and `choices` are then those of its members."""
    rules: tuple[Rule[Any], ...] = ()
    is_positional: bool = False
    may_be_positional: bool = False
    old_names: tuple[str, ...] = ()
    upper_field: str | None = None
    """Field that takes the second number of `--flag 2:8`."""
    value_name: str | None = None
    """Name of the value in `--help`; None: one that follows from the type."""

    def holds(self, value: object) -> bool:
        """Tell if a value is of this type; rules are not looked at."""
        if self.is_tuple:
            member = dataclasses.replace(self, is_tuple=False)
            return isinstance(value, tuple) and all(member.holds(item) for item in value)
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if isinstance(value, bool):
            return self.type is bool
        return isinstance(value, (int, float) if self.type is float else self.type)

    def check_rules(self, shown: str, value: object) -> None:
        """Check a value of this type against the rules; None passes. Raises InputError that begins with `shown`."""
        for rule in self.rules:
            if value is not None and not rule.holds(value):
                raise InputError(f"{shown} {value!r}: {rule.otherwise}")

    def __str__(self) -> str:
        """Return the type in words: `an integer (or null)`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        name = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}[self.type]
        return name + (" (or null)" if self.optional else "")


@functools.cache
def kinds_of(cls: type) -> dict[str, Kind]:
    """Return the declared type of every field of a dataclass, by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: _kind(hints[f.name]) for f in dataclasses.fields(cls)}


def _kind(hint: object) -> Kind:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _annotated(_kind(arguments[0]), arguments[1:])
    if origin is tuple:
        return dataclasses.replace(_kind(arguments[0]), is_tuple=True)
    if origin is Literal:
        return Kind(type=str, choices=arguments, optional=False)
    options = [option for option in arguments if option is not type(None)]
    if options:
        return dataclasses.replace(_kind(options[0]), optional=type(None) in arguments)
    return Kind(type=typing.cast("type", hint), choices=(), optional=False)


def _annotated(kind: Kind, extras: Sequence[object]) -> Kind:
    """Add the rules and markers of an `Annotated` to the kind of its type."""
    for extra in extras:
        match extra:
            case Rule():
                kind = dataclasses.replace(kind, rules=(*kind.rules, extra))
            case Value(name):
                kind = dataclasses.replace(kind, value_name=name)
            case UpTo(field):
                kind = dataclasses.replace(kind, upper_field=field)
            case OldName(name):
                kind = dataclasses.replace(kind, old_names=(*kind.old_names, name))
            case AlsoPositional():
                kind = dataclasses.replace(kind, may_be_positional=True)
            case _Positional():
                kind = dataclasses.replace(kind, is_positional=True, may_be_positional=True)
    return kind


def check_fields(config: object, cls: type) -> None:
    """Check the values of the fields of `cls` against their types and rules. Raises InputError with one line.

    Replaces lists, arrays and single values by tuples, and integers in fields of type float: 1 and 1.0 are the same rate and
    must have one hash.
    """
    for name, kind in kinds_of(cls).items():
        value = getattr(config, name)
        if kind.is_tuple and isinstance(value, set | frozenset):
            raise InputError(f"{flag(name)} {value!r}: a set has no order; give a list or a tuple")
        if kind.is_tuple and not isinstance(value, tuple):
            value = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        value = tuple(map(_plain, value)) if kind.is_tuple else _plain(value)
        if not kind.holds(value):
            raise InputError(f"{flag(name)} {value!r}: must be {kind}")
        kind.check_rules(flag(name), value)
        if kind.type is float:
            value = tuple(map(_float, value)) if isinstance(value, tuple) else _float(value)
        object.__setattr__(config, name, value)


def _float(value: object) -> object:
    return float(value) if isinstance(value, int) else value


def _plain(value: object) -> object:
    """Return numpy's scalar as Python's own number, and a path as a text."""
    if isinstance(value, PurePath):
        return str(value)
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return typing.cast("Any", value).item() if is_scalar else value


def check_is(config: object, cls: type) -> None:
    """Raise TypeError, with what is expected, unless `config` is a `cls`."""
    if not isinstance(config, cls):
        made = f"; {cls.__name__}(**values) makes one" if isinstance(config, Mapping) else ""
        raise TypeError(f"expected a {cls.__name__}, not a {type(config).__name__}{made}")


def changes(config: DataclassInstance) -> dict[str, object]:
    """Return the values of the fields that differ from their defaults, in the order of the fields."""
    found = {}
    for f in dataclasses.fields(config):
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        value = getattr(config, f.name)
        if value != default:
            found[f.name] = value
    return found


def describe_changes(*configs: DataclassInstance) -> str:
    """Return the settings that differ from their defaults in words: `model sbert, learning_rate 3e-5`."""
    words = [
        f"{name} {format_value(value)}"
        for config in configs
        for name, value in changes(config).items()
        if not dataclasses.is_dataclass(value)
    ]
    return f"{', '.join(words)}; the others have their defaults" if words else "all have their defaults"


def format_value(value: object) -> str:
    """Return a value as one would type it on a command line, without the credentials of a URI."""
    if isinstance(value, tuple | list):
        return " ".join(format_value(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, float):
        return formatting.without_secret(str(value))
    return formatting.learning_rate(value)


def readable(config: DataclassInstance) -> str:
    """Return the expression that makes a config, with the values that differ from their defaults; secrets of URIs are left out."""
    name, shown = type(config).__name__, formatting.without_secrets(changes(config))
    parts = [f"{key}={value!r}" for key, value in shown.items()]
    short = f"{name}({', '.join(parts)})"
    if len(short) <= 100:
        return short
    return "\n".join([f"{name}(", *("    " + part.replace("\n", "\n    ") + "," for part in parts), ")"])


def coerce(kind: Kind, key: str, value: object, source: str) -> object:
    """Convert a value read from YAML or JSON to the declared type of its field.

    YAML reads 8e-5 as a text and 1 as an integer; one value stands for a tuple of one. Raises InputError.
    """
    if kind.is_tuple:
        one = dataclasses.replace(kind, is_tuple=False)
        return tuple(coerce(one, key, v, source) for v in (value if isinstance(value, list | tuple) else [value]))
    try:
        if kind.type is float and isinstance(value, int | str) and not isinstance(value, bool):
            return float(value)
        if kind.type is int and isinstance(value, float | str) and int(value) == float(value):
            return int(value)
        if kind.type is str and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    except (TypeError, ValueError, OverflowError):
        pass  # refused below, with the declared type
    if not kind.holds(value):
        raise InputError(f"{source}: {key}: {value!r} is not {kind}")
    return value


def coerce_fields(cls: type[DataclassInstance], values: Mapping[str, object], source: str) -> dict[str, object]:
    """Convert values read from YAML or JSON to the fields of a dataclass.

    Raises InputError for an unknown key, with the nearest valid ones, and for a value of another type.
    """
    kinds = kinds_of(cls)
    for key in values:
        if key not in kinds:
            raise InputError(f"{source}: unknown key {key!r}; {hint(str(key), kinds)}")
    return {key: coerce(kinds[key], key, value, source) for key, value in values.items()}


def matches(pattern: str, otherwise: str) -> Rule[str]:
    """Make a rule from a regular expression that the whole text must match."""
    return Rule(lambda text: re.fullmatch(pattern, text) is not None, otherwise)
