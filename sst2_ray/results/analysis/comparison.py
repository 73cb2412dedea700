"""Verdicts on two configurations: one wins, they tie, or it is not decided.

One test and one interval decide, over seeds crossed with sentences (crossed.py). Less evidence never makes a stronger
verdict: answers that were not stored, or a single seed, leave it undecided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sst2_ray import formatting
from sst2_ray.config.sweep import DEFAULT_MARGIN
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.statistics import crossed, selection
from sst2_ray.statistics.crossed import Estimate
from sst2_ray.statistics.scores import Array

MARGIN = DEFAULT_MARGIN / 100
"""Difference in accuracy below which two configurations are as good as equal, unless another is given: 0.5 points."""


class Verdict(str, Enum):
    """Outcome of a comparison."""

    WIN = "win"
    """The interval of the difference excludes 0."""
    TIE = "tie"
    """The difference lies inside the margin, by two one-sided tests."""
    NOT_DECIDED = "not decided"

    __str__ = str.__str__


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two configurations in one metric."""

    a: Configuration
    b: Configuration
    metric: str
    """A name in `evidence.METRICS`."""
    verdict: Verdict
    estimate: Estimate | None
    """Of a minus b; None when the sentences of one were not stored or the two answered other sentences."""
    margin: float
    missing: str = ""
    """Why there is no estimate, in words."""
    searched: tuple[int, int] = (1, 1)
    """Configurations that a and b were chosen from by these very sentences."""
    p_value: float | None = None
    """After the correction for the search, and by Holm over the comparisons of a page."""
    num_tests: int = 1
    """Comparisons that Holm's correction covers."""

    @property
    def difference(self) -> float | None:
        """The score of a minus that of b."""
        return self.estimate.value if self.estimate else None

    @property
    def winner(self) -> Configuration | None:
        """The better configuration; None unless the verdict is a win."""
        if self.verdict is not Verdict.WIN or self.estimate is None:
            return None
        return self.a if (self.estimate.value < 0) == (self.metric == "loss") else self.b


def compare(
    a: Configuration,
    b: Configuration,
    evidence: Evidence,
    *,
    metric: str = "accuracy",
    margin: float = MARGIN,
    searched: Sequence[Sequence[Configuration]] | None = None,
) -> Comparison:
    """Compare two configurations.

    Args:
        metric: a name in `evidence.METRICS`.
        margin: differences in the metric that are smaller count as none.
        searched: the configurations from which a and b were chosen, each as the best on these very sentences; the verdict
            is corrected for it. None: they were not chosen on these sentences.
    """
    searches = (1, 1) if searched is None else (len(searched[0]), len(searched[1]))
    undecided = Comparison(
        a=a, b=b, metric=metric, verdict=Verdict.NOT_DECIDED, estimate=None, margin=margin, searched=searches
    )
    values = evidence.values(a, metric), evidence.values(b, metric)
    if missing := _missing((a, b), values, evidence, metric):
        return dataclasses.replace(undecided, missing=missing)
    assert values[0] is not None and values[1] is not None
    pair = evidence.variance(a, metric), evidence.variance(b, metric)
    estimate = crossed.compare(values[0], values[1], seed_variance=pair)
    ahead, behind = searches if estimate.value > 0 else searches[::-1]
    if searched is not None and ahead > behind and metric == evidence.chosen_by and estimate.covers_seeds:
        corrected = _corrected(estimate, searched, evidence)
        if corrected is None:
            reason = (
                "the predictions of another configuration that was searched were not stored, so it cannot be corrected for the "
                "larger search"
            )
            return dataclasses.replace(undecided, estimate=estimate, missing=reason)
        estimate = corrected
    return dataclasses.replace(
        undecided, estimate=estimate, p_value=estimate.p_value, verdict=_verdict(estimate, margin)
    )


def _missing(
    pair: tuple[Configuration, Configuration],
    values: tuple[Array | None, Array | None],
    evidence: Evidence,
    metric: str,
) -> str:
    """Say what a comparison lacks; empty when it lacks nothing."""
    samples = evidence.sample(pair[0]), evidence.sample(pair[1])
    if metric == "loss" and any(one is not None and one.is_multiclass for one in samples):
        return "of more than two classes the loss on single sentences is not stored"
    if lacking := [c.label for c, found in zip(pair, values, strict=True) if found is None]:
        return not_stored(lacking)
    assert samples[0] and samples[1]
    return "" if samples[0].is_on_sentences_of(samples[1]) else "they were scored on different sentences"


def not_stored(names: Sequence[str]) -> str:
    """Say that there is no evidence on some configurations, or evaluations."""
    return f"the predictions of {' and of '.join(names)} on the single sentences were not stored"


def _verdict(estimate: Estimate, margin: float, p_value: float | None = None) -> Verdict:
    p_value = estimate.p_value if p_value is None else p_value
    if not estimate.covers_seeds or p_value is None:
        return Verdict.NOT_DECIDED
    if p_value < 1 - estimate.interval.level:
        return Verdict.WIN
    return Verdict.TIE if estimate.is_within(margin) else Verdict.NOT_DECIDED


def _corrected(estimate: Estimate, searched: Sequence[Sequence[Configuration]], evidence: Evidence) -> Estimate | None:
    """Widen the interval towards 0 and raise p as if all configurations were equal and the larger search were lucky.

    None when a configuration that was searched has no stored answers.
    """
    ahead, behind = searched if estimate.value > 0 else searched[::-1]
    search = evidence.search([*ahead, *behind])
    if search is None:
        return None
    p_value, half = selection.p_of_larger_search(search, len(ahead), abs(estimate.value))
    low, high = estimate.interval.low, estimate.interval.high
    half = max(half, (high - low) / 2)
    low, high = (estimate.value - half, high) if estimate.value > 0 else (low, estimate.value + half)
    return dataclasses.replace(
        estimate,
        p_value=max(p_value, estimate.p_value or 0.0),
        interval=dataclasses.replace(estimate.interval, low=low, high=high),
    )


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the verdicts of a page for their number (Holm); wins that do not survive become a tie or not decided.

    Comparisons that lack their sentences count as well: less evidence must not make the others stronger.
    """
    p_values = {_pair(c): 1.0 if c.p_value is None else c.p_value for c in comparisons}
    adjusted = dict(zip(p_values, selection.holm(list(p_values.values())), strict=True))
    found = []
    for c in comparisons:
        if c.estimate is not None and c.p_value is not None:
            p_value = adjusted[_pair(c)]
            verdict = _verdict(c.estimate, c.margin, p_value)
            c = dataclasses.replace(c, p_value=p_value, num_tests=len(p_values), verdict=verdict)
        found.append(c)
    return found


def _pair(c: Comparison) -> tuple[str, ...]:
    return (c.metric, *sorted((c.a.configuration_id, c.b.configuration_id)))


def margin_of(metric: str, margin: float) -> float:
    """Return the margin of a metric: that of accuracy for all from 0 to 1, twice as many units of those from -1 to 1, and nats
    of loss."""
    return 2 * margin if metric in ("mcc", "pearson", "spearman", "loss") else margin


@dataclass(frozen=True, kw_only=True)
class Bests:
    """The configurations that may be the best, with 95 % confidence."""

    configurations: tuple[Configuration, ...]
    """Best first."""
    not_stored: int
    """How many of them are in the set because their sentences were not stored."""
    num_compared: int
    """Configurations in all."""
    reason: str = ""
    """Why all of them are in the set; empty when the set was computed."""

    @property
    def verdict(self) -> Verdict:
        """A win when one configuration alone may be the best."""
        return Verdict.WIN if len(self.configurations) == 1 else Verdict.NOT_DECIDED


def _single_seeds(members: Sequence[Configuration], evidence: Evidence) -> str:
    """Name the models of which nothing is known about how much seeds vary; empty where there is none."""
    models = dict.fromkeys(model_label(c.setting) for c in members if evidence.variance(c, evidence.chosen_by) is None)
    return f"one seed of {formatting.join(list(models))} does not tell how much seeds vary" if models else ""


def _why_not_searched(stored: Sequence[Configuration], evidence: Evidence) -> str:
    if not stored:
        return not_stored(["all"])
    return _single_seeds(stored, evidence) or "they were scored on different sentences"


def possible_bests(ranked: Sequence[Configuration], evidence: Evidence, *, margin: float = MARGIN) -> Bests | None:
    """Find the configurations of a ranking that may be the best; None for fewer than two."""
    if len(ranked) < 2:
        return None
    stored = [c for c in ranked if evidence.sample(c) is not None]
    missing = [c for c in ranked if evidence.sample(c) is None]
    whole = Bests(configurations=tuple(ranked), not_stored=len(missing), num_compared=len(ranked))
    if len(stored) == len(ranked) == 2:
        metric = evidence.chosen_by
        found = compare(ranked[0], ranked[1], evidence, metric=metric, margin=margin_of(metric, margin))
        if found.winner is not None:
            return dataclasses.replace(whole, configurations=(found.winner,))
        return dataclasses.replace(whole, reason=_single_seeds(ranked, evidence))
    search = evidence.search(stored)
    if search is None:
        return dataclasses.replace(whole, reason=_why_not_searched(stored, evidence))
    indices = search.possible_bests(num_missing=len(missing))
    kept = {c.configuration_id for c in (*missing, *(stored[i] for i in indices))}
    return dataclasses.replace(whole, configurations=tuple(c for c in ranked if c.configuration_id in kept))
