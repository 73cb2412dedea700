"""Formatting of figures for people: in the terminal, in the verdicts and in the report."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

NONE = "–"


def learning_rate(value: float | None) -> str:
    """Format a rate in its shortest form: 8e-5, 1.2e-4."""
    if value is None:
        return NONE
    if value == 0 or value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def percent(value: float | None, digits: int = 2) -> str:
    """Format a fraction of 0.9472 as 94.72."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """Format a difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def points(value: float, digits: int = 2) -> str:
    """Format a difference between fractions in percentage points: 0.0123 as +1.23."""
    return signed(100 * value, digits)


def plain_points(value: float, digits: int = 2) -> str:
    """Format a difference between fractions in percentage points, without a plus sign."""
    return points(value, digits).removeprefix("+")


def p_value(value: float) -> str:
    """Format a p value: p = 0.034, or p < 0.001."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def duration(seconds: float | None) -> str:
    """Format seconds: 38 s, 12 min, 3 h 05 min."""
    if seconds is None or math.isnan(seconds):
        return NONE
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with at least three significant digits: 2,104 or 91.3."""
    if value is None or math.isnan(value):
        return NONE
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def dollars(value: float | None) -> str:
    """Format US dollars: with cents, below ten cents with four digits."""
    if value is None or math.isnan(value):
        return NONE
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.4f}"


def size(num_bytes: float) -> str:
    """Format bytes: 3.1 KiB, 12.5 MiB, 0.35 GiB."""
    if num_bytes >= 2**30 / 10:
        return f"{num_bytes / 2**30:,.2f} GiB"
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.1f} KiB"


def count(num: int, singular: str, plural: str | None = None) -> str:
    """Format a count and its noun: 1 seed, 3 seeds."""
    return f"{num:,} {singular if num == 1 else plural or singular + 's'}"


def join(words: list[str], last: str = "and") -> str:
    """Join words: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


_BEFORE_HOST = r"(?<=://)(?:{name}*:{any}*|(?<!abfs://)(?<!abfss://){name}*)@"
# Secrets hold '/', '@' and '?' that nobody has escaped, so a URI with a ':' before its first '/' loses all up to its last '@':
# a secret is never shown, and the rare path with an '@' behind a password or a port is cut short. Without that ':' an '@' in
# the path is a letter like any other, and abfss://CONTAINER@ACCOUNT stays.
_OF_URI = re.compile(_BEFORE_HOST.format(name="[^/:]", any="."), re.DOTALL)
_IN_TEXT = re.compile(_BEFORE_HOST.format(name=r"[^/:\s]", any=r"\S"))


_QUERY_OF_URI = re.compile(r"(://[^?#]*)\?([^#]*)")
_QUERY_IN_TEXT = re.compile(r"(://[^?#\s]*)\?([^#\s]*)")
_SECRET_OPTION = re.compile(r".*(secret|password|passwd|signature).*|.*(token|key)|sig", re.IGNORECASE)
"""Names of options whose value is a secret: Azure's client_secret and sig, a token of an address that was signed."""


def without_secret(uri: str) -> str:
    """Remove `user:secret@` and options that are secrets from a URI; a path stays as it is."""
    return _QUERY_OF_URI.sub(_without_secret_options, _OF_URI.sub("", uri))


def hide_secrets(text: str) -> str:
    """Remove `user:secret@` and options that are secrets from every URI in a text; a URI ends at a space."""
    return _QUERY_IN_TEXT.sub(_without_secret_options, _IN_TEXT.sub("", text))


def _without_secret_options(found: re.Match[str]) -> str:
    """Return the part of a URI before its query, and those options that are no secrets."""
    options = [option.partition("=") for option in found[2].split("&")]
    kept = [name + equals + value for name, equals, value in options if not (equals and _SECRET_OPTION.fullmatch(name))]
    return found[1] + (f"?{'&'.join(kept)}" if kept else "")


def without_secrets(values: Mapping[str, object]) -> dict[str, object]:
    """Remove what `without_secret` removes from every URI among the values of a config, for what others read."""
    return {name: _without_secret_items(value) for name, value in values.items()}


def _without_secret_items(value: object) -> object:
    if isinstance(value, list | tuple):
        return type(value)(map(_without_secret_items, value))
    return without_secret(value) if isinstance(value, str) else value
