"""The findings of a study in sentences: which configuration is best, by how much, and what was not measured."""

from __future__ import annotations

from sst2_ray.results import text
from sst2_ray.results.comparison import Comparison
from sst2_ray.results.findings import SST2_DEV, HeadToHead, Study
from sst2_ray.results.ranking import Configuration, Edge, RankedGroup, model_label
from sst2_ray.results.statistics import Interval

METRIC_WORDS = {
    "best_dev_accuracy": "dev accuracy at the best epoch",
    "last_dev_accuracy": "dev accuracy at the last epoch",
    "selection_accuracy": "accuracy on the held-out part of train",
    "dev_accuracy": "accuracy",
    "dev_f1": "F1",
    "dev_loss": "loss",
}
_AXIS_WORDS = {"learning_rate": "learning rate", "batch_size": "batch size"}


def headline(study: Study) -> str:
    """One line: who won, or that nobody did."""
    if study.main is None:
        return "Nothing to compare: no trial succeeded."
    duel = study.head_to_head
    if duel is None:
        return f"Best: {study.main.best.label}, {_score(study.main, study.main.best)} %."
    a, b = (model_label(c.setting) for c in (duel.modernbert, duel.sbert))
    if duel.overall.winner is None:
        word = "A tie" if duel.overall.verdict == "tie" else "Not decided"
        return f"{word}: {a} and {b} differ by {_points(abs(duel.overall.difference))}."
    winner, loser = (a, b) if duel.overall.winner is duel.modernbert else (b, a)
    return f"{winner} beats {loser} by {_points(abs(duel.overall.difference))}."


def sentences(study: Study) -> list[str]:
    """The verdict in full."""
    if study.main is None:
        return ["No trial on this data succeeded; the section on the runs says what became of them."]
    said = [_best_sentence(study.main, study.main.best)]
    if study.runner_up is not None:
        said.append(_runner_up_sentence(study, study.runner_up))
    if study.head_to_head is not None:
        said.append(_duel_sentence(study.head_to_head))
        said.append(_speed_sentence(study.head_to_head))
    said.extend(_edge_sentence(model, edge) for model, edge in study.edges)
    return [sentence for sentence in said if sentence]


def _points(value: float) -> str:
    return f"{text.plain_points(value)} points"


def _score(group: RankedGroup, configuration: Configuration) -> str:
    summary = configuration.summary(group.metric)
    return text.percent(summary.mean if summary else None)


def _seeds(num: int) -> str:
    return f"mean of {num} seeds" if num > 1 else "one seed"


def interval_words(interval: Interval | None) -> str:
    """'95 % interval 94.41 to 94.74', of an accuracy."""
    return "" if interval is None else f"95 % interval {text.percent(interval.low)} to {text.percent(interval.high)}"


def difference_words(comparison: Comparison) -> str:
    """The interval of a difference, in points where it is one of accuracies."""
    interval = comparison.interval
    if interval is None:
        return ""
    if comparison.metric == "dev_loss":
        return f"95 % interval {interval.low:+.3f} to {interval.high:+.3f}".replace("-", "−")
    return f"95 % interval {text.points(interval.low)} to {text.points(interval.high)}"


def _best_sentence(group: RankedGroup, best: Configuration) -> str:
    summary = best.summary(group.metric)
    if summary is None:
        return ""
    spread = [_seeds(summary.num)]
    if summary.sd is not None:
        spread.append(f"standard deviation {text.plain_points(summary.sd)}")
    spread.append(interval_words(summary.interval))
    last = best.summary("last_dev_accuracy")
    ended = f" After its last epoch it stands at {text.percent(last.mean)} %." if last else ""
    return (
        f"The best of {text.count(len(group.configurations), 'configuration')} is {best.label}: "
        f"{text.percent(summary.mean)} % {METRIC_WORDS[group.metric]} ({', '.join(filter(None, spread))}).{ended}"
    )


def _runner_up_sentence(study: Study, comparison: Comparison) -> str:
    second = comparison.b.label
    if comparison.verdict == "win":
        head = f"It is distinguishable from the runner-up, {second}, by {_points(comparison.difference)}"
    elif comparison.verdict == "tie":
        head = f"It is a tie with the runner-up, {second}: the difference of {_points(comparison.difference)} is within chance"
    else:
        head = (
            f"Whether it is better than the runner-up, {second} ({_points(comparison.difference)} behind), is not known"
        )
    tied = ""
    if study.num_tied > 1:
        tied = f" In all, {study.num_tied} configurations cannot be told from the best over their seeds."
    return f"{head} ({comparison.reason}).{tied}"


def _duel_sentence(duel: HeadToHead) -> str:
    a, b, c = duel.modernbert, duel.sbert, duel.overall
    result = {
        "tie": "they tie",
        "unknown": "which is better is not known",
        "win": f"{model_label(c.winner.setting)} wins" if c.winner else "",
    }[c.verdict]
    details = "; ".join(filter(None, (difference_words(c), c.reason)))
    return (
        f"ModernBERT against SBERT, each at its best ({a.label}; {b.label}): {text.percent(c.mean_a)} % against "
        f"{text.percent(c.mean_b)} %, {result} ({details})."
    )


def _speed_sentence(duel: HeadToHead) -> str:
    a, b = (c.summary("examples_per_sec") for c in (duel.modernbert, duel.sbert))
    chips = {c.setting("chip") for c in (duel.modernbert, duel.sbert)}
    if a is None or b is None or min(a.mean, b.mean) <= 0:
        return ""
    names = [model_label(c.setting) for c in (duel.modernbert, duel.sbert)]
    speeds = [a.mean, b.mean]
    fast = int(speeds[1] > speeds[0])
    where = "" if len(chips) == 1 else " (not on the same kind of chip)"
    return (
        f"{names[fast]} trains {max(speeds) / min(speeds):.2f} times as fast as {names[1 - fast]}: "
        f"{text.number(speeds[fast])} against {text.number(speeds[1 - fast])} examples/s{where}."
    )


def _edge_sentence(model: str, edge: Edge) -> str:
    axis = _AXIS_WORDS.get(edge.axis, edge.axis.replace("_", " "))
    show = text.learning_rate if edge.axis == "learning_rate" else "{:g}".format
    proposed = text.join([show(value) for value in edge.proposed])
    if edge.side == "only":
        return f"{model} was tried with one {axis} only ({show(edge.value)}); next: {proposed}."
    return (
        f"The best {axis} of {model}, {show(edge.value)}, is the {edge.side} that was tried: "
        f"the best may lie beyond; next: {proposed}."
    )


def not_measured(study: Study) -> list[str]:
    """What the figures do not say, so that nobody reads it into them."""
    if study.main is None:
        return []
    said = []
    kinds = {c.setting("model_kind") for c in study.configurations}
    for kind, name in (("modernbert", "ModernBERT"), ("sbert", "SBERT")):
        if kind not in kinds:
            said.append(f"No {name} run succeeded on this data, so ModernBERT and SBERT are not compared.")
    if {"modernbert", "sbert"} <= kinds and study.head_to_head is None:
        said.append(
            "ModernBERT and SBERT are not compared: they have no ranking with equal numbers of seeds in common."
        )
    if study.head_to_head is not None and len(study.head_to_head.moments) < 2:
        said.append(
            "ModernBERT and SBERT at equal epochs or time: a run of one of them has no evaluations or no times."
        )
    if study.main.num_seeds == 1:
        said.append("One seed a configuration: how much of a difference is the luck of the seed is not known.")
    if len(study.groups) > 1:
        said.append(
            "Configurations with other numbers of seeds, or another way of selection, are listed but not ranked."
        )
    if study.predictions.num_rows == 0:
        said.append("No predictions are stored: nothing is said about single sentences, and McNemar's test is missing.")
    random = sorted({str(c.setting("model")) for c in study.configurations if c.setting("random_weights")})
    if random:
        said.append(f"{text.join(random)} began with random weights: this says nothing about the pretrained model.")
    if study.main.metric == "best_dev_accuracy":
        said.append(
            "The epoch and the configuration were chosen on the very sentences that are reported: slightly optimistic."
        )
    if len(study.main.configurations) > 2:
        said.append(
            f"The best is the best of {len(study.main.configurations)}; p-values are not corrected for having chosen it."
        )
    if all(c.summary("cost_usd") is None for c in study.configurations):
        said.append("Cost: no price was given.")
    if not study.is_sst2:
        said.append(f"Published figures are for {SST2_DEV}, not for this data, and are not shown.")
    return said
