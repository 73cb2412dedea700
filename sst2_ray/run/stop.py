"""Requests to stop a run: from a signal, from the stop file on storage, or because another driver has taken the run over."""

from __future__ import annotations

import time
from enum import IntEnum

from sst2_ray.run.lease import Lease
from sst2_ray.storage import Storage

STOP_FILE = "stop.json"
"""File below the folder of a run or a sweep that asks it to stop; write access to the storage is enough."""

STOP_POLL_S = 2.0
"""Seconds between two looks at the stop file."""

STOP_WITHIN_S = 60.0
"""Workers that were asked to stop and have not left after so many seconds are ended where they are. While one of them
writes a checkpoint the limit is the step time-out."""


class StopLevel(IntEnum):
    """The urgency with which a run is asked to stop."""

    NONE = 0
    CHECKPOINT = 1
    """The workers write a checkpoint and leave."""
    AT_ONCE = 2
    """The workers are ended where they are; the newest checkpoint counts."""


class StopRequests:
    """Collects the requests to stop one run. `request` may be called from a signal handler: it takes no lock."""

    def __init__(self, experiment: Storage, lease: Lease | None = None) -> None:
        """Watch the stop file in the folder `experiment`, and `lease` where the run has one."""
        self._file, self._lease = experiment, lease
        self._num_signals = 0
        self._in_file = False
        self._looked_at = float("-inf")

    def request(self) -> None:
        """Ask to stop; asking again ends the run at once."""
        self._num_signals += 1

    def level(self) -> StopLevel:
        """Return the most urgent request so far. The stop file is read at most every `STOP_POLL_S`."""
        if self._lease is not None and self._lease.taken_by:
            return StopLevel.AT_ONCE  # the other driver writes the checkpoints now
        if self._num_signals:
            return StopLevel(min(self._num_signals, StopLevel.AT_ONCE))
        if not self._in_file and time.monotonic() - self._looked_at >= STOP_POLL_S:
            self._in_file = self._file_exists()
            self._looked_at = time.monotonic()
        return StopLevel.CHECKPOINT if self._in_file else StopLevel.NONE

    def _file_exists(self) -> bool:
        """Look for the stop file; storage that cannot be reached holds no request."""
        try:
            return self._file.exists(STOP_FILE)
        except OSError:
            return False
