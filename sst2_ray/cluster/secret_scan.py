"""Secrets in files, arguments and variables: found by name and by content, never repeated.

Content is matched against the patterns of detect-secrets, with those added that it lacks, and against what is assigned
to a name like a secret's.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sst2_ray.cluster import secret_forms as forms

if TYPE_CHECKING:
    from detect_secrets.plugins.base import BasePlugin

_LONG_VALUE = 16
_PASSWORD_LENGTH = 8
_TEXT_SAMPLE = 8192
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks."""


@functools.cache
def _detectors() -> tuple[BasePlugin, ...]:
    """Return detect-secrets' own detectors of keys with a form of their own."""
    return tuple(
        getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)()
        for module, name in forms.PLUGINS.items()
    )


def secret_in_file(path: str, content: bytes) -> str | None:
    """Return why a file must not leave this machine, None where nothing speaks against it."""
    name = path.rpartition("/")[2].lower()
    if not _matches(name, forms.HARMLESS_FILE_NAMES):
        pattern = _matches(name, forms.FILE_NAMES) or _matches(path.lower(), forms.FILE_PATHS)
        if pattern:
            return f"named like {pattern}"
    if content.startswith(_UTF_16):  # what PowerShell's `>` writes
        content = content.replace(b"\0", b"")
    is_text = b"\0" not in content[:_TEXT_SAMPLE]
    found = holds_secret(content.decode("latin-1"), is_text=is_text)
    return "holds a private key, password or access token" if found else None


def _matches(text: str, patterns: Iterable[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatch.fnmatchcase(text, pattern)), None)


def holds_secret(text: str, *, is_text: bool = True) -> bool:
    """Return True where a text, or the bytes of a binary file read as one, holds a private key, password or access token."""
    if any(pattern.search(text) for pattern in forms.TOKENS):
        return True
    if not is_text:
        return False
    return (
        any(True for detector in _detectors() for _ in detector.analyze_string(text))
        or any(
            _is_password(*(part for part in match.groups() if part is not None))
            for match in forms.PASSWORD_IN_ADDRESS.finditer(text)
        )
        or _assigns_secret(text)
    )


def _is_password(user: str, password: str) -> bool:
    """Tell whether the password of an address is one, and no placeholder."""
    return (
        password != user
        and password.lower() not in forms.USUAL_PASSWORDS
        and "password" not in password.lower()
        and not forms.PLACEHOLDER.search(re.sub(r"%[0-9A-Fa-f]{2}", "", password))
        and not password.isdigit()  # a port
    )


def _assigns_secret(text: str) -> bool:
    """Tell whether a name like a secret's is given a literal value that is a password, or that a generator made."""
    lower = text.lower()  # of latin-1: the same length
    return any(
        _looks_made(text[slice(*match.span("value"))], _PASSWORD_LENGTH if word.startswith("pass") else _LONG_VALUE)
        for word, pattern in forms.ASSIGNED.items()
        for match in pattern.finditer(lower)
        if (word != "key" or lower.endswith(forms.BEFORE_KEY, 0, match.start())) and _is_literal(match)
    )


def _is_literal(match: re.Match[str]) -> bool:
    """Tell a literal from an expression: quoted, or without dots and not behind a comma."""
    quote = match["quote"]
    return bool(quote == match["after"] and (quote or not (match["comma"] or "." in match["value"])))


def _looks_made(value: str, least: int) -> bool:
    """Tell whether a value has letters and digits as no word, name or version has them, and is no placeholder.

    Args:
        value: to look at.
        least: characters that a secret of this kind has.
    """
    return (
        len(value) >= least
        and any(character.isdigit() for character in value)
        and any(character.isalpha() for character in value)
        and not forms.PLACEHOLDER.search(value)
        and not all(forms.WORDS.fullmatch(part) for part in re.split(r"[\W_]", value))
    )


def is_secret_variable(name: str, value: str) -> bool:
    """Return True for a variable or flag that is named like a secret and given more than a number or a switch."""
    name = name.lstrip("-").replace("-", "_")
    if forms.HARMLESS_VALUE.fullmatch(value):
        return False
    return bool(forms.SECRET_VARIABLE.search(name)) or (
        bool(forms.KEY_VARIABLE.search(name)) and len(value) >= _LONG_VALUE
    )
