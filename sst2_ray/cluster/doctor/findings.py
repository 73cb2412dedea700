"""What doctor reports: one line a finding, with its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    level: Level
    where: str
    """A key of the file, a host, or a tool."""
    what: str
    remedy: str = ""
    """What to do; every error and warning has one."""

    def line(self) -> str:
        """The line as it is printed."""
        mark = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}[self.level]
        return f"{mark} {self.where}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


def ok(where: str, what: str) -> Finding:
    """A check that passed."""
    return Finding(level="ok", where=where, what=what)


def warning(where: str, what: str, remedy: str) -> Finding:
    """Works, but costs money, speed or safety."""
    return Finding(level="warning", where=where, what=what, remedy=remedy)


def error(where: str, what: str, remedy: str) -> Finding:
    """Would fail, or must not be done."""
    return Finding(level="error", where=where, what=what, remedy=remedy)


def failed(findings: Iterable[Finding]) -> bool:
    """Whether there is an error among them."""
    return any(finding.level == "error" for finding in findings)
