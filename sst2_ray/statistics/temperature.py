"""Calibration of probabilities after training: a temperature, and for two classes a decision threshold.

Both are fitted by maximum likelihood on sentences that neither trained the weights nor score them. Logits z become z / T;
of two classes the second one's logit is also raised by a constant, which is the same as moving the probability from which
on the answer is class 1 (Platt 1999; Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from sst2_ray.statistics.scores import Array, binned

_TEMPERATURES = (0.05, 20.0)
"""Bounds of the fit: sentences that are all right would ask for 0."""


@dataclass(frozen=True, kw_only=True)
class Rescaling:
    """A temperature, and what is added to the logit of class 1 of two after the division."""

    temperature: float
    shift: float | None = None
    """Logit added to that of class 1; None: there are more than two classes."""
    num_rows: int
    """Sentences that it was fitted on."""

    @classmethod
    def of_facts(cls, *, temperature: float, threshold: float | None, num_rows: int) -> Rescaling:
        """Return the rescaling of a temperature and a threshold."""
        shift = None if threshold is None else float(np.log(1 / threshold - 1)) / temperature
        return cls(temperature=temperature, shift=shift, num_rows=num_rows)

    @property
    def threshold(self) -> float | None:
        """Return the uncalibrated probability of class 1 of two from which on the answer is class 1."""
        return None if self.shift is None else float(1 / (1 + np.exp(self.shift * self.temperature)))

    def apply(self, logits: Array) -> Array:
        """Rescale logits [rows, classes]."""
        scaled = np.asarray(logits, dtype=float) / self.temperature
        return scaled if self.shift is None else scaled + np.array([0.0, self.shift])

    def undo(self, logits: Array) -> Array:
        """Return the logits [rows, classes] that `apply` made these of."""
        before = np.asarray(logits, dtype=float)
        return (before if self.shift is None else before - np.array([0.0, self.shift])) * self.temperature


def fit(logits: Array, labels: Array) -> Rescaling:
    """Fit a rescaling by maximum likelihood.

    Args:
        logits: [rows, classes].
        labels: Numbers of the classes, [rows].

    Raises:
        ValueError: No rows, or a logit that is not finite.
    """
    wide, labels = np.asarray(logits, dtype=float), np.asarray(labels)
    if not len(wide) or not np.isfinite(wide).all():
        raise ValueError(f"needs finite logits, got {wide.shape}")
    two = wide.shape[1] == 2

    def loss(parameters: Array) -> float:
        scaled = wide / np.exp(parameters[0])
        if two:
            scaled = scaled + np.array([0.0, parameters[1]])
        log_sum = scipy.special.logsumexp(scaled, axis=1)
        return float((log_sum - scaled[np.arange(len(labels)), labels]).mean())

    bounds = [tuple(np.log(_TEMPERATURES)), *([(-10.0, 10.0)] if two else [])]
    found = scipy.optimize.minimize(loss, np.zeros(len(bounds)), method="L-BFGS-B", bounds=bounds)
    return Rescaling(
        temperature=float(np.exp(found.x[0])), shift=float(found.x[1]) if two else None, num_rows=len(labels)
    )


def uncalibrated(probability: Array, *, temperature: float, threshold: float) -> Array:
    """Return the probabilities of class 1 of two that a temperature and a threshold made these of."""
    clipped = np.clip(np.asarray(probability, dtype=float), 1e-12, 1 - 1e-12)
    before: Array = scipy.special.expit(temperature * scipy.special.logit(clipped) + scipy.special.logit(threshold))
    return before


@dataclass(frozen=True, kw_only=True)
class CalibrationError:
    """Gap between confidence and accuracy."""

    value: float
    """ECE, 0-1."""
    floor: float
    """ECE that a perfectly calibrated model shows on average, given so many sentences."""


def calibration_error(logits: Array, labels: Array) -> CalibrationError:
    """Compute the expected calibration error of logits [rows, classes] with labels [rows]."""
    shares = scipy.special.softmax(np.asarray(logits, dtype=float), axis=1)
    found = binned(shares.max(axis=1), shares.argmax(axis=1) == labels, lowest=1 / shares.shape[1])
    return CalibrationError(value=found.expected_error, floor=found.floor)
