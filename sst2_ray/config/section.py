"""Lenient, typed access to parsed YAML and JSON: a value of another type than asked for reads as missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard


def is_text_mapping(value: object) -> TypeGuard[dict[str, object]]:
    """Return True for a mapping; keys of YAML documents are read as text."""
    return isinstance(value, dict)


class Section:
    """A mapping of a document, with the dotted path that leads to it."""

    def __init__(self, value: object, path: str = "") -> None:
        self.raw: dict[str, object] = value if is_text_mapping(value) else {}
        self.path = path

    def __bool__(self) -> bool:
        return bool(self.raw)

    def __contains__(self, key: str) -> bool:
        return key in self.raw

    def at(self, key: str | int) -> str:
        """Return the dotted path of `key`; an integer is an index."""
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> object:
        """Return the value as it is, None where it is missing."""
        return self.raw.get(key)

    def text(self, key: str, default: str = "") -> str:
        """Return a scalar as text."""
        value = self.raw.get(key)
        return default if value is None or isinstance(value, (dict, list)) else str(value)

    def number(self, key: str) -> float | None:
        """Return a number; booleans are none."""
        value = self.raw.get(key)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def whole(self, key: str) -> int | None:
        """Return an integer; booleans are none."""
        value = self.raw.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def section(self, key: str) -> Section:
        """Return the mapping below `key`, empty where there is none."""
        return Section(self.raw.get(key), self.at(key))

    def items(self, key: str) -> list[object]:
        """Return the list below `key`, empty where there is none."""
        value = self.raw.get(key)
        return value if isinstance(value, list) else []

    def sections(self, key: str) -> list[Section]:
        """Return the mappings of the list below `key`."""
        return [
            Section(item, f"{self.at(key)}[{index}]")
            for index, item in enumerate(self.items(key))
            if isinstance(item, dict)
        ]

    def texts(self, key: str) -> list[str]:
        """Return the scalars of the list below `key` as text."""
        return [str(item) for item in self.items(key) if not isinstance(item, (dict, list)) and item is not None]

    def named(self) -> list[tuple[str, Section]]:
        """Return every mapping directly below this one, by its key."""
        return [
            (str(key), Section(value, self.at(str(key)))) for key, value in self.raw.items() if is_text_mapping(value)
        ]

    def strings(self) -> Iterator[tuple[str, str]]:
        """Yield (path, text) of every string in the document; keys are left out."""
        yield from _strings(self.raw, self.path)


def _strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif is_text_mapping(value):
        for key, item in value.items():
            yield from _strings(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}[{index}]")
