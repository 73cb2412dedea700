"""Verdicts on two configurations in words: what each says, how sure it is, and what would decide what is open."""

from __future__ import annotations

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES, shown
from sst2_ray.results.analysis.comparison import Comparison, Verdict
from sst2_ray.results.analysis.ranking import Configuration
from sst2_ray.statistics import power
from sst2_ray.statistics.crossed import Estimate


def difference(value: float, metric: str, *, sign: bool = True) -> str:
    """Format a difference of scores: shares such as accuracy and F1 in points, loss in nats."""
    size = formatting.signed(100 * value, 2) if metric in SHARES else formatting.signed(value, 3)
    unit = " points" if metric in SHARES else " nats" if metric == "loss" else ""
    return (size if sign else size.removeprefix("+")) + unit


def span(estimate: Estimate, metric: str = "accuracy") -> str:
    """Format the interval of a difference."""
    interval = estimate.interval
    low, high = (difference(v, metric).split(" ")[0] for v in (interval.low, interval.high))
    return f"{100 * interval.level:.0f} % interval {low} to {high}"


def score_span(estimate: Estimate | None, metric: str = "accuracy") -> str:
    """Say the interval of a score and what it covers."""
    if estimate is None:
        return "no interval, as its sentences were not stored"
    interval = estimate.interval
    low, high = (shown(metric, v).removesuffix(" %") for v in (interval.low, interval.high))
    covers = "" if estimate.covers_seeds else ", over new sentences but not over new seeds"
    return f"{100 * interval.level:.0f} % interval {low} to {high}{covers}"


def verdict(c: Comparison, names: tuple[str, str] | None = None) -> str:
    """Say the outcome of a comparison and what it rests on, in one sentence without its first capital and full stop."""
    a, b = names or (c.a.label, c.b.label)
    if c.estimate is None:
        return f"not decided: {c.missing}"
    if c.verdict is Verdict.WIN:
        return _win(c, c.estimate, a if c.winner is c.a else b)
    if c.verdict is Verdict.TIE:
        inside = f"the whole difference ({_tie_span(c, c.estimate)}) lies within the margin of ±{_margin(c)}"
        return f"a tie: {inside} ({_basis(c, c.estimate)})"
    return f"not decided: {_undecided(c, c.estimate, (a, b))}"


def _win(c: Comparison, estimate: Estimate, winner: str) -> str:
    size = difference(abs(estimate.value), c.metric, sign=False)
    direction = "less loss" if c.metric == "loss" else f"more {METRIC_NAMES[c.metric]}"
    small = ""
    if max(abs(estimate.interval.low), abs(estimate.interval.high)) < c.margin:
        small = f", which is real but below the margin of {_margin(c)}"
    return (
        f"{winner} wins: {size} {direction}, {span(estimate, c.metric)}{small} ({_p_value(c)}; {_basis(c, estimate)})"
    )


def _undecided(c: Comparison, estimate: Estimate, names: tuple[str, str]) -> str:
    seen = f"a difference of {difference(estimate.value, c.metric)}, {span(estimate, c.metric)}"
    if c.missing:
        return f"{seen}, but {c.missing}"
    if not estimate.covers_seeds:
        single = " and of ".join(n for n, num in zip(names, estimate.num_seeds, strict=True) if num == 1)
        return f"one seed of {single}, so how much seeds vary is not known; over the sentences alone {seen}"
    shown = difference(power.detectable(estimate), c.metric, sign=False)
    return (
        f"{seen} ({_p_value(c)}; {_basis(c, estimate)}); this design shows differences from {shown} in four of five studies; "
        f"{_what_would_decide(c, estimate)}"
    )


def _what_would_decide(c: Comparison, estimate: Estimate) -> str:
    target = max(abs(estimate.value), c.margin)
    size = difference(target, c.metric, sign=False)
    seeds, sentences = power.seeds_needed(estimate, target), power.sentences_needed(estimate, target)
    each = max(estimate.num_seeds)
    if (seeds is not None and seeds <= each) or (sentences is not None and sentences <= estimate.num_sentences):
        return f"the same design again would show {size} in four of five studies"
    options = [
        *([f"{formatting.count(seeds, 'seed')} of each"] if seeds is not None else []),
        *([formatting.count(sentences, "sentence")] if sentences is not None else []),
    ]
    if not options:
        return f"to show {size} takes both more seeds and more sentences"
    rest = "; no number of seeds shows it on these sentences" if seeds is None else ""
    return f"to show {size} takes {' or '.join(options)}{rest}"


def _tie_span(c: Comparison, estimate: Estimate) -> str:
    low, high = estimate.within(estimate.interval.level)
    ends = [difference(v, c.metric).split(" ")[0] for v in (low, high)]
    return f"{200 * estimate.interval.level - 100:.0f} % interval {ends[0]} to {ends[1]}"


def _margin(c: Comparison) -> str:
    return difference(c.margin, c.metric, sign=False)


def _p_value(c: Comparison) -> str:
    assert c.estimate is not None and c.estimate.p_value is not None and c.p_value is not None
    shown = formatting.p_value(c.p_value)
    if c.num_tests > 1 and formatting.p_value(c.estimate.p_value) != shown:
        single = formatting.p_value(c.estimate.p_value)
        shown = f"{single}, after Holm's correction for {c.num_tests} comparisons {shown}"
    return shown


def _basis(c: Comparison, estimate: Estimate) -> str:
    a, b = estimate.num_seeds
    seeds = formatting.count(a, "seed") + " each" if a == b else f"{a} and {formatting.count(b, 'seed')}"
    basis = f"{seeds} crossed with {formatting.count(estimate.num_sentences, 'sentence')}"
    if c.searched[0] != c.searched[1]:
        basis += f"; best of {c.searched[0]} against best of {c.searched[1]}, corrected for the larger search"
    return basis


def contradiction(comparisons: list[Comparison]) -> str:
    """Say why metrics name different winners; empty when they do not."""
    winners: dict[str, Configuration] = {c.metric: c.winner for c in comparisons if c.winner is not None}
    if len({w.configuration_id for w in winners.values()}) < 2:
        return ""
    said = formatting.join([f"{METRIC_NAMES[m]} {w.label}" for m, w in winners.items()])
    return (
        f"The metrics name different winners ({said}): accuracy counts right answers, F1 those of the positive class, loss also "
        "how sure the model is of each."
    )
