"""The decision of all ranks after a step, made by rank 0: continue, write a checkpoint, or write one and yield.

Ranks must agree to the step, but their clocks and the requests they have seen differ. So they meet in a broadcast of two
numbers about twice a second; the number of steps until the next meeting travels with the decision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from enum import IntEnum

import torch

INTERVAL_S = 0.5
MAX_STEPS = 1000

MOST_SHARE = 0.05
"""Largest share of the time that checkpoints may cost, however often workers fail."""


class Decision(IntEnum):
    """Next action of all ranks."""

    CONTINUE = 0
    CHECKPOINT = 1
    YIELD = 2
    """Write a checkpoint and give the workers back."""


def checkpoint_interval_s(longest_s: float | None, *, cost_s: float, failure_interval_s: float | None) -> float | None:
    """Choose the seconds between two checkpoints that lose the least time, in first order sqrt(2 C M).

    J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications of the ACM 17 (9), 1974.

    Args:
        longest_s: what was set; None: none by the clock.
        cost_s: C, what a checkpoint costs.
        failure_interval_s: M, the mean time between failures; None: none was seen.

    Returns:
        At most `longest_s`, and so many seconds that checkpoints take at most `MOST_SHARE` of the time.
    """
    if longest_s is None or failure_interval_s is None:
        return longest_s
    return min(longest_s, max(math.sqrt(2 * cost_s * failure_interval_s), cost_s / MOST_SHARE))


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
        failure_interval_s: float | None = None,
    ) -> None:
        """Set up the first meeting.

        Args:
            every_s: Longest time between checkpoints; None: none by the clock.
            failure_interval_s: Mean time between the failures of earlier attempts; None: none was seen. With it a
                checkpoint is due at the first meeting, to learn what one costs.
            preemption_requested: Called on rank 0 only; must not block.
        """
        self.world_size, self.rank, self.device = world_size, rank, device
        self.longest_s, self.failure_interval_s = every_s, failure_interval_s
        self.preemption_requested = preemption_requested
        self.saved(0.0)
        self._steps_left = 1
        self._steps = 1
        self._met_at = time.monotonic()

    def saved(self, cost_s: float) -> None:
        """Count the time to the next checkpoint from now on; `cost_s`: what this one cost."""
        self.last_checkpoint = time.monotonic()
        self.every_s = checkpoint_interval_s(self.longest_s, cost_s=cost_s, failure_interval_s=self.failure_interval_s)
        self.interval_s = INTERVAL_S if self.every_s is None else min(INTERVAL_S, self.every_s / 10)

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
