"""The findings of a study in sentences: which configuration is best, by how much, and what was not measured."""

from __future__ import annotations

from sst2_ray import formatting
from sst2_ray.records import Status
from sst2_ray.results.analysis.comparison import Comparison
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.head_to_head import HeadToHead
from sst2_ray.results.analysis.published import SST2_DEV, SST2_TRAIN_ROWS
from sst2_ray.results.analysis.ranking import Edge, RankedGroup, model_label
from sst2_ray.results.analysis.statistics import Interval, Summary

METRIC_WORDS = {
    "best_dev_accuracy": "dev accuracy at the best epoch",
    "last_dev_accuracy": "dev accuracy at the last epoch",
    "selection_accuracy": "accuracy on the held-out part of train",
    "dev_accuracy": "accuracy",
    "dev_f1": "F1",
    "dev_loss": "loss",
    "seconds": "training time until then",
    "epoch": "epochs done by then",
}
_AXIS_WORDS = {"learning_rate": "learning rate", "batch_size": "batch size"}


def headline(study: Study) -> str:
    """One line: who won, or that nobody did."""
    if study.main is None:
        return "Nothing to compare: no trial succeeded."
    duel = study.head_to_head
    if duel is None:
        metric = study.main.reported(study.main.best)
        summary = study.main.best.summary(metric)
        score = formatting.percent(summary.mean if summary else None)
        return f"Best: {study.main.best.label}, {score} % {METRIC_WORDS[metric]}."
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
    said = [_best_sentence(study, study.main), *_dev_sentences(study.title, study.main)]
    if study.runner_up is not None:
        said.append(_runner_up_sentence(study, study.runner_up))
    if study.head_to_head is not None:
        said.append(_duel_sentence(study.head_to_head))
        said.append(_speed_sentence(study.head_to_head))
    said.extend(_edge_sentence(model, edge) for model, edge in study.edges)
    return [sentence for sentence in said if sentence]


def _points(value: float) -> str:
    return f"{formatting.plain_points(value)} points"


def _seeds(num: int) -> str:
    return f"mean of {num} seeds" if num > 1 else "one seed"


def _interval_words(interval: Interval | None) -> str:
    """'95 % interval 94.41 to 94.74', of an accuracy."""
    return (
        ""
        if interval is None
        else f"95 % interval {formatting.percent(interval.low)} to {formatting.percent(interval.high)}"
    )


def _difference_words(comparison: Comparison) -> str:
    """The interval of a difference of accuracies, in points."""
    interval = comparison.interval
    return f"95 % interval {formatting.points(interval.low)} to {formatting.points(interval.high)}" if interval else ""


def _best_sentence(study: Study, group: RankedGroup) -> str:
    best = group.best
    summary = best.summary(group.metric)
    if summary is None:
        return ""
    spread = [_seeds(summary.num)]
    if summary.sd is not None:
        spread.append(f"standard deviation {formatting.plain_points(summary.sd)}")
    spread.append(_interval_words(summary.interval))
    last = best.summary("last_dev_accuracy") if group.metric == "best_dev_accuracy" else None
    ended = f" After its last epoch it stands at {_mean(last)} %." if last else ""
    num = len(group.configurations)
    which = f"The best of {num} configurations" if num > 1 else "The only configuration"
    if len(study.groups) > 1:
        which = f"{which} with {formatting.count(group.num_seeds, 'seed')}"
    return (
        f"{which} is {best.label}: "
        f"{formatting.percent(summary.mean)} % {METRIC_WORDS[group.metric]} ({', '.join(filter(None, spread))}).{ended}"
    )


def _dev_sentences(split: str, group: RankedGroup) -> list[str]:
    """What the chosen configurations score on dev, where they were chosen elsewhere."""
    if group.metric != "selection_accuracy":
        return []
    said = []
    for configuration in group.best_per_model():
        best, last = (configuration.summary(f"{which}_dev_accuracy") for which in ("best", "last"))
        if best is None:
            continue
        ended = f", {_mean(last)} % after the last epoch" if last else ""
        said.append(
            f"On {split}, which had no part in the choice, {configuration.label} scores {_mean(best)} % "
            f"at the chosen epoch{ended} ({_seeds(best.num)})."
        )
    return said


def _mean(summary: Summary) -> str:
    """'94.41 ± 0.12', in per cent."""
    sd = f" ± {formatting.plain_points(summary.sd)}" if summary.sd is not None else ""
    return f"{formatting.percent(summary.mean)}{sd}"


def _runner_up_sentence(study: Study, comparison: Comparison) -> str:
    second = comparison.b.label
    if comparison.winner is comparison.b:  # ranked on other seeds than the two have in common
        head = f"On the seeds that both have, the runner-up, {second}, is better by {_points(-comparison.difference)}"
    elif comparison.verdict == "win":
        head = f"It is distinguishable from the runner-up, {second}, by {_points(comparison.difference)}"
    elif comparison.verdict == "tie":
        head = f"It is a tie with the runner-up, {second}: the difference of {_points(comparison.difference)} is within chance"
    else:
        head = f"Whether it is better than the runner-up, {second} ({_points(comparison.difference)} behind), is not decided"
    tied = ""
    if study.num_tied > 1:
        tied = f" In all, {study.num_tied} configurations cannot be told from the best over their seeds."
    return f"{head} ({comparison.reason}).{tied}"


def _duel_sentence(duel: HeadToHead) -> str:
    a, b, c = duel.modernbert, duel.sbert, duel.overall
    result = {
        "tie": "they tie",
        "unknown": "which is better is not decided",
        "win": f"{model_label(c.winner.setting)} wins" if c.winner else "",
    }[c.verdict]
    details = "; ".join(filter(None, (_difference_words(c), c.reason)))
    return (
        f"ModernBERT against SBERT, each at its best ({a.label}; {b.label}): {formatting.percent(c.mean_a)} % against "
        f"{formatting.percent(c.mean_b)} % {METRIC_WORDS[c.metric]}, {result} ({details})."
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
        f"{formatting.number(speeds[fast])} against {formatting.number(speeds[1 - fast])} examples/s{where}."
    )


def _edge_sentence(model: str, edge: Edge) -> str:
    axis = _AXIS_WORDS.get(edge.axis, edge.axis.replace("_", " "))
    show = formatting.learning_rate if edge.axis == "learning_rate" else "{:g}".format
    proposed = formatting.join([show(value) for value in edge.proposed])
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
    num_running = study.trials.column("status").to_pylist().count(Status.RUNNING)
    if num_running:
        said.append(
            f"{formatting.count(num_running, 'trial')} had not ended when this was made: the ranking may change."
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
        said.append(
            f"{formatting.join(random)} began with random weights: this says nothing about the pretrained model."
        )
    if study.main.reported(study.main.best) == "selection_accuracy":
        said.append("The chosen configuration has not been scored on dev: its sweep has not ended.")
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
    rows = max((c.setting("num_train_rows") or 0 for c in study.configurations), default=0)
    if study.is_sst2 and 0 < rows < SST2_TRAIN_ROWS:
        said.append(f"Trained on at most {rows:,} rows; the published figures stand on all {SST2_TRAIN_ROWS:,}.")
    if not study.is_sst2:
        said.append(f"Published figures are for {SST2_DEV}, not for this data, and are not shown.")
    return said
