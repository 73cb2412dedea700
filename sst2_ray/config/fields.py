"""What a config's fields are declared as, and plain values, as YAML or JSON reads them, turned into that."""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass
from typing import Any, Literal

from sst2_ray.errors import InputError


def coerce(kind: Kind, key: str, value: Any, source: str) -> Any:
    """YAML reads 8e-5 as a string and 1 as an integer: turn them into what the field is declared as; one value into a
    tuple, where it is declared as one. Raises InputError."""
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
        pass  # said below, with what the field is declared as
    if not kind.holds(value):
        raise InputError(f"{source}: {key}: {value!r} is not {kind}")
    return value


@dataclass(frozen=True)
class Kind:
    """What a field is declared as."""

    type: type
    choices: tuple[str, ...]
    optional: bool
    is_tuple: bool = False
    """`type` and `choices` are then those of its members."""

    def holds(self, value: object) -> bool:
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if isinstance(value, bool):
            return self.type is bool
        return isinstance(value, (int, float) if self.type is float else self.type)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        name = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}[self.type]
        return name + (" (or null)" if self.optional else "")


@functools.cache
def kinds_of(cls: type) -> dict[str, Kind]:
    """Of each field of a dataclass."""
    kinds = {}
    for name, hint in typing.get_type_hints(cls).items():
        is_tuple = typing.get_origin(hint) is tuple
        hint = typing.get_args(hint)[0] if is_tuple else hint
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        options = [t for t in typing.get_args(hint) if t is not type(None)] if not choices else []
        kinds[name] = Kind(
            type=str if choices else (options or [hint])[0],
            choices=choices,
            optional=type(None) in typing.get_args(hint),
            is_tuple=is_tuple,
        )
    return kinds
