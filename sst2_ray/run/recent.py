"""Speed and loss of the last minute, and the time that is left, for displays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_S = 60.0
"""Seconds over which speed and loss are averaged."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """The progress of an attempt at one moment."""

    at_s: float
    """Seconds of any clock."""
    training_s: float
    """Seconds in optimizer steps so far."""
    global_step: int
    num_examples: int


class Recent:
    """The last minute of an attempt, from a few positions a second."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        """Begin before the first step. `window_s`: seconds to look back."""
        self._window_s = window_s
        self._positions: deque[Position] = deque()
        self._losses: deque[tuple[float, float]] = deque()
        """(seconds, mean loss of some steps), all of about as many steps."""
        self._first: Position | None = None

    def move(self, position: Position) -> None:
        """Add a position; older ones than the window, but one, are forgotten."""
        self._first = self._first or position
        self._positions.append(position)
        while len(self._positions) > 2 and self._positions[1].at_s < position.at_s - self._window_s:
            self._positions.popleft()
        while self._losses and self._losses[0][0] < position.at_s - self._window_s:
            self._losses.popleft()

    def add_loss(self, at_s: float, loss: float) -> None:
        """Add the mean loss of the steps since the last one."""
        self._losses.append((at_s, loss))

    @property
    def loss(self) -> float | None:
        """Return the mean loss of the window; None before the first."""
        return sum(loss for _, loss in self._losses) / len(self._losses) if self._losses else None

    @property
    def examples_per_sec(self) -> float | None:
        """Return the training speed of the window, evaluations and checkpoints left out; None before the second step."""
        examples, training_s, _ = self._moved()
        return examples / training_s if training_s > 0 else None

    def seconds_left(self, total_steps: int) -> float | None:
        """Estimate the seconds to the last step: at the window's speed, and the share of other work so far.

        None before the second step.
        """
        _, training_s, steps = self._moved()
        if self._first is None or not steps:
            return None
        last = self._positions[-1]
        in_steps = last.training_s - self._first.training_s
        share = max(1.0, (last.at_s - self._first.at_s) / in_steps) if in_steps > 0 else 1.0
        return (total_steps - last.global_step) * training_s / steps * share

    def _moved(self) -> tuple[int, float, int]:
        """Return examples, seconds in steps, and steps within the window."""
        if len(self._positions) < 2:
            return 0, 0.0, 0
        first, last = self._positions[0], self._positions[-1]
        return (
            last.num_examples - first.num_examples,
            last.training_s - first.training_s,
            last.global_step - first.global_step,
        )
