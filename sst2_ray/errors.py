"""What can go wrong, as exit codes that tell the truth.

0 succeeded; 2 wrong input, nothing was started; 3 infeasible, or given up waiting for resources; 4 failed; 5 stopped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Sst2RayError(Exception):
    """Base class: its message is one line (what, the value, why, the remedy) and it knows its exit code."""

    exit_code = 4


class InputError(Sst2RayError):
    """The user asked for something that cannot be right. Raised before anything is started or written."""

    exit_code = 2


class InfeasibleError(Sst2RayError):
    """The cluster can never place what was asked for, or did not within the time allowed."""

    exit_code = 3


class RunFailedError(Sst2RayError):
    """A run started and failed; `failure_class` is one of results.schema.FAILURE_CLASSES."""

    exit_code = 4

    def __init__(self, message: str, failure_class: str = "bug") -> None:
        super().__init__(message)
        self.failure_class = failure_class


class StoppedError(Sst2RayError):
    """Ended on request: Ctrl-C, `stop`, or a budget that was reached."""

    exit_code = 5


def did_you_mean(value: str, valid: Iterable[str]) -> str:
    """The tail of an error message: the nearest valid names, or all of them where none is near."""
    names = sorted(valid)
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"valid: {', '.join(names)}"
