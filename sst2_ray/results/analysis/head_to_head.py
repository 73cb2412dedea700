"""The best ModernBERT against the best SBERT: overall, after equal numbers of epochs, and after equal training time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sst2_ray import formatting
from sst2_ray.results.analysis.comparison import Comparison, Verdict, compare, margin_of, with_holm
from sst2_ray.results.analysis.curves import Curve, Curves
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.lacks import Lack
from sst2_ray.results.analysis.ranking import Configuration, RankedGroup

_SCORES = ("accuracy", "f1", "loss")


@dataclass(frozen=True, kw_only=True)
class MomentRow:
    """A quantity of two configurations at the same point of their training, as means over their seeds."""

    metric: str
    """accuracy, f1 or loss; seconds or epoch: how long, or how far, they were at that point."""
    mean_a: float
    mean_b: float
    comparison: Comparison | None
    """None for seconds and epochs."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Comparison of two configurations at the same point of their training."""

    title: str
    detail: str
    """Evaluations that are compared, in words."""
    rows: tuple[MomentRow, ...]
    """Empty when one had no evaluation by then."""


@dataclass(frozen=True, kw_only=True)
class HeadToHead:
    """The best ModernBERT (a) against the best SBERT (b)."""

    overall: Comparison
    moments: tuple[Moment, ...]

    @property
    def modernbert(self) -> Configuration:
        """Return the best ModernBERT."""
        return self.overall.a

    @property
    def sbert(self) -> Configuration:
        """Return the best SBERT."""
        return self.overall.b


def opponents(group: RankedGroup) -> tuple[Configuration, Configuration] | None:
    """Return the best ModernBERT and the best SBERT of a ranking that has both.

    A model that started from random weights represents its kind only when there is no pretrained one.
    """
    by_kind: dict[str, Configuration] = {}
    for configuration in sorted(group.configurations, key=lambda c: bool(c.setting("random_weights"))):
        by_kind.setdefault(str(configuration.setting("model_kind")), configuration)
    return (by_kind["modernbert"], by_kind["sbert"]) if {"modernbert", "sbert"} <= by_kind.keys() else None


def head_to_head(
    group: RankedGroup, overall: Comparison, curves: Curves, curve_split: str, stored: Evidence
) -> HeadToHead:
    """Add the comparisons at equal epochs and at equal time to that of the best evaluations.

    `stored`: the answers to the sentences of the curves.
    """
    sides = [_run_curves(c, curves) for c in (overall.a, overall.b)]
    if not all(sides):
        return HeadToHead(overall=overall, moments=())
    if stored.split != curve_split:
        stored = Evidence(configurations=stored.configurations, samples={}, split=curve_split)
    pair = _Pair(group=group, overall=overall, sides=(sides[0], sides[1]), stored=stored)
    where = "" if curve_split == "dev" else ", on the held-out part of train"
    epochs = min(float(curve.epoch[-1]) for side in sides for curve in side.values())
    moments = [
        Moment(
            title="at equal epochs",
            detail=f"the best evaluation up to epoch {epochs:g}{where}",
            rows=pair.rows("seconds", epochs=epochs),
        )
    ]
    seconds = min(float(np.mean([float(curve.seconds[-1]) for curve in side.values()])) for side in sides)
    if np.isfinite(seconds):
        moments.append(
            Moment(
                title="at equal time",
                detail=f"the best evaluation in the first {formatting.duration(seconds)} of training{where}",
                rows=pair.rows("epoch", seconds=seconds),
            )
        )
    return HeadToHead(overall=overall, moments=_corrected(moments))


def _corrected(moments: list[Moment]) -> tuple[Moment, ...]:
    """Apply Holm's correction over all comparisons of the moments, a family of their own: the pair is tested at each."""
    rows = [row for moment in moments for row in moment.rows if row.comparison is not None]
    corrected = with_holm([row.comparison for row in rows if row.comparison is not None], test_of=id)
    by_row = {id(row): c for row, c in zip(rows, corrected, strict=True)}
    return tuple(
        dataclasses.replace(m, rows=tuple(dataclasses.replace(r, comparison=by_row.get(id(r))) for r in m.rows))
        for m in moments
    )


def _run_curves(configuration: Configuration, curves: Curves) -> dict[str, Curve]:
    """Return the curve of every run, by trial; empty unless all of them have one."""
    found = {run.trial_id: curves.get((run.experiment, run.trial_id)) for run in configuration.runs}
    known = {trial: curve for trial, curve in found.items() if curve is not None and len(curve.epoch)}
    return known if len(known) == len(found) else {}


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Pair of configurations with the curves of their runs, by trial."""

    group: RankedGroup
    overall: Comparison
    sides: tuple[Mapping[str, Curve], Mapping[str, Curve]]
    stored: Evidence
    """Answers to the sentences of the curves."""

    def rows(self, reached: Literal["seconds", "epoch"], **limit: float) -> tuple[MomentRow, ...]:
        """Compare the scores at the best evaluation within a limit, and how far, or how long, the runs were by then."""
        by = self.group.chosen_by
        best = [{trial: curve.best_within(metric=by, **limit) for trial, curve in side.items()} for side in self.sides]
        last = [{trial: curve.last_within(**limit) for trial, curve in side.items()} for side in self.sides]
        if any(index is None for found in (*best, *last) for index in found.values()):
            return ()
        rows = [self._score(metric, best) for metric in dict.fromkeys((by, *_SCORES))]
        means = [
            float(np.mean([getattr(curve, reached)[found[trial]] for trial, curve in side.items()]))
            for side, found in zip(self.sides, last, strict=True)
        ]
        if np.isfinite(means).all():
            rows.append(MomentRow(metric=reached, mean_a=means[0], mean_b=means[1], comparison=None))
        return tuple(row for row in rows if row is not None)

    def _are_stored(self, best: list[dict[str, int | None]]) -> bool:
        """Return whether the stored answers are those of the very evaluations that are compared."""
        steps = [
            (int(side[run.trial_id].global_step[found[run.trial_id]]), run.values.get("best_global_step"))
            for side, found, c in zip(self.sides, best, (self.overall.a, self.overall.b), strict=True)
            for run in c.runs
        ]
        return all(step == stored for step, stored in steps)

    def _score(self, metric: str, best: list[dict[str, int | None]]) -> MomentRow | None:
        means = [
            float(np.mean([curve.metrics[f"dev_{metric}"][found[trial]] for trial, curve in side.items()]))
            for side, found in zip(self.sides, best, strict=True)
        ]
        if not np.isfinite(means).all():
            return None
        a, b = self.overall.a, self.overall.b
        margin = margin_of(metric, self.overall.margin / margin_of(self.overall.metric, 1.0))
        if self._are_stored(best):
            chosen_on_these = self.stored.split == "selection" or not self.group.on_selection
            searched = self.group.search_of(a, b) if chosen_on_these else None
            found = compare(a, b, self.stored, metric=metric, margin=margin, searched=searched)
        else:
            found = Comparison(
                a=a, b=b, metric=metric, verdict=Verdict.NOT_DECIDED, estimate=None, margin=margin,
                missing=Lack.NOT_STORED.of(["these evaluations"]),
            )  # fmt: skip
        return MomentRow(metric=metric, mean_a=means[0], mean_b=means[1], comparison=found)
