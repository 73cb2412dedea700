"""The decision of all ranks after a step, made by rank 0: continue, write a checkpoint, or write one and yield.

Ranks must agree to the step, but their clocks and the requests they have seen differ. So they meet in a broadcast of two
numbers about twice a second; the number of steps until the next meeting travels with the decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum

import torch

INTERVAL_S = 0.5
MAX_STEPS = 1000


class Decision(IntEnum):
    """Next action of all ranks."""

    CONTINUE = 0
    CHECKPOINT = 1
    YIELD = 2
    """Write a checkpoint and give the workers back."""


class Control:
    """Agreement of the ranks; each holds one and calls `decide` after every step."""

    def __init__(
        self,
        *,
        world_size: int,
        rank: int,
        device: torch.device,
        every_s: float | None,
        preemption_requested: Callable[[], bool],
    ) -> None:
        """Set up the first meeting.

        Args:
            every_s: Seconds between checkpoints; None: none by the clock.
            preemption_requested: Called on rank 0 only; must not block.
        """
        self.world_size, self.rank, self.device = world_size, rank, device
        self.every_s, self.preemption_requested = every_s, preemption_requested
        self.interval_s = INTERVAL_S if every_s is None else min(INTERVAL_S, every_s / 10)
        self.last_checkpoint = time.monotonic()
        self._steps_left = 1
        self._steps = 1
        self._met_at = time.monotonic()

    def decide(self) -> Decision:
        """Return the decision for this step; ranks communicate only at a meeting."""
        self._steps_left -= 1
        if self._steps_left > 0:
            return Decision.CONTINUE
        decision = torch.tensor([0, 1], dtype=torch.int64, device=self.device)
        if self.rank == 0:
            decision[0], decision[1] = self._wanted(), self._until_next()
        if self.world_size > 1:
            torch.distributed.broadcast(decision, src=0)
        self._steps = self._steps_left = int(decision[1])
        return Decision(int(decision[0]))

    def _wanted(self) -> Decision:
        if self.preemption_requested():
            return Decision.YIELD
        due = self.every_s is not None and time.monotonic() - self.last_checkpoint >= self.every_s
        return Decision.CHECKPOINT if due else Decision.CONTINUE

    def _until_next(self) -> int:
        """Return the steps that take about `interval_s` at the recent speed, at most twice as many as last time."""
        now = time.monotonic()
        seconds_per_step = max(1e-6, (now - self._met_at) / self._steps)
        self._met_at = now
        return max(1, min(int(self.interval_s / seconds_per_step), 2 * self._steps, MAX_STEPS))
