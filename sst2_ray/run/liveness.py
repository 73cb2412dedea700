"""Signs of life: does Ray's head answer, and which rank holds the others up."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from sst2_ray.network import split_address
from sst2_ray.run.messages import Heartbeat
from sst2_ray.training.names import Phase

RECONNECT_VARIABLE, RECONNECT_S = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0
"""Seconds that Ray waits for a head that does not answer; then it ends driver and workers where they are."""

SILENT_S = 3.0
"""A rank whose last heartbeat is older was stopped, or cannot be reached: ranks send two a second."""

_BEHIND = (
    Phase.TRAINING,
    Phase.EVALUATION,
    Phase.CHECKPOINT,
    Phase.DATA,
    Phase.FORWARD,
    Phase.BACKWARD,
    Phase.OPTIMIZER,
    Phase.COMMUNICATION,
)
"""Phases between one step and the next, that of the rank furthest behind first; a rank that communicates may only wait."""


def place_of_hang(heartbeats: Mapping[int, Heartbeat]) -> str | None:
    """Name the rank that the others wait for, not the ranks that wait; None where that cannot be told.

    It is a rank that is silent, or else, of those with the fewest steps, the one furthest behind in its step.

    Args:
        heartbeats: every rank's last one.
    """
    if not heartbeats:
        return None
    silent = {rank: heartbeat for rank, heartbeat in heartbeats.items() if heartbeat.age_s > SILENT_S}
    if silent:
        return "; ".join(
            f"rank {rank} was stopped or cannot be reached: last heard of at step {heartbeat.global_step}, "
            f"in {heartbeat.phase}"
            for rank, heartbeat in sorted(silent.items())
        )

    def behind(rank: int) -> tuple[int, int, int]:
        heartbeat = heartbeats[rank]
        position = _BEHIND.index(heartbeat.phase) if heartbeat.phase in _BEHIND else 0
        return heartbeat.global_step, position, rank

    rank = min(heartbeats, key=behind)
    return f"rank {rank} makes no progress at step {heartbeats[rank].global_step}, in {heartbeats[rank].phase}"


class Head:
    """The port of Ray's head: a call to a head that is gone blocks until Ray ends the process, a connection does not."""

    def __init__(self, address: str) -> None:
        """Prepare to ask. `address`: host:port of the head's control service."""
        self.address, self._where = address, split_address(address)
        self._answered = time.monotonic()
        ray_ends_us_after_s = float(os.environ.get(RECONNECT_VARIABLE, RECONNECT_S))
        # Before that the workers still reach each other and the progress actor: they can leave in order.
        self.lost_after_s, self.leave_within_s = ray_ends_us_after_s / 2, ray_ends_us_after_s / 4

    def silent_s(self) -> float:
        """Ask now; return the seconds since the last answer, 0 where it answers."""
        try:
            socket.create_connection(self._where, timeout=1.0).close()
            self._answered = time.monotonic()
            return 0.0
        except OSError:
            return time.monotonic() - self._answered
