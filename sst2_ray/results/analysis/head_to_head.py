"""The best ModernBERT against the best SBERT: over all, after equally many epochs, and after equally long training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sst2_ray import formatting
from sst2_ray.results.analysis.comparison import Comparison, compare, pairing
from sst2_ray.results.analysis.curves import Curve, Curves
from sst2_ray.results.analysis.ranking import Configuration, RankedGroup

_QUALITY = ("dev_accuracy", "dev_f1", "dev_loss")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Two configurations at the same point of their training."""

    title: str
    detail: str
    """Which evaluations are compared."""
    comparisons: tuple[Comparison, ...]
    """Accuracy, F1, loss and speed, as far as both recorded them; empty where one had no evaluation by then."""


@dataclass(frozen=True, kw_only=True)
class HeadToHead:
    """The best ModernBERT against the best SBERT."""

    modernbert: Configuration
    sbert: Configuration
    overall: Comparison
    moments: tuple[Moment, ...]


def head_to_head(
    groups: Sequence[RankedGroup], curves: Curves, curve_split: str, predictions: pa.Table
) -> HeadToHead | None:
    """predictions: those of `duellists`. None where there are none."""
    found = duellists(groups)
    if found is None:
        return None
    group, a, b = found
    return HeadToHead(
        modernbert=a,
        sbert=b,
        overall=compare(a, b, predictions=predictions, metric=group.reported(a, b)),
        moments=_moments(a, b, curves, curve_split, predictions),
    )


def duellists(groups: Sequence[RankedGroup]) -> tuple[RankedGroup, Configuration, Configuration] | None:
    """The best ModernBERT and the best SBERT of the first ranking that has both kinds: the same data, as many seeds for
    both. A model that began with random weights stands in for its kind only where there is no pretrained one."""
    for group in groups:
        by_kind: dict[Any, Configuration] = {}
        for configuration in sorted(group.configurations, key=lambda c: bool(c.setting("random_weights"))):
            by_kind.setdefault(configuration.setting("model_kind"), configuration)
        if "modernbert" in by_kind and "sbert" in by_kind:
            return group, by_kind["modernbert"], by_kind["sbert"]
    return None


def _moments(
    a: Configuration, b: Configuration, curves: Curves, curve_split: str, predictions: pa.Table
) -> tuple[Moment, ...]:
    """As many epochs, and as much time, as both of them had."""
    pair = _Pair(a=a, b=b, curves=(_run_curves(a, curves), _run_curves(b, curves)))
    if not all(pair.curves):
        return ()
    # The stored answers are those of dev.
    answers = predictions if curve_split == "dev" else None
    where = "" if curve_split == "dev" else ", on the held-out part of train"
    epochs = min(float(curve.epoch[-1]) for found in pair.curves for curve in found.values())
    moments = [
        Moment(
            title="at equal epochs",
            detail=f"the best evaluation up to epoch {epochs:g}{where}",
            comparisons=(*pair.quality(answers, epochs=epochs), *pair.reached("seconds", epochs=epochs)),
        )
    ]
    totals = [np.mean([float(curve.seconds[-1]) for curve in found.values()]) for found in pair.curves]
    if np.isfinite(totals).all():
        seconds = float(min(totals))
        moments.append(
            Moment(
                title="at equal time",
                detail=f"the best evaluation in the first {formatting.duration(seconds)} of training{where}",
                comparisons=(*pair.quality(answers, seconds=seconds), *pair.reached("epoch", seconds=seconds)),
            )
        )
    return tuple(moments)


def _run_curves(configuration: Configuration, curves: Curves) -> dict[Any, Curve]:
    """The curve of every run, by what pairs the runs; empty unless all of them have one."""
    found = {pairing(run): curves.get((run.experiment, run.trial_id)) for run in configuration.runs}
    known = {key: curve for key, curve in found.items() if curve is not None and len(curve.epoch)}
    return known if len(known) == len(found) else {}


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two configurations with the curves of their runs."""

    a: Configuration
    b: Configuration
    curves: tuple[dict[Any, Curve], dict[Any, Curve]]

    def quality(self, predictions: pa.Table | None, **limit: float) -> tuple[Comparison, ...]:
        """Accuracy, F1 and loss at the best evaluation within a limit; empty where a run has none."""
        at = [{key: curve.best_within(**limit) for key, curve in found.items()} for found in self.curves]
        if any(index is None for found in at for index in found.values()):
            return ()
        # The stored answers count here only if they are those of the very evaluations that are compared.
        stored = all(
            int(self.curves[side][pairing(run)].global_step[at[side][pairing(run)]])
            == run.values.get("best_global_step")
            for side, configuration in enumerate((self.a, self.b))
            for run in configuration.runs
        )
        comparisons: list[Comparison] = []
        for metric in _QUALITY:
            values = [{k: float(c.metrics[metric][at[i][k]]) for k, c in self.curves[i].items()} for i in (0, 1)]
            usable = predictions if stored and metric == "dev_accuracy" else None
            comparisons += self._compared(metric, values, usable)
        return tuple(comparisons)

    def reached(self, column: str, **limit: float) -> tuple[Comparison, ...]:
        """How far, or how long, the runs were at their last evaluation within a limit."""
        at = [{key: curve.last_within(**limit) for key, curve in found.items()} for found in self.curves]
        if any(index is None for found in at for index in found.values()):
            return ()
        values = [{k: float(getattr(c, column)[at[i][k]]) for k, c in self.curves[i].items()} for i in (0, 1)]
        return self._compared(column, values)

    def _compared(
        self, metric: str, values: Sequence[dict[Any, float]], predictions: pa.Table | None = None
    ) -> tuple[Comparison, ...]:
        if not all(np.isfinite(list(side.values())).all() for side in values):
            return ()
        return (compare(self.a, self.b, predictions=predictions, metric=metric, values=(values[0], values[1])),)
