"""Verdicts on two configurations in words: what each says, how sure it is, and what would decide what is open."""

from __future__ import annotations

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES, shown
from sst2_ray.results.analysis.comparison import Comparison, Verdict
from sst2_ray.results.analysis.lacks import Lack
from sst2_ray.results.analysis.ranking import Configuration
from sst2_ray.statistics import power
from sst2_ray.statistics.crossed import Estimate

POOLED = "seeds varying as in its model's other configurations"
"""Said of the interval of a single seed that is for new seeds as well."""
_OF_THE_RUN = "the run's own lines and card have Wilson's"
OF_ONE_SEED = (
    f"Intervals are for new seeds and new sentences; of a single seed with {POOLED}, or for new sentences alone where none of "
    f"these has two seeds, while {_OF_THE_RUN}, of its sentences alone."
)
"""Said below tables with single seeds that mark none of them."""
ONE_SEED_ALONE = (
    f"* one seed: the interval is for new sentences, but not for new seeds; {_OF_THE_RUN}, a little narrower."
)
ONE_SEED_POOLED = f"One seed without *: for new seeds too, {POOLED}; {_OF_THE_RUN}, of its sentences alone."
"""Said below a table that marks single seeds whose interval is for new sentences alone."""


def difference(value: float, metric: str, *, sign: bool = True) -> str:
    """Format a difference of scores: shares such as accuracy and F1 in points, loss in nats."""
    size = formatting.signed(100 * value, 2) if metric in SHARES else formatting.signed(value, 3)
    unit = " points" if metric in SHARES else " nats" if metric == "loss" else ""
    return (size if sign else size.removeprefix("+")) + unit


def span(estimate: Estimate, metric: str = "accuracy", *, sign: int = 1) -> str:
    """Format the interval of a difference; `sign` -1: of the second less the first."""
    interval = estimate.interval
    ends = sorted((sign * interval.low, sign * interval.high))
    low, high = (difference(v, metric).split(" ")[0] for v in ends)
    return f"{100 * interval.level:.0f} % interval {low} to {high}"


def score_span(estimate: Estimate | None, metric: str = "accuracy", *, lack: Lack | None = None) -> str:
    """Say the interval of a score and what it covers; `lack`: why there is none."""
    if estimate is None:
        return f"no interval, as {(lack or Lack.NOT_STORED).of_it}"
    interval = estimate.interval
    low, high = (shown(metric, v).removesuffix(" %") for v in (interval.low, interval.high))
    covers = "" if estimate.covers_seeds else " for new sentences, but not for new seeds"
    if estimate.covers_seeds and estimate.num_seeds == (1,):
        covers = f", {POOLED}"
    return f"{100 * interval.level:.0f} % interval {low} to {high}{covers}"


def verdict(c: Comparison, names: tuple[str, str] | None = None) -> str:
    """Say the outcome of a comparison and what it rests on, in one sentence without its first capital and full stop."""
    a, b = names or (c.a.label, c.b.label)
    if c.estimate is None:
        return f"not decided: {c.missing}"
    if c.verdict is Verdict.WIN:
        return _win(c, c.estimate, a if c.winner is c.a else b)
    if c.verdict is Verdict.TIE:
        return f"a tie: the difference is smaller than the margin of {_margin(c)} ({_tie_span(c, c.estimate)}; {_basis(c, c.estimate)})"
    return f"not decided: {_undecided(c, c.estimate, (a, b))}"


def _win(c: Comparison, estimate: Estimate, winner: str) -> str:
    size = difference(abs(estimate.value), c.metric, sign=False)
    direction = "less loss" if c.metric == "loss" else f"more {METRIC_NAMES[c.metric]}"
    small = ""
    if max(abs(estimate.interval.low), abs(estimate.interval.high)) < c.margin:
        small = f", a real difference, but smaller than the margin of {_margin(c)}"
    interval = span(estimate, c.metric, sign=_sign(estimate))
    return f"{winner} wins: {size} {direction}, {interval}{small} ({_p_value(c)}; {_basis(c, estimate)})"


def _sign(estimate: Estimate) -> int:
    """Return the sign by which the difference is positive: people read how far the first is ahead, not a minus."""
    return -1 if estimate.value < 0 else 1


def _lead(c: Comparison, estimate: Estimate, names: tuple[str, str]) -> str:
    """Say who leads and by how much, with the interval."""
    interval = span(estimate, c.metric, sign=_sign(estimate))
    if estimate.value == 0:
        return f"their scores are equal, {interval}"
    leads = names[(estimate.value > 0) == (c.metric == "loss")]
    less = " of loss" if c.metric == "loss" else ""
    return f"{leads} leads by {difference(abs(estimate.value), c.metric, sign=False)}{less}, {interval}"


def _undecided(c: Comparison, estimate: Estimate, names: tuple[str, str]) -> str:
    seen = _lead(c, estimate, names)
    if c.missing:
        return f"{seen}, but {c.missing}"
    if not estimate.covers_seeds:
        single = [n for n, num in zip(names, estimate.num_seeds, strict=True) if num == 1]
        each = " each" if len(single) == 2 else ""
        return f"{' and '.join(single)} ran under one seed{each}, so how much seeds vary is not known; {seen} for new sentences only"
    shown = difference(power.detectable(estimate), c.metric, sign=False)
    return (
        f"{seen} ({_p_value(c)}; {_basis(c, estimate)}); a study of this size detects {shown} in four of five cases"
        f"{_what_would_decide(c, estimate)}"
    )


def _what_would_decide(c: Comparison, estimate: Estimate) -> str:
    if not power.knows_noise(estimate):  # answers that are all alike do not tell what more of them would show
        return ""
    target = max(abs(estimate.value), c.margin)
    size = difference(target, c.metric, sign=False)
    seeds, sentences = power.seeds_needed(estimate, target), power.sentences_needed(estimate, target)
    each = max(estimate.num_seeds)
    if (seeds is not None and seeds <= each) or (sentences is not None and sentences <= estimate.num_sentences):
        return f"; the same study again would detect {size} as often"
    options = [
        *([f"{formatting.count(seeds, 'seed')} of each"] if seeds is not None else []),
        *([formatting.count(sentences, "sentence")] if sentences is not None else []),
    ]
    if not options:
        return f"; to detect {size} as often takes more seeds and more sentences"
    rest = "; more seeds alone do not suffice" if seeds is None else ""
    return f"; to detect {size} as often takes {' or '.join(options)}{rest}"


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
    seeds = (
        formatting.count(a, "seed") + " each"
        if a == b
        else f"{formatting.count(a, 'seed')} and {formatting.count(b, 'seed')}"
    )
    basis = f"{seeds}, all on the same {formatting.count(estimate.num_sentences, 'sentence')}"
    if c.searched[0] != c.searched[1]:
        basis += f"; the best of {c.searched[0]} against the best of {c.searched[1]}"
        basis += ", corrected for the larger search" if c.is_leader_of_larger(estimate) else ""
    return basis


def variance_split(estimate: Estimate | None) -> str:
    """Say what the uncertainty of a difference comes from, which tells whether more seeds or more sentences reduce it."""
    if estimate is None or not estimate.covers_seeds:
        return ""
    sentences, seeds, both = (f"{100 * share:.0f} %" for share in power.variance_shares(estimate))
    return (
        f"Of the variance of the difference, {sentences} comes from which sentences there are (more sentences reduce it), {seeds} "
        f"from runs that are better or worse as a whole (more seeds do), {both} from what a seed does to single sentences (both do)."
    )


def contradiction(comparisons: list[Comparison]) -> str:
    """Say why metrics name different winners; empty when they do not."""
    winners: dict[str, Configuration] = {c.metric: c.winner for c in comparisons if c.winner is not None}
    if len({w.configuration_id for w in winners.values()}) < 2:
        return ""
    said = formatting.join([f"{METRIC_NAMES[m]} {w.label}" for m, w in winners.items()])
    return (
        f"The metrics name different winners ({said}): accuracy counts right answers, F1 those of the positive class (of more "
        "than two classes, every class alike), MCC all classes alike, loss also how sure the model is of each answer."
    )
