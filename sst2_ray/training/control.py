"""What all ranks do after a step, decided by rank 0: go on, write a checkpoint, or write one and leave.

Ranks must agree to the step, and their clocks and what they hear differ. So they meet, in a broadcast of two numbers, about
twice a second: how many steps until they meet again travels with the decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum

import torch

INTERVAL_S = 0.5
MAX_STEPS = 1000


class Decision(IntEnum):
    GO_ON = 0
    CHECKPOINT = 1
    LEAVE = 2


class Control:
    """One a rank; `decide` is called after every step."""

    def __init__(
        self,
        *,
        world_size: int,
        rank: int,
        device: torch.device,
        every_s: float | None,
        asked_to_leave: Callable[[], bool],
    ) -> None:
        """every_s: seconds between checkpoints; None: no clock asks for one. asked_to_leave: looked at on rank 0 alone."""
        self.world_size, self.rank, self.device = world_size, rank, device
        self.every_s, self.asked_to_leave = every_s, asked_to_leave
        self.interval_s = INTERVAL_S if every_s is None else min(INTERVAL_S, every_s / 10)
        self.last_checkpoint = time.monotonic()
        self._steps_left = 1
        self._steps = 1
        self._met_at = time.monotonic()

    def decide(self) -> Decision:
        self._steps_left -= 1
        if self._steps_left > 0:
            return Decision.GO_ON
        decision = torch.tensor([0, 1], dtype=torch.int64, device=self.device)
        if self.rank == 0:
            decision[0], decision[1] = self._wanted(), self._until_next()
        if self.world_size > 1:
            torch.distributed.broadcast(decision, src=0)
        self._steps = self._steps_left = int(decision[1])
        return Decision(int(decision[0]))

    def _wanted(self) -> Decision:
        if self.asked_to_leave():
            return Decision.LEAVE
        due = self.every_s is not None and time.monotonic() - self.last_checkpoint >= self.every_s
        return Decision.CHECKPOINT if due else Decision.GO_ON

    def _until_next(self) -> int:
        """Steps that take about `interval_s` at the speed of those since the last meeting; at most twice as many as then."""
        now = time.monotonic()
        a_step = max(1e-6, (now - self._met_at) / self._steps)
        self._met_at = now
        return max(1, min(int(self.interval_s / a_step), 2 * self._steps, MAX_STEPS))
