"""Answers of one configuration to single sentences, and what each sentence contributes to a score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sst2_ray.config.metrics import REGRESSION_METRICS
from sst2_ray.statistics import crossed
from sst2_ray.statistics.metrics import least_error, row_values, value_contributions
from sst2_ray.statistics.scores import Array, f1, matthews


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Answers of one configuration to the same sentences under every seed."""

    row_id: Array
    """[sentences], ascending."""
    label: Array
    """[sentences]."""
    predicted: Array
    """[seeds, sentences]."""
    probability: Array
    """Probability of class 1 of two, else of the answer, [seeds, sentences]; NaN when it was not stored."""
    is_values: bool = False
    """True: labels and answers are the values of a regression."""

    @property
    def is_multiclass(self) -> bool:
        """Return whether there are more than two classes; probabilities are then those of the answers."""
        return not self.is_values and bool(self.label.max(initial=0) > 1 or self.predicted.max(initial=0) > 1)

    @property
    def correct(self) -> Array:
        """Right answers, bool [seeds, sentences]."""
        return np.asarray(self.predicted == self.label)

    def values(self, metric: str) -> Array | None:
        """Return per-sentence values whose mean over a row is a run's score, [seeds, sentences]; None when not stored.

        metric: accuracy (bool), loss (cross entropy in nats; two classes), scores of classes and auroc (jackknife
        pseudo-values); of a regression pearson and spearman.
        """
        if self.is_values:
            known = metric in REGRESSION_METRICS
            return np.array([value_contributions(metric, self.label, one) for one in self.predicted]) if known else None
        if metric == "accuracy":
            return self.correct
        if metric in ("macro_f1", "weighted_f1", "auroc") or (metric in ("f1", "mcc") and self.is_multiclass):
            return self._row_values(metric)
        if metric not in ("f1", "mcc", "loss"):
            return None
        if metric == "loss":
            if not np.isfinite(self.probability).all() or self.is_multiclass:
                return None
            chosen = np.where(self.label == 1, self.probability, 1 - self.probability)
            return np.asarray(-np.log(np.maximum(chosen, 1e-38)))
        return crossed.pseudo_values({"f1": f1, "mcc": matthews}[metric], self.label, self.predicted)

    def _row_values(self, metric: str) -> Array | None:
        if metric == "auroc" and (self.is_multiclass or not np.isfinite(self.probability).all()):
            return None
        scores = self.probability if metric == "auroc" else [None] * len(self.predicted)
        rows = [row_values(metric, self.label, one, score) for one, score in zip(self.predicted, scores, strict=True)]
        return None if any(row is None for row in rows) else np.array(rows)

    def least_error(self, metric: str) -> float:
        """Return what one sentence that is answered otherwise changes in a run's score; 0 of a regression, whose values vary."""
        if self.is_values:
            return 0.0
        if metric == "loss":
            sure = np.clip(self.probability, 1e-12, 1 - 1e-12)
            return float(np.abs(np.log(sure / (1 - sure))).mean()) / len(self.label)
        return max(least_error(metric, self.label, one) for one in self.predicted)

    def is_on_sentences_of(self, other: Sample) -> bool:
        """Return whether both hold the same sentences with the same labels."""
        return np.array_equal(self.row_id, other.row_id) and np.array_equal(self.label, other.label)
