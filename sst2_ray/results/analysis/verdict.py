"""Findings of a study in sentences: which configuration is best, which may be, by how much, and what was not measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES, oriented, shown
from sst2_ray.records import Status
from sst2_ray.results.analysis import wording
from sst2_ray.results.analysis.comparison import Comparison, Verdict
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.ranking import Configuration, Edge, RankedGroup, model_label
from sst2_ray.statistics.scores import Summary
from sst2_ray.statistics.selection import after_choice, expected_best

METRIC_WORDS = {
    "best_dev_accuracy": "dev accuracy at the best epoch",
    "last_dev_accuracy": "dev accuracy at the last epoch",
    "selection_accuracy": "accuracy on the held-out part of train",
    **METRIC_NAMES,
    "seconds": "training time until then",
    "epoch": "epochs done by then",
}
_AXIS_WORDS = {"learning_rate": "learning rate", "batch_size": "batch size"}
MAX_NAMES = 12


def headline(study: Study) -> str:
    """Say in one line who won, or that nobody did."""
    if study.main is None:
        return "Nothing to compare: no trial succeeded."
    if study.head_to_head is None and len(study.comparisons) != 1:
        group, metric = study.main, study.main.reported(study.main.best)
        summary = group.best.summary(metric)
        score = shown(group.chosen_by, summary.mean if summary else None)
        num = len(study.bests.configurations) if study.bests else 1
        said = "Best" if num == 1 else f"Not decided; first of {num} that may be the best"
        return f"{said}: {group.best.label}, {score} {metric_words(group.chosen_by, metric)}."
    c = study.comparisons[0]
    a, b = _names(c)
    chosen_by = study.main.chosen_by
    by = wording.difference(abs(_difference(study.main, c)), chosen_by, sign=False)
    by += "" if chosen_by == "accuracy" else f" of {METRIC_NAMES[chosen_by]}"
    if c.winner is None:
        return f"{'A tie' if c.verdict is Verdict.TIE else 'Not decided'}: {a} and {b} differ by {by}."
    winner, loser = (a, b) if c.winner is c.a else (b, a)
    return f"{winner} beats {loser} by {by}."


def sentences(study: Study) -> list[str]:
    """Say the whole verdict."""
    if study.main is None:
        return ["No trial on this data succeeded, so there is nothing to compare."]
    said = [
        _best_sentence(study, study.main),
        _selection_sentence(study, study.main),
        *_dev_sentences(study, study.main),
        _bests_sentence(study),
    ]
    for c in study.comparisons:
        is_duel = study.head_to_head is not None and c is study.head_to_head.overall
        said.extend(_comparison_sentences(study.main, c, "ModernBERT against SBERT" if is_duel else ""))
    said.extend(_edge_sentence(study, model, edge) for model, edge in study.edges)
    return [sentence for sentence in dict.fromkeys(said) if sentence]


def _has_learned_nothing(study: Study, model: str) -> bool:
    """Tell whether the best configuration of a model collapsed under every seed: its place among the others is chance."""
    best = [c for c in study.main.best_per_model() if model_label(c.setting) == model] if study.main else []
    return any(study.selected_on.num_collapsed(c) == len(c.runs) for c in best)


def chosen_from(study: Study) -> str:
    """Disclose the choice: 'best of 8 configurations, 24 runs, chosen on SST-2 dev'; empty for a single configuration."""
    num, num_runs = study.num_tried
    if study.main is None or num < 2:
        return ""
    return f"best of {num} configurations, {num_runs} runs, chosen on {study.main.chosen_on}"


def _points(value: float) -> str:
    return f"{formatting.plain_points(value)} points"


def _seeds(summary: Summary) -> str:
    return f"mean ± standard deviation of {summary.num} seeds" if summary.num > 1 else "one seed"


def _mean(summary: Summary, metric: str = "accuracy") -> str:
    """Format '94.41 ± 0.12 %'."""
    mean, _, unit = shown(metric, summary.mean).partition(" ")
    spread = "" if summary.sd is None else f" ± {wording.difference(summary.sd, metric, sign=False).split(' ')[0]}"
    return f"{mean}{spread} {unit}".rstrip()


def metric_words(chosen_by: str, column: str) -> str:
    """Name the metric that a column of `trials` holds for runs chosen by a metric, and where it was taken."""
    if column in ("best_score", "selection_score"):
        where = "dev at the best epoch" if column == "best_score" else "the held-out part of train"
        return f"{METRIC_NAMES[chosen_by]} on {where}"
    return METRIC_WORDS[column]


def _difference(group: RankedGroup, c: Comparison) -> float:
    metric = group.reported(c.a, c.b)
    a, b = c.a.summary(metric), c.b.summary(metric)
    return a.mean - b.mean if a and b else 0.0


def _best_sentence(study: Study, group: RankedGroup) -> str:
    best = group.best
    summary = best.summary(group.metric)
    if summary is None:
        return ""
    by = group.chosen_by
    spread = [_seeds(summary), _score_span(study.selected_on, best, by, bias=study.bias_of_best or 0.0)]
    last = best.summary("last_dev_accuracy") if group.metric == "best_dev_accuracy" else None
    ended = f" After its last epoch it stands at {_mean(last)}." if last else ""
    share = study.selected_on.majority_share
    word = "an accuracy of " if by != "accuracy" else ""
    floor = f" Always answering the more frequent class scores {word}{formatting.percent(share)} %." if share else ""
    chosen = chosen_from(study)
    which = f"The {chosen}," if chosen else "The only configuration"
    return (
        f"{which} is {best.label}: {_mean(summary, by)} {metric_words(by, group.metric)} "
        f"({', '.join(spread)}{seeds_lost(study, best)}).{ended}{floor}{constant_answers(best)}"
    )


def _score_span(stored: Evidence, configuration: Configuration, metric: str, *, bias: float = 0.0) -> str:
    estimate, lack = stored.estimate(configuration, metric), stored.lack(configuration, metric)
    if estimate is None or bias < (0.00005 if metric in SHARES else 0.0005):
        return wording.score_span(estimate, metric, lack=lack)
    interval = after_choice(estimate.interval, bias, less_is_better=metric == "loss")
    if metric in SHARES:
        interval = dataclasses.replace(interval, low=max(0.0, interval.low))
    said = wording.score_span(dataclasses.replace(estimate, interval=interval), metric)
    return f"{said}, corrected for the choice"


def constant_answers(configuration: Configuration) -> str:
    """Say how many seeds answer one class for every sentence of dev; empty when none does."""
    num = sum(run.values.get("best_num_answered") == 1 for run in configuration.runs)
    who = "It answers" if len(configuration.runs) == 1 else f"{num} of its {len(configuration.runs)} seeds answer"
    return f" {who} one class for every sentence of dev." if num else ""


def seeds_lost(study: Study, configuration: Configuration) -> str:
    """Say how many seeds failed or collapsed, after a comma; empty when none did."""
    ids, states = (study.trials.column(name).to_pylist() for name in ("configuration_id", "status"))
    failed = sum(
        i == configuration.configuration_id and s in (Status.FAILED, Status.LOST)
        for i, s in zip(ids, states, strict=True)
    )
    collapsed, num = study.selected_on.num_collapsed(configuration), len(configuration.runs)
    said = [f"{failed} of {num + failed} seeds failed"] if failed else []
    said += [f"{collapsed} of {num} seeds collapsed, within the noise of the majority share"] if collapsed else []
    return "".join(f", {one}" for one in said)


def _selection_sentence(study: Study, group: RankedGroup) -> str:
    if study.bias_of_best is None:
        return ""
    size = f"about {wording.difference(study.bias_of_best, group.chosen_by, sign=False)}"
    if study.bias_of_best < (0.00005 if group.chosen_by in SHARES else 0.0005):
        size = "less than 0.01 points" if group.chosen_by in SHARES else "less than 0.001"
    epochs = "" if group.on_selection else "; the choice of its epochs is not in this figure"
    off = "Its loss is too low" if group.chosen_by == "loss" else "Its score is too high"
    return (
        f"{off}, by {size}, because it was chosen by these very scores among "
        f"{formatting.count(len(group.configurations), 'configuration')} (bootstrap estimate{epochs})."
    )


def _dev_sentences(study: Study, group: RankedGroup) -> Iterator[str]:
    """Say what the chosen configurations score on dev when they were chosen elsewhere."""
    if not group.on_selection:
        return
    for configuration in group.best_per_model():
        best, last = (configuration.summary(f"{which}_dev_accuracy") for which in ("best", "last"))
        if group.chosen_by != "accuracy":
            best, last = configuration.summary("best_score"), None
        if best is None:
            continue
        ended = f", {_mean(last)} after the last epoch" if last else ""
        spans = _score_span(study.on_dev, configuration, group.chosen_by)
        yield (
            f"On {study.title}, which had no part in the choice, {configuration.label} scores {_mean(best, group.chosen_by)} "
            f"at the chosen epoch ({_seeds(best)}, {spans}){ended}."
        )


def _bests_sentence(study: Study) -> str:
    bests = study.bests
    if bests is None:
        return ""
    where = " on the held-out part of train" if study.main is not None and study.main.on_selection else ""
    if len(bests.configurations) == 1:
        best = bests.configurations[0].label
        return f"With 95 % confidence {best} is the best of the {bests.num_compared} configurations{where}."
    names = [c.label for c in bests.configurations]
    shown = names[:MAX_NAMES] + ([f"{len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else [])
    begin, listed = f"Which configuration is best{where} is not decided", f"{'; '.join(shown)}."
    if bests.reason:
        return f"{begin}, because {bests.reason}; none of the {len(names)} can be ruled out: {listed}"
    if len(names) == bests.num_compared:
        return f"{begin}; with 95 % confidence none of the {len(names)} can be ruled out: {listed}"
    why = ""
    if bests.not_known:
        are = "one of them is" if bests.not_known == 1 else f"{bests.not_known} of them are"
        why = f" ({are} in because usable predictions on the single sentences, or a second seed, are missing)"
    return f"{begin}; with 95 % confidence it is one of these {len(names)} of the {bests.num_compared}{why}: {listed}"


def _comparison_sentences(group: RankedGroup, c: Comparison, heading: str) -> Iterator[str]:
    """Compare two models, each at its best: the verdict, both at an equal number of configurations, speed."""
    names, by, scores = _names(c), group.chosen_by, ""
    metric = group.reported(c.a, c.b)
    one, other = c.a.summary(metric), c.b.summary(metric)
    if one and other:
        scores = f"{_mean(one, by)} against {_mean(other, by)} {metric_words(by, metric)}; "
    yield (
        f"{heading or ' against '.join(names)}, each at its best ({c.a.label}; {c.b.label}): "
        f"{scores}{wording.verdict(c, names)}."
    )
    yield _equal_search_sentence(group, c)
    yield _speed_sentence(c)


def _names(c: Comparison) -> tuple[str, str]:
    return model_label(c.a.setting), model_label(c.b.setting)


def _equal_search_sentence(group: RankedGroup, c: Comparison) -> str:
    """Compare the expected best of equally many configurations when one model was searched more."""
    names, by = _names(c), group.chosen_by
    scores = [
        [oriented(by, group.score(one)) for one in group.configurations if model_label(one.setting) == name]
        for name in names
    ]
    num = min(map(len, scores))
    if len(scores[0]) == len(scores[1]):
        return ""
    a, b = (shown(by, oriented(by, expected_best(found)[num - 1])) for found in scores)
    return (
        f"{names[0]} was searched with {formatting.count(len(scores[0]), 'configuration')}, {names[1]} with {len(scores[1])}; "
        f"{'one' if num == 1 else f'the best of {num}'} drawn at random from each would score {a} and {b} on average "
        "(Tang et al. 2020)."
    )


def _speed_sentence(c: Comparison) -> str:
    a, b = ([rate for run in one.runs if (rate := run.values.get("examples_per_sec"))] for one in (c.a, c.b))
    if not a or not b:
        return ""
    slow, fast = sorted(zip((a, b), _names(c), strict=True), key=lambda one: statistics.fmean(one[0]))
    if min(fast[0]) <= max(slow[0]):  # one machine is now faster, now slower
        return ""
    where = "" if c.a.setting("chip") == c.b.setting("chip") else " (not on the same kind of chip)"
    means = statistics.fmean(fast[0]), statistics.fmean(slow[0])
    return (
        f"{fast[1]} trains {means[0] / means[1]:.2f} times as fast as {slow[1]}: "
        f"{formatting.number(means[0])} against {formatting.number(means[1])} examples/s{where}."
    )


def _edge_sentence(study: Study, model: str, edge: Edge) -> str:
    if _has_learned_nothing(study, model):
        return f"{model} has learned nothing under any seed: more epochs or smaller batches come before other settings."
    axis = _AXIS_WORDS.get(edge.axis, edge.axis.replace("_", " "))
    show = formatting.learning_rate if edge.axis == "learning_rate" else "{:g}".format
    proposed = formatting.join([show(value) for value in edge.proposed])
    if edge.side == "only":
        return f"{model} was tried with one {axis} only, {show(edge.value)}; next to try: {proposed}."
    return (
        f"The best {axis} of {model}, {show(edge.value)}, is the {edge.side} that was tried, so a better one may lie beyond; "
        f"next to try: {proposed}."
    )
