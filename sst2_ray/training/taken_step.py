"""A step that was handed to the device and whose gradient norm the host has not read yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sst2_ray.training.engine.base import GradientNorm, NonFiniteError

LOGGER = logging.getLogger("sst2_ray")  # of the rank's log
_MOST_ROWS = 5
"""Rows that the one-line error names."""


@dataclass(frozen=True)
class TakenStep:
    """A step on its way, and what is said of it where its norm turns out not to be finite."""

    norm: GradientNorm
    global_step: int
    """Steps taken, this one included."""
    total_steps: int
    learning_rate: float
    rows: NDArray[np.int64]
    """Ids of the global batch's rows."""

    def grad_norm(self) -> float:
        """Return the norm, after waiting for the step. Raises NonFiniteError with step, rate and a few of the rows; all are logged."""
        try:
            return self.norm.read()
        except NonFiniteError as error:
            where = f"{error} at step {self.global_step} of {self.total_steps}, learning rate {self.learning_rate:.3g}"
            LOGGER.error("%s, training rows %s", where, self.rows.tolist())
            shown = ", ".join(map(str, self.rows.tolist()[:_MOST_ROWS]))
            if len(self.rows) > _MOST_ROWS:
                shown += f", ... ({len(self.rows)} rows; all in the log)"
            raise NonFiniteError(f"{where}, training rows {shown}; try a lower --learning-rate") from None
