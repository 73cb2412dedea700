"""How figures are written for people: in the terminal, in the verdicts and on the page."""

from __future__ import annotations

import math

NONE = "–"


def learning_rate(value: float | None) -> str:
    """8e-5, 1.2e-4: the shortest form, without the exponent's zero."""
    if value is None:
        return NONE
    if value == 0 or value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def percent(value: float | None, digits: int = 2) -> str:
    """An accuracy of 0.9472 as 94.72."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def points(value: float, digits: int = 2) -> str:
    """A difference of 0.0123 as +1.23."""
    return signed(100 * value, digits)


def plain_points(value: float, digits: int = 2) -> str:
    """A difference without a plus sign."""
    return points(value, digits).removeprefix("+")


def p_value(value: float) -> str:
    """p = 0.034, or p < 0.001."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def duration(seconds: float | None) -> str:
    """38 s, 12 min, 3 h 05 min."""
    if seconds is None or math.isnan(seconds):
        return NONE
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None, digits: int = 3) -> str:
    """At least three significant digits: 2,104 or 91.3."""
    if value is None or math.isnan(value):
        return NONE
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def dollars(value: float | None) -> str:
    """US dollars with cents, below ten cents with more of them."""
    if value is None or math.isnan(value):
        return NONE
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.4f}"


def count(num: int, singular: str, plural: str | None = None) -> str:
    """1 seed, 3 seeds."""
    return f"{num:,} {singular if num == 1 else plural or singular + 's'}"


def join(words: list[str], last: str = "and") -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""
