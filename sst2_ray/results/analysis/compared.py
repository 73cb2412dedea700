"""Comparison of two sides in every metric, with the sentences on which they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sst2_ray.config.metrics import REGRESSION_METRICS
from sst2_ray.errors import InputError
from sst2_ray.results.analysis.comparison import Comparison, compare, margin_of, with_holm
from sst2_ray.results.analysis.evidence import METRICS, VALUE_METRICS, Evidence
from sst2_ray.results.analysis.ranking import Configuration
from sst2_ray.results.analysis.sides import Side
from sst2_ray.statistics.scores import mcnemar


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A sentence that more runs of one side than of the other get right."""

    row_id: int
    label: int
    share_a: float
    """Share of the runs of a that are right."""
    share_b: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Comparison of two sides in every metric."""

    a: Side
    b: Side
    comparisons: tuple[Comparison, ...]
    """The one that decides first."""
    scores: tuple[tuple[float | None, float | None], ...]
    """Scores of a and b, by metric."""
    differences: tuple[Difference, ...]
    """The widest first."""
    mcnemar_p: float | None
    """Mid-p value of McNemar's test, for one run against one run."""
    is_multiclass: bool
    """More than two classes: F1 is the mean over them."""

    @property
    def decided_by(self) -> str:
        """Return the metric that decides: the one both sides were chosen by, else accuracy, of regressions Spearman's correlation."""
        return self.comparisons[0].metric

    @property
    def names(self) -> tuple[str, str]:
        """Return the names of the sides."""
        return self.a.name, self.b.name


def compare_sides(a: Side, b: Side, *, margin: float) -> Compared:
    """Compare two sides in the metric that both were chosen by, and in others.

    The verdicts on the others are corrected for their number (Holm).

    Raises InputError when they are the same configuration or were scored on other data.
    """
    _refuse_incomparable(a, b)
    first, second = (_named(side) for side in (a, b))
    stored = first.evidence, second.evidence
    samples = {**stored[0].samples, **stored[1].samples}
    metrics = _metrics(a, b, is_values={sample.is_values for sample in samples.values()})
    is_multiclass = any(sample.is_multiclass for sample in samples.values())
    if is_multiclass and "macro_f1" in metrics:
        metrics = tuple(m for m in metrics if m != "f1")  # the same
    # A configuration of both sides counts once: twice it would double the degrees of freedom of the seed variance.
    both = Evidence(
        configurations=tuple({c.configuration_id: c for one in stored for c in one.configurations}.values()),
        samples=samples,
        split="dev",
        chosen_by=metrics[0],
        lacks={**stored[0].lacks, **stored[1].lacks},
    )
    x, y = first.configuration, second.configuration
    searched = _searched(first, second)
    found = [compare(x, y, both, metric=m, margin=margin_of(m, margin), searched=searched) for m in metrics]
    return Compared(
        a=a,
        b=b,
        comparisons=(found[0], *with_holm(found[1:])),
        scores=tuple((_score(both, x, m), _score(both, y, m)) for m in metrics),
        differences=_differences(both, first, second),
        mcnemar_p=_mcnemar(both, first, second),
        is_multiclass=is_multiclass,
    )


def _searched(a: Side, b: Side) -> tuple[Sequence[Configuration], Sequence[Configuration]] | None:
    """Return what each side was chosen from on dev, at least itself; None where neither was chosen there."""
    if a.searched is None and b.searched is None:
        return None
    return a.searched or [a.configuration], b.searched or [b.configuration]


def _refuse_incomparable(a: Side, b: Side) -> None:
    if a.data is not None and b.data is not None and a.data != b.data:
        raise InputError(f"{a.name} was evaluated on {a.data}, {b.name} on {b.data}: they cannot be compared")
    runs = [[(run.experiment, run.trial_id) for run in side.configuration.runs] for side in (a, b)]
    if runs[0] == runs[1] and a.name == b.name:
        raise InputError(f"{a.name} and {b.name} are the same")


def _metrics(a: Side, b: Side, *, is_values: set[bool]) -> tuple[str, ...]:
    """Return the metrics of a comparison, the one that decides first. Raises InputError for classes against values."""
    if len(is_values) > 1:
        raise InputError(
            f"{a.name} and {b.name}: one answers with classes, the other with values; they cannot be compared"
        )
    known = VALUE_METRICS if is_values == {True} else METRICS
    chosen = {side.chosen_by for side in (a, b)} - {None}
    first = chosen.pop() if len(chosen) == 1 else None
    if first is None or (first in REGRESSION_METRICS) != (known == VALUE_METRICS):
        first = known[0]
    return tuple(dict.fromkeys((first, *known)))


def _named(side: Side) -> Side:
    """Add the origin to the ids of a side, as those of two storages may be equal."""

    def name(configuration_id: str) -> str:
        return f"{side.origin}:{configuration_id}"

    def renamed(c: Configuration) -> Configuration:
        return dataclasses.replace(c, configuration_id=name(c.configuration_id))

    stored = Evidence(
        configurations=tuple(renamed(c) for c in side.evidence.configurations),
        samples={name(i): sample for i, sample in side.evidence.samples.items()},
        split="dev",
        lacks={name(i): lack for i, lack in side.evidence.lacks.items()},
    )
    searched = None if side.searched is None else [renamed(c) for c in side.searched]
    return dataclasses.replace(side, configuration=renamed(side.configuration), evidence=stored, searched=searched)


def _score(both: Evidence, c: Configuration, metric: str) -> float | None:
    values = both.values(c, metric)
    return None if values is None else float(values.mean())


def _differences(both: Evidence, a: Side, b: Side) -> tuple[Difference, ...]:
    one, other = both.sample(a.configuration), both.sample(b.configuration)
    if one is None or other is None or one.is_values or not one.is_on_sentences_of(other):
        return ()
    shares = one.correct.mean(axis=0), other.correct.mean(axis=0)
    gap = np.abs(shares[0] - shares[1])
    texts = {**b.texts, **a.texts}
    return tuple(
        Difference(
            row_id=int(one.row_id[i]),
            label=int(one.label[i]),
            share_a=float(shares[0][i]),
            share_b=float(shares[1][i]),
            text=texts.get(int(one.row_id[i]), ""),
        )
        for i in np.argsort(-gap, kind="stable")
        if gap[i] > 0
    )


def _mcnemar(both: Evidence, a: Side, b: Side) -> float | None:
    one, other = both.sample(a.configuration), both.sample(b.configuration)
    if (
        one is None
        or other is None
        or one.is_values
        or not one.is_on_sentences_of(other)
        or len(one.predicted) + len(other.predicted) > 2
    ):
        return None
    x, y = one.correct[0], other.correct[0]
    return mcnemar(int((x & ~y).sum()), int((y & ~x).sum()))
