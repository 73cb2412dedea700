"""A step that was handed to the device and whose gradient norm the host has not read yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sst2_ray.training.engine.base import GradientNorm, NonFiniteError


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
        """Return the norm, after waiting for the step. Raises NonFiniteError with step, rate and rows."""
        try:
            return self.norm.read()
        except NonFiniteError as error:
            raise NonFiniteError(
                f"{error} at step {self.global_step} of {self.total_steps}, "
                f"learning rate {self.learning_rate:.3g}, training rows {self.rows.tolist()}"
            ) from None
