"""Exceptions, failure classes and exit codes; no other module knows the numbers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum, StrEnum

from sst2_ray.formatting import hide_secrets

_MOST_NAMES = 24
"""Valid names that an error message lists."""
_MOST_BEHIND = 0.2
"""Similarity (0 to 1) by which a suggested name may be behind the nearest one."""


class ExitCode(IntEnum):
    """Exit codes of every command."""

    SUCCEEDED = 0
    WRONG_INPUT = 2
    """Code for wrong input: nothing was started."""
    INFEASIBLE = 3
    """Can never be placed, or was not placed within the time allowed."""
    FAILED = 4
    STOPPED = 5
    """Stopped on request; it can be resumed."""


class FailureClass(StrEnum):
    """Reason why an attempt failed or stopped; a column of the results table."""

    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    """A loss or a gradient was not finite."""
    WORKER_LOST = "worker_lost"
    PREEMPTED = "preempted"
    NOT_PLACEABLE = "not_placeable"
    HUNG = "hung"
    DATA_ERROR = "data_error"
    STORAGE_ERROR = "storage_error"
    USER_STOP = "user_stop"
    BUG = "bug"


class Sst2RayError(Exception):
    """Base class of this package's errors: a message of one line (what, the value, why, the remedy) and an exit code."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str) -> None:
        """Keep the message without the credentials of the URIs that it repeats."""
        super().__init__(hide_secrets(message))


class InputError(Sst2RayError):
    """Wrong input, found before anything is started or written."""

    exit_code = ExitCode.WRONG_INPUT


class InfeasibleError(Sst2RayError):
    """A request that the cluster can never place, or did not place within the time allowed."""

    exit_code = ExitCode.INFEASIBLE
    failure_class = FailureClass.NOT_PLACEABLE


class RunFailedError(Sst2RayError):
    """A failure of a run that had started."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, failure_class: FailureClass = FailureClass.BUG) -> None:
        super().__init__(message)
        self.failure_class = failure_class


class StoppedError(Sst2RayError):
    """An end on request: Ctrl-C, `stop`, or a spent budget."""

    exit_code = ExitCode.STOPPED


def nearest(value: str, valid: Iterable[str]) -> list[str]:
    """Return the names that were probably meant; neither case nor `_` for `-` makes a name another one."""
    names = sorted(valid)
    plain = [name.lower().replace("_", "-") for name in names]
    wanted = value.lower().replace("_", "-")
    found = [wanted] if wanted in plain else difflib.get_close_matches(wanted, dict.fromkeys(plain), n=3, cutoff=0.6)
    if found:  # a weak match beside a strong one only distracts
        ratios = {one: difflib.SequenceMatcher(None, wanted, one).ratio() for one in found}
        found = [one for one in found if ratios[one] > max(ratios.values()) - _MOST_BEHIND]
    return [name for one in found for name, key in zip(names, plain, strict=True) if key == one]


def did_you_mean(value: str, valid: Iterable[str]) -> str:
    """Return the end of an error message: the nearest valid names, or all of them if none is near."""
    names = sorted(valid)
    if near := nearest(value, names):
        return f"did you mean {' or '.join(near)}?"
    others = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"valid: {', '.join(names[:_MOST_NAMES])}{others}"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
