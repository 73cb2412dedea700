"""Processes that something has left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


def adopt_orphans() -> None:
    """Become the parent of what a child leaves behind, so that it is found whatever became of its environment."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def alive(*marks: str, but_below: int | None = None) -> list[int]:
    """Return the processes below this one, and those that bear a mark.

    Args:
        marks: parts of an environment or a command line.
        but_below: a process that is left out, with those below it that bear no mark.
    """
    below = set(descendants(os.getpid()))
    if but_below is not None:
        below -= {but_below, *descendants(but_below)}
    marked = {pid for pid in every_process() if any(mark.encode() in _words(pid) for mark in marks)}
    return sorted(pid for pid in below | marked if _state(pid)[0] not in "ZX" and pid != os.getpid())


def descendants(pid: int) -> list[int]:
    """Return the processes below one, however deep."""
    parents = {child: _state(child)[1] for child in every_process()}
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {pid})


def every_process() -> list[int]:
    """Return all process ids of this machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _state(pid: int) -> tuple[str, int]:
    """Return a process's state letter and its parent; ("X", 0) where it has ended."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return state, int(parent)


def _words(pid: int) -> bytes:
    """Return a process's command line and environment; empty where it has ended."""
    found = b""
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/{name}").read_bytes() + b"\0"
    return found
