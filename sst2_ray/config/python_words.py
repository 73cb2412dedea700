"""Errors and remarks as Python's caller reads them: `data='reviews.csv'` where a command line says `--data reviews.csv`.

Messages are written for the command line. Whoever is called from Python, a config or a function, translates those that
leave it; within a command nothing is translated.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

from sst2_ray.config.fields import Kind
from sst2_ray.errors import Sst2RayError

_HAS_TELLER: ContextVar[bool] = ContextVar("has_teller", default=False)
"""Somebody further out words the messages: a command, or another function that was called from Python."""

_KINDS: ContextVar[Callable[[], Mapping[str, Kind]] | None] = ContextVar("kinds", default=None)
"""Arguments of the function that Python called, where one did."""

_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_BRACKETS = r"[(\[{].*?[)\]}](?=:? |$)"
_FLAG = r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z0-9-]*)\b(?!-)"
_HEAD = re.compile(rf"^(?:{_FLAG}(?: (?:{_QUOTED}|{_BRACKETS}|(?!--)(?:(?!: | --).)+))?(?: |(?=:)))+(?=: )")
"""The first words of a message, what and the value: one flag or more with their values, then a colon."""
_NEXT = re.compile(rf"{_FLAG}(?: (?P<value>{_QUOTED}|(?!--)[^\s(,;)](?:[^\s,;)]*[^\s,;:.)])?))?(?P<end>(?=[,;:.)]|$))?")
_OTHER_NAMES = {"input": "texts", "text": "texts"}
"""Flags that are arguments of another name."""
_COMMAND = re.compile(r"sst2-ray [a-z][^;,)`]*")
_LITERAL = re.compile(rf"(?:{_QUOTED}|[(\[{{].*[)\]}}]|None|True|False)\Z", re.DOTALL)
_PLACEHOLDER = re.compile(r"[A-Z_]{2,}\Z")
_LOOKS_LIKE_A_VALUE = re.compile(r"['\"]|-?\d|.*[/._=\-\d]")


@contextlib.contextmanager
def flag_words() -> Iterator[None]:
    """Leave the messages of errors as they are: what runs within was asked for on a command line."""
    token = _HAS_TELLER.set(True)
    try:
        yield
    finally:
        _HAS_TELLER.reset(token)


@contextlib.contextmanager
def python_words(kinds: Callable[[], Mapping[str, Kind]]) -> Iterator[None]:
    """Translate the messages of errors that are raised within, unless somebody further out words them.

    `kinds`: returns the arguments that may be given, by name.
    """
    if _HAS_TELLER.get():
        yield
        return
    token = _KINDS.set(kinds)
    try:
        with flag_words():
            yield
    except Sst2RayError as error:
        error.args = (in_python(str(error), kinds()),)
        raise
    finally:
        _KINDS.reset(token)


def told(remark: str) -> str:
    """Return a remark, which names flags, as whoever called reads it: for Python's caller with arguments."""
    kinds = _KINDS.get()
    return remark if kinds is None else in_python(remark, kinds())


def in_python(message: str, kinds: Mapping[str, Kind]) -> str:
    """Return a message of the command line as one for Python: flags become the arguments of `kinds`.

    A value counts as one at the head of the message, which is what and the value; further behind it has to look like one,
    since words may follow a flag there. Whole commands, and flags that are no argument, stay as they are.
    """
    head = _HEAD.match(message)
    start = head.end() if head else 0
    said = _head_in_python(message[:start], kinds)
    for command in [*_COMMAND.finditer(message, start), None]:
        end = command.start() if command else len(message)
        said += _NEXT.sub(lambda match: _rest_in_python(match, kinds), message[start:end])
        if command:
            said, start = said + command[0], command.end()
    return re.sub(r"(?<=\s)flag(s?)(?=[\s;,)]|$)", r"argument\1", said)


def _head_in_python(head: str, kinds: Mapping[str, Kind]) -> str:
    flags = list(re.finditer(_FLAG, head))
    parts = []
    for match, following in zip(flags, [*flags, None][1:], strict=True):
        value = head[match.end() : following.start() if following else len(head)].strip()
        name = _field(match, kinds)
        kind, is_off = kinds.get(name), bool(match["no"])
        parts.append(f"{match[0]} {value}".rstrip() if kind is None else _given(name, kind, value, is_off=is_off))
    return ", ".join(parts)


def _rest_in_python(match: re.Match[str], kinds: Mapping[str, Kind]) -> str:
    name = _field(match, kinds)
    kind = kinds.get(name)
    if kind is None:
        return match[0]
    value, ends, is_off = match["value"] or "", match["end"] is not None, bool(match["no"])
    if kind.type is bool:
        is_value = value in ("True", "False")
    else:
        is_value = bool(value) and (ends or value in kind.choices or bool(_LOOKS_LIKE_A_VALUE.match(value)))
    if _PLACEHOLDER.match(value) and kind.type is not bool:
        return f"{name}={value}"
    if is_value:
        return _given(name, kind, value, is_off=is_off)
    return _given(name, kind, "", is_off=is_off) + (f" {value}" if value else "")


def _field(match: re.Match[str], kinds: Mapping[str, Kind]) -> str:
    name = str(match["name"]).replace("-", "_")
    other = _OTHER_NAMES.get(name, name)
    return other if name not in kinds and other in kinds else name


def _given(name: str, kind: Kind, value: str, *, is_off: bool) -> str:
    """Return an argument with its value, if there is one. `is_off`: the flag began with `--no-`."""
    if kind.type is bool and not kind.is_tuple:
        return f"{name}={value or not is_off}"
    if not value:
        return name
    low, colon, high = value.partition(":")
    if kind.upper_field and colon:
        return f"{name}={low}, {kind.upper_field}={high}"
    words = value.split()
    if kind.is_tuple and len(words) > 1 and not _LITERAL.match(value):
        return f"{name}=({', '.join(_literal(kind, word) for word in words)})"
    return f"{name}={_literal(kind, value)}"


def _literal(kind: Kind, value: str) -> str:
    is_written = kind.type is not str or _LITERAL.match(value)
    return value if is_written else repr(value)
