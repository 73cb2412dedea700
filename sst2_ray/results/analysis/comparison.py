"""Verdicts on two configurations: one wins, they tie, or it is not decided.

One test and one interval decide, over seeds crossed with sentences (crossed.py). Less evidence never makes a stronger
verdict: answers that were not stored, or a single seed, leave it undecided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.ranking import Configuration
from sst2_ray.statistics import crossed, selection
from sst2_ray.statistics.crossed import Estimate

MARGIN = 0.005
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
    samples = [evidence.sample(c) for c in (a, b)]
    values = [evidence.values(c, metric) for c in (a, b)]
    if lacking := [c.label for c, v in zip((a, b), values, strict=True) if v is None]:
        return dataclasses.replace(undecided, missing=f"the sentences of {' and of '.join(lacking)} were not stored")
    assert samples[0] and samples[1] and values[0] is not None and values[1] is not None
    if not samples[0].is_on_sentences_of(samples[1]):
        return dataclasses.replace(undecided, missing="they were scored on different sentences")
    pair = evidence.variance(a, metric), evidence.variance(b, metric)
    estimate = crossed.compare(values[0], values[1], seed_variance=pair)
    ahead, behind = searches if estimate.value > 0 else searches[::-1]
    if searched is not None and ahead > behind and metric == evidence.chosen_by and estimate.covers_seeds:
        corrected = _corrected(estimate, searched, evidence)
        if corrected is None:
            reason = (
                "those of another configuration that was searched were not stored, so the search is not corrected for"
            )
            return dataclasses.replace(undecided, estimate=estimate, missing=reason)
        estimate = corrected
    return dataclasses.replace(
        undecided, estimate=estimate, p_value=estimate.p_value, verdict=_verdict(estimate, margin)
    )


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


def possible_bests(ranked: Sequence[Configuration], evidence: Evidence, *, margin: float = MARGIN) -> Bests | None:
    """Find the configurations of a ranking that may be the best; None for fewer than two."""
    if len(ranked) < 2:
        return None
    stored = [c for c in ranked if evidence.sample(c) is not None]
    missing = [c for c in ranked if evidence.sample(c) is None]
    whole = Bests(configurations=tuple(ranked), not_stored=len(missing), num_compared=len(ranked))
    if len(ranked) == 2 and not missing:
        metric = evidence.chosen_by
        found = compare(ranked[0], ranked[1], evidence, metric=metric, margin=margin_of(metric, margin))
        winner = found.winner
        return whole if winner is None else dataclasses.replace(whole, configurations=(winner,))
    search = evidence.search(stored)
    if search is None:
        return dataclasses.replace(whole, reason="the sentences of most were not stored, or not how much seeds vary")
    kept = {stored[i].configuration_id for i in search.possible_bests(num_missing=len(missing))}
    kept |= {c.configuration_id for c in missing}
    return dataclasses.replace(whole, configurations=tuple(c for c in ranked if c.configuration_id in kept))
