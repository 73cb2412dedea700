"""Early stopping on the first seed, for each model apart: asynchronous successive halving and the median rule.

The rules are bookkeeping over evaluations and nothing else, so that a resumed sweep rebuilds them from the results table.
Ray's own schedulers hold Tune's trial objects, assert when a stopped trial reports once more (what a trial function returns
counts as a report), and stop a trial that is a single sentence behind.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

import numpy as np

from sst2_ray.config.metrics import worst
from sst2_ray.config.sweep import SweepConfig

MIN_OTHERS = 3
"""The median rule compares with at least this many other trials."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation of a trial on the first seed, as the stopping rules see it."""

    trial_id: str
    model: str
    number: int
    """Position in its run, from 1; the same after a restart."""
    score: float
    """The metric that the sweep chooses by, more is better."""
    num_rows: int
    """Sentences that it is taken over."""
    error: float | None = None
    """Standard error over the sentences; None: of an accuracy, which follows from it."""


def evaluation_number(epoch: float, evaluations_per_epoch: int) -> int:
    """Return the number of the evaluation of a run at this epoch, from 1."""
    return max(1, round(epoch * evaluations_per_epoch))


def noise(accuracy: float, other: float, num_rows: int) -> float:
    """Return the standard error of the difference of two accuracies on `num_rows` sentences, 0-1.

    Errors of other metrics are estimated from the answers when they are computed (`Evaluation.error`).

    The sentences count as drawn for each accuracy apart, which overstates it where both are wrong on the same ones. One
    hit and one miss are added to each (Agresti and Caffo 2000), so that accuracies of 0 and 1 have noise as well.
    """
    shares = [(share * num_rows + 1) / (num_rows + 2) for share in (accuracy, other)]
    return math.sqrt(sum(share * (1 - share) for share in shares) / (num_rows + 2))


class EarlyStopping:
    """The stopping rule of a sweep and the evaluations that it has seen.

    asha: asynchronous successive halving (Li et al. 2020). At evaluations 1, r, r^2, ... (r: reduction factor) a trial goes
    on if it is in the best 1/r of those that came there before. median: the median rule (Golovin et al. 2017). A trial goes
    on if its best score so far reaches the median of the other trials' averages so far. Neither stops a trial that is
    behind by no more than the noise of the difference, nor one at its last evaluation. Both go by the metric of
    `--choose-by`; its noise, where it is not accuracy, is taken to be as large for the others as for the trial.

    Args:
        config: The sweep.
        past: Evaluations of earlier sessions, in their order. What was decided on them stands.
    """

    def __init__(self, config: SweepConfig, past: Iterable[Evaluation] = ()) -> None:
        self.config = config
        self._num_evaluations = max(config.epochs) * config.base.evaluations_per_epoch
        self._curves: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        self._stopped: set[str] = set()
        self._worst = worst(config.base.metric)
        for evaluation in past:
            self.record(evaluation)

    def record(self, evaluation: Evaluation) -> bool:
        """Add an evaluation that nobody decides on; returns False where it was known."""
        curve = self._curves[evaluation.model][evaluation.trial_id]
        is_new = evaluation.number not in curve
        curve.setdefault(evaluation.number, evaluation.score if math.isfinite(evaluation.score) else self._worst)
        return is_new

    def record_failure(self, trial_id: str, model: str) -> None:
        """Count a trial that failed for good as the worst there is."""
        curve = self._curves[model][trial_id]
        self.record(
            Evaluation(trial_id=trial_id, model=model, number=max(curve, default=0) + 1, score=self._worst, num_rows=1)
        )

    def decide(self, evaluation: Evaluation) -> bool:
        """Record an evaluation and tell whether its trial stops there.

        False for an evaluation that was decided before, and for a trial that was stopped.
        """
        is_new = self.record(evaluation)
        if not is_new or evaluation.trial_id in self._stopped or evaluation.number >= self._num_evaluations:
            return False
        goal = self._asha_goal(evaluation) if self.config.scheduler == "asha" else self._median_goal(evaluation)
        if goal is None:
            return False
        reached = self._reached(evaluation)
        error = noise(reached, goal, evaluation.num_rows) if evaluation.error is None else 2**0.5 * evaluation.error
        if goal - reached <= error:
            return False
        self._stopped.add(evaluation.trial_id)
        return True

    def _reached(self, evaluation: Evaluation) -> float:
        """Return the score that a rule judges: the median rule looks at the best so far."""
        curve = self._curves[evaluation.model][evaluation.trial_id]
        return curve[evaluation.number] if self.config.scheduler == "asha" else max(_until(curve, evaluation.number))

    def _asha_goal(self, evaluation: Evaluation) -> float | None:
        """Return the score that the best 1/r of the other trials have at this rung; None: no rung, or no others."""
        rung = 1
        while rung < evaluation.number:
            rung *= self.config.reduction_factor
        others = [curve[rung] for curve in self._others(evaluation) if rung in curve]
        if rung != evaluation.number or not others:
            return None
        return float(np.quantile(others, 1 - 1 / self.config.reduction_factor))

    def _median_goal(self, evaluation: Evaluation) -> float | None:
        """Return the median of the other trials' averages up to this evaluation; None: too few got so far."""
        number = evaluation.number
        averages = [mean(_until(curve, number)) for curve in self._others(evaluation) if max(curve) >= number]
        return median(averages) if len(averages) >= MIN_OTHERS else None

    def _others(self, evaluation: Evaluation) -> list[dict[int, float]]:
        curves = self._curves[evaluation.model]
        return [curve for trial_id, curve in curves.items() if trial_id != evaluation.trial_id]


def _until(curve: dict[int, float], number: int) -> Sequence[float]:
    """Return the scores of a trial up to an evaluation."""
    return [score for at, score in curve.items() if at <= number]
