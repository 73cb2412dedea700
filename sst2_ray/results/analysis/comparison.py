"""Verdicts on two configurations: one wins, they tie, or it is not decided.

One test and one interval decide, over seeds crossed with sentences (crossed.py). Less evidence never makes a stronger
verdict: answers that were not stored, or a single seed, leave it undecided.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sst2_ray import formatting
from sst2_ray.config.metrics import oriented
from sst2_ray.config.sweep import DEFAULT_MARGIN
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.lacks import reasons
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.statistics import crossed, selection
from sst2_ray.statistics.bounds import at_least, in_range
from sst2_ray.statistics.crossed import Estimate
from sst2_ray.statistics.scores import Array

MARGIN = DEFAULT_MARGIN / 100
"""Difference in accuracy below which two configurations are as good as equal, unless another is given: 0.5 points."""

_OTHER_SENTENCES = "they were scored on different sentences"


class Verdict(StrEnum):
    """Outcome of a comparison."""

    WIN = "win"
    """The interval of the difference excludes 0."""
    TIE = "tie"
    """The difference lies inside the margin, by two one-sided tests."""
    NOT_DECIDED = "not decided"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of two configurations in one metric."""

    a: Configuration
    b: Configuration
    metric: str
    """A name in `evidence.METRICS`."""
    verdict: Verdict
    estimate: Estimate | None
    """Score of a minus that of b; None when the sentences of one were not stored or the two answered other sentences."""
    margin: float
    missing: str = ""
    """Reason why there is no estimate."""
    searched: tuple[int, int] = (1, 1)
    """Configurations that a and b were chosen from by these very sentences."""
    p_value: float | None = None
    """P value after the correction for the search, and by Holm over the comparisons of a page."""
    num_tests: int = 1
    """Comparisons that Holm's correction covers."""

    @property
    def difference(self) -> float | None:
        """Return the score of a minus that of b."""
        return self.estimate.value if self.estimate else None

    def is_leader_of_larger(self, estimate: Estimate) -> bool:
        """Return whether the one that is ahead was chosen from more configurations than the other."""
        ahead, behind = self.searched if oriented(self.metric, estimate.value) > 0 else self.searched[::-1]
        return ahead > behind

    @property
    def winner(self) -> Configuration | None:
        """Return the better configuration; None unless the verdict is a win."""
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
    if metric != "accuracy":
        estimate = at_least(estimate, evidence.least_error([a, b], metric))
    if searched is not None and undecided.is_leader_of_larger(estimate) and estimate.covers_seeds:
        corrected = _corrected(estimate, metric, searched, evidence)
        if corrected is None:
            others = [c for side in searched for c in side]
            reason = f"{_why_not_searched(others, evidence, metric)}, so it cannot be corrected for the larger search"
            return dataclasses.replace(undecided, estimate=in_range(estimate, metric), missing=reason)
        estimate = corrected
    estimate = in_range(estimate, metric)
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
    if any(found is None for found in values):
        return reasons((c.label, lack) for c in pair if (lack := evidence.lack(c, metric)) is not None)
    assert samples[0] and samples[1]
    if samples[0].is_on_sentences_of(samples[1]):
        return ""
    same_rows = np.array_equal(samples[0].row_id, samples[1].row_id)
    return "the labels of their sentences differ" if same_rows else _OTHER_SENTENCES


def _verdict(estimate: Estimate, margin: float, p_value: float | None = None) -> Verdict:
    p_value = estimate.p_value if p_value is None else p_value
    if not estimate.covers_seeds or p_value is None:
        return Verdict.NOT_DECIDED
    if p_value < 1 - estimate.interval.level:
        return Verdict.WIN
    return Verdict.TIE if estimate.is_within(margin) else Verdict.NOT_DECIDED


def _corrected(
    estimate: Estimate, metric: str, searched: Sequence[Sequence[Configuration]], evidence: Evidence
) -> Estimate | None:
    """Widen the interval towards 0 and raise p as if all configurations were equal and the larger search were lucky.

    None when a configuration that was searched has no stored answers.
    """
    ahead, behind = searched if oriented(metric, estimate.value) > 0 else searched[::-1]
    search = evidence.search([*ahead, *behind], metric)
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


def _pair(c: Comparison) -> tuple[str, ...]:
    return (c.metric, *sorted((c.a.configuration_id, c.b.configuration_id)))


def with_holm(
    comparisons: Sequence[Comparison], *, test_of: Callable[[Comparison], Hashable] = _pair
) -> list[Comparison]:
    """Correct the verdicts of a page for their number (Holm); wins that do not survive become a tie or not decided.

    Comparisons that lack their sentences count as well: less evidence must not make the others stronger.

    Args:
        comparisons: All of a page.
        test_of: Tells which of them are one test, said twice; by default those of one pair in one metric.
    """
    p_values = {test_of(c): 1.0 if c.p_value is None else c.p_value for c in comparisons}
    adjusted = dict(zip(p_values, selection.holm(list(p_values.values())), strict=True))
    found = []
    for c in comparisons:
        if c.estimate is not None and c.p_value is not None:
            p_value = adjusted[test_of(c)]
            verdict = _verdict(c.estimate, c.margin, p_value)
            c = dataclasses.replace(c, p_value=p_value, num_tests=len(p_values), verdict=verdict)
        found.append(c)
    return found


def margin_of(metric: str, margin: float) -> float:
    """Return the margin of a metric: that of accuracy for all from 0 to 1, twice as many units of those from -1 to 1, and nats
    of loss."""
    return 2 * margin if metric in ("mcc", "pearson", "spearman", "loss") else margin


@dataclass(frozen=True, kw_only=True)
class Bests:
    """The configurations that may be the best, with 95 % confidence."""

    configurations: tuple[Configuration, ...]
    """Best first."""
    not_known: int
    """Number of them in the set because they lack answers to single sentences, or a second seed."""
    num_compared: int
    """Configurations in all."""
    reason: str = ""
    """Reason why all of them are in the set; empty when the set was computed."""

    @property
    def verdict(self) -> Verdict:
        """Return a win when one configuration alone may be the best."""
        return Verdict.WIN if len(self.configurations) == 1 else Verdict.NOT_DECIDED


def _single_seeds(members: Sequence[Configuration], evidence: Evidence, metric: str) -> str:
    """Name those of which nothing is known about how much seeds vary; empty where there is none.

    Whole models by their name, single configurations of a model of which others are known by theirs.
    """
    unknown = [c for c in members if evidence.variance(c, metric) is None]
    known = {model_label(c.setting) for c in members if evidence.variance(c, metric) is not None}
    names = [c.label if model_label(c.setting) in known else model_label(c.setting) for c in unknown]
    names = list(dict.fromkeys(names))
    return f"one seed of {formatting.join(names)} does not tell how much seeds vary" if names else ""


def _why_not_searched(members: Sequence[Configuration], evidence: Evidence, metric: str) -> str:
    """Say why `Evidence.search` finds nothing for these configurations."""
    counts = Counter(lack for c in members if (lack := evidence.lack(c, metric)) is not None)
    if counts:
        return reasons((f"{num} of {len(members)} configurations", lack) for lack, num in counts.items())
    return _single_seeds(members, evidence, metric) or _OTHER_SENTENCES


def possible_bests(ranked: Sequence[Configuration], evidence: Evidence, *, margin: float = MARGIN) -> Bests | None:
    """Find the configurations of a ranking that may be the best; None for fewer than two."""
    if len(ranked) < 2:
        return None
    known = [c for c in ranked if evidence.is_known(c)]
    unknown = [c for c in ranked if not evidence.is_known(c)]
    whole = Bests(configurations=tuple(ranked), not_known=len(unknown), num_compared=len(ranked))
    if len(known) < 2:
        return dataclasses.replace(whole, reason=_why_not_searched(ranked, evidence, evidence.chosen_by))
    if len(known) == len(ranked) == 2:
        metric = evidence.chosen_by
        found = compare(ranked[0], ranked[1], evidence, metric=metric, margin=margin_of(metric, margin))
        return whole if found.winner is None else dataclasses.replace(whole, configurations=(found.winner,))
    search = evidence.search(known)
    if search is None:
        return dataclasses.replace(whole, reason=_why_not_searched(known, evidence, evidence.chosen_by))
    indices = search.possible_bests(num_missing=len(unknown))
    kept = {c.configuration_id for c in (*unknown, *(known[i] for i in indices))}
    return dataclasses.replace(whole, configurations=tuple(c for c in ranked if c.configuration_id in kept))
