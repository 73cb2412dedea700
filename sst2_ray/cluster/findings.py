"""Findings of doctor: one line each, with its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A line of the report."""

    level: Level
    where: str
    """A key of the file, a host, or a tool."""
    what: str
    remedy: str = ""
    """Remedy; every error and warning has one."""

    def line(self) -> str:
        """Return the line as it is printed."""
        mark = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}[self.level]
        return f"{mark} {self.where}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


class Findings(list[Finding]):
    """Findings in the order in which they were made."""

    def ok(self, where: str, what: str) -> None:
        """Add a check that passed."""
        self.append(Finding(level="ok", where=where, what=what))

    def warning(self, where: str, what: str, remedy: str) -> None:
        """Add what works, but costs money, speed or safety."""
        self.append(Finding(level="warning", where=where, what=what, remedy=remedy))

    def error(self, where: str, what: str, remedy: str) -> None:
        """Add what would fail, or must not be done."""
        self.append(Finding(level="error", where=where, what=what, remedy=remedy))

    @property
    def failed(self) -> bool:
        """Return True where there is an error among them."""
        return any(finding.level == "error" for finding in self)
