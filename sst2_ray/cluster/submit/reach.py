"""Calls to a job server that outlast an outage of the server or of the way to it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CALL_ERRORS = (OSError, RuntimeError, ValueError, TypeError)
"""Exceptions of a call without a proper answer: requests' errors are OSErrors, Ray has a bare RuntimeError for
every status but 200, and what is no answer of a job server at all is an error of the types that read it."""

NO_AGENT = "No available agent"
"""Answer of the server, after ten seconds, while the head's agent, which starts jobs, does not run."""


def reach(
    ask: Callable[[], T],
    *,
    limit_s: float,
    heal: Callable[[], None],
    notice: Callable[[Exception], None],
    passes: Callable[[Exception], bool],
) -> T:
    """Return what `ask` returns, called again each second while its errors are of a kind that passes.

    Args:
        ask: one call to the server.
        limit_s: seconds after which its next error counts.
        heal: reopens the way to the server; may raise.
        notice: takes the first error that passes.
        passes: tells whether an error is of the server's or the network's own trouble.

    Raises:
        Exception: the last one of `ask`, one of CALL_ERRORS.
    """
    deadline = time.monotonic() + limit_s
    noticed = False
    while True:
        try:
            return ask()
        except CALL_ERRORS as error:
            if not passes(error) or time.monotonic() > deadline:
                raise
            if not noticed:
                noticed = True
                notice(error)
        with contextlib.suppress(Exception):  # e.g. ssh refused; the next round tries again until the deadline
            heal()
        time.sleep(1.0)


def is_outage(error: Exception) -> bool:
    """Return True for a connection that failed, and for the server's own troubles (status 5xx)."""
    return isinstance(error, OSError) or server_trouble(error) != ""


def server_trouble(error: Exception) -> str:
    """Return the words "status code 5xx" of an error; empty where it has none."""
    found = re.search(r"status code 5\d\d", str(error))
    return found[0] if found else ""


def takes_jobs_later(error: Exception) -> bool:
    """Return True where a job that was not taken may be taken later; every other 5xx of a submission is a refusal.

    A server whose agent has not started yet, or a gateway before a server that is not there yet.
    """
    text = str(error)
    return isinstance(error, OSError) or NO_AGENT in text or bool(re.search(r"status code 50[234]", text))
