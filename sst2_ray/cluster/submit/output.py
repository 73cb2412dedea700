"""Output of `submit`: the job's own to stdout, lines about it to stderr."""

from __future__ import annotations

import os
import sys
from typing import TextIO

NOT_PLACED = "were not placed within --placement-timeout-s"
"""Words of a run that gave up waiting for machines, and not for want of a cluster that is large enough."""


class Output:
    """The job's output on its way to stdout, searched for the line of a run whose workers were never placed."""

    def __init__(self) -> None:
        self.tells_of_no_place = False
        self._end = ""

    def __call__(self, text: str) -> None:
        joined = self._end + text
        self.tells_of_no_place = self.tells_of_no_place or NOT_PLACED in joined
        self._end = joined[-len(NOT_PLACED) :]
        _write(sys.stdout, text)


def say(text: str) -> None:
    """Write one line about the job."""
    _write(sys.stderr, text + "\n")


def _write(stream: TextIO, text: str) -> None:
    """Write at once, and to nowhere once nobody reads any more (`| head`): the job's own exit code still counts."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
