"""Findings of a study in sentences: which configuration is best, which may be, by how much, and what was not measured."""

from __future__ import annotations

from collections.abc import Iterator

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES, oriented, shown
from sst2_ray.records import Status
from sst2_ray.results.analysis import wording
from sst2_ray.results.analysis.comparison import Comparison, Verdict
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.head_to_head import HeadToHead
from sst2_ray.results.analysis.published import SST2_DEV, SST2_TRAIN_ROWS
from sst2_ray.results.analysis.ranking import Configuration, Edge, RankedGroup, model_label
from sst2_ray.statistics.scores import Summary
from sst2_ray.statistics.selection import expected_best

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
    duel = study.head_to_head
    if duel is None:
        group, metric = study.main, study.main.reported(study.main.best)
        summary = group.best.summary(metric)
        score = shown(group.chosen_by, summary.mean if summary else None)
        return f"Best: {group.best.label}, {score} {metric_words(group, metric)}."
    a, b = (model_label(c.setting) for c in (duel.modernbert, duel.sbert))
    by = wording.difference(abs(_difference(study.main, duel.overall)), study.main.chosen_by, sign=False)
    if duel.overall.winner is None:
        return f"{'A tie' if duel.overall.verdict is Verdict.TIE else 'Not decided'}: {a} and {b} differ by {by}."
    winner, loser = (a, b) if duel.overall.winner is duel.modernbert else (b, a)
    return f"{winner} beats {loser} by {by}."


def sentences(study: Study) -> list[str]:
    """Say the whole verdict."""
    if study.main is None:
        return ["No trial on this data succeeded; the section on the runs says what became of them."]
    said = [
        _best_sentence(study, study.main),
        _selection_sentence(study, study.main),
        *_dev_sentences(study, study.main),
        _bests_sentence(study),
    ]
    if study.head_to_head is not None:
        said.append(_duel_sentence(study.main, study.head_to_head))
        said.append(_equal_search_sentence(study.main, study.head_to_head))
        said.append(_speed_sentence(study.head_to_head))
    said.extend(_edge_sentence(model, edge) for model, edge in study.edges)
    return [sentence for sentence in said if sentence]


def chosen_from(study: Study) -> str:
    """Disclose the choice: 'best of 8 configurations, 24 runs, chosen on SST-2 dev'; empty for a single configuration."""
    num, num_runs = study.num_tried
    if study.main is None or num < 2:
        return ""
    return f"best of {num} configurations, {num_runs} runs, chosen on {study.main.chosen_on}"


def _points(value: float) -> str:
    return f"{formatting.plain_points(value)} points"


def _seeds(num: int) -> str:
    return f"mean of {num} seeds" if num > 1 else "one seed"


def _mean(summary: Summary, metric: str = "accuracy") -> str:
    """Format '94.41 ± 0.12 %'."""
    mean, _, unit = shown(metric, summary.mean).partition(" ")
    spread = "" if summary.sd is None else f" ± {wording.difference(summary.sd, metric, sign=False).split(' ')[0]}"
    return f"{mean}{spread} {unit}".rstrip()


def metric_words(group: RankedGroup, column: str) -> str:
    """Name the metric that a column of `trials` holds in a ranking, and where it was taken."""
    if column in ("best_score", "selection_score"):
        where = "dev at the best epoch" if column == "best_score" else "the held-out part of train"
        return f"{METRIC_NAMES[group.chosen_by]} on {where}"
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
    spread_of_seeds = wording.difference(summary.sd, by, sign=False).split(" ")[0] if summary.sd is not None else ""
    sd = f"standard deviation {spread_of_seeds}" if spread_of_seeds else ""
    spread = [_seeds(summary.num), sd, wording.score_span(study.selected_on.estimate(best, by), by)]
    last = best.summary("last_dev_accuracy") if group.metric == "best_dev_accuracy" else None
    ended = f" After its last epoch it stands at {_mean(last)}." if last else ""
    share = study.selected_on.majority_share
    word = "an accuracy of " if by != "accuracy" else ""
    floor = f" Always answering the more frequent class scores {word}{formatting.percent(share)} %." if share else ""
    chosen = chosen_from(study)
    which = f"The {chosen}," if chosen else "The only configuration"
    return (
        f"{which} is {best.label}: {shown(by, summary.mean)} {metric_words(group, group.metric)} "
        f"({', '.join(filter(None, spread))}{seeds_lost(study, best)}).{ended}{floor}{constant_answers(best)}"
    )


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
    said += [f"{collapsed} of {num} seeds collapsed to the majority share"] if collapsed else []
    return "".join(f", {one}" for one in said)


def _selection_sentence(study: Study, group: RankedGroup) -> str:
    if study.bias_of_best is None:
        return ""
    epochs = "" if group.on_selection else ", and its epochs as well"
    size = f"about {wording.difference(study.bias_of_best, group.chosen_by, sign=False)}"
    if study.bias_of_best < 0.00005:
        size = "less than 0.01 points" if group.chosen_by in SHARES else "less than 0.001"
    on = "that held-out part" if group.on_selection else study.title
    return (
        f"It was chosen on {on}{epochs}: a best of {len(group.configurations)} reads {size} too high there (bootstrap over the "
        "choice of the configuration)."
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
        spans = wording.score_span(study.on_dev.estimate(configuration, group.chosen_by), group.chosen_by)
        yield (
            f"On {study.title}, which had no part in the choice, {configuration.label} scores {_mean(best, group.chosen_by)} "
            f"at the chosen epoch{ended} ({_seeds(best.num)}, {spans})."
        )


def _bests_sentence(study: Study) -> str:
    bests = study.bests
    if bests is None:
        return ""
    if len(bests.configurations) == 1:
        return f"It alone may be the best of the {bests.num_compared}, with 95 % confidence."
    names = [c.label for c in bests.configurations]
    shown = names[:MAX_NAMES] + ([f"{len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else [])
    every = "all" if len(names) == bests.num_compared else str(len(names))
    why = f" ({bests.reason})" if bests.reason else ""
    if bests.not_stored and not bests.reason:
        why = f" ({bests.not_stored} of them because their sentences were not stored)"
    return (
        f"Which one is best is not decided: {every} of the {bests.num_compared} may be, with 95 % confidence{why}: "
        f"{'; '.join(shown)}."
    )


def _duel_sentence(group: RankedGroup, duel: HeadToHead) -> str:
    a, b = duel.modernbert, duel.sbert
    metric = group.reported(a, b)
    one, other = a.summary(metric), b.summary(metric)
    by, scores = group.chosen_by, ""
    if one and other:
        scores = f"{_mean(one, by)} against {_mean(other, by)} {metric_words(group, metric)}; "
    names = (model_label(a.setting), model_label(b.setting))
    return f"ModernBERT against SBERT, each at its best ({a.label}; {b.label}): {scores}{wording.verdict(duel.overall, names)}."


def _equal_search_sentence(group: RankedGroup, duel: HeadToHead) -> str:
    """Compare the expected best of equally many configurations when one model was searched more."""
    by = group.chosen_by
    scores = [
        [
            oriented(by, group.score(c))
            for c in group.configurations
            if model_label(c.setting) == model_label(chosen.setting)
        ]
        for chosen in (duel.modernbert, duel.sbert)
    ]
    num = min(map(len, scores))
    if len(scores[0]) == len(scores[1]):
        return ""
    a, b = (shown(by, oriented(by, expected_best(found)[num - 1])) for found in scores)
    return (
        f"ModernBERT was searched with {formatting.count(len(scores[0]), 'configuration')}, SBERT with {len(scores[1])}; the "
        f"best of {num} drawn from each is expected at {a} and {b} (Tang et al. 2020)."
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
    """List what the figures do not say."""
    if study.main is None:
        return []
    return [*_lacks_of_models(study), *_lacks_of_evidence(study, study.main), *_lacks_of_data(study)]


def _lacks_of_models(study: Study) -> Iterator[str]:
    kinds = {c.setting("model_kind") for c in study.configurations}
    for kind, name in (("modernbert", "ModernBERT"), ("sbert", "SBERT")):
        if kind not in kinds:
            yield f"No {name} run succeeded on this data, so ModernBERT and SBERT are not compared."
    if {"modernbert", "sbert"} <= kinds and study.head_to_head is None:
        yield "ModernBERT and SBERT are not compared: they were not chosen by the same metric."
    if study.head_to_head is not None and len(study.head_to_head.moments) < 2:
        yield "ModernBERT and SBERT at equal epochs or time: a run of one of them has no evaluations or no times."
    random = sorted({str(c.setting("model")) for c in study.configurations if c.setting("random_weights")})
    if random:
        yield f"{formatting.join(random)} began with random weights: this says nothing about the pretrained model."


def _lacks_of_evidence(study: Study, main: RankedGroup) -> Iterator[str]:
    num_running = study.trials.column("status").to_pylist().count(Status.RUNNING)
    if num_running:
        yield f"{formatting.count(num_running, 'trial')} had not ended when this was made: the ranking may change."
    if all(len(c.runs) == 1 for c in main.configurations):
        yield "One seed a configuration: how much of a difference is the luck of the seed is not known."
    if len({len(c.runs) for c in main.configurations}) > 1:
        yield "Configurations have different numbers of seeds: a mean of few is less certain, as its interval says."
    if len(study.groups) > 1:
        yield "Configurations that were chosen in another way are listed but not ranked with the others."
    if missing := [c for c in main.configurations if study.selected_on.sample(c) is None]:
        num = f"{len(missing)} of {formatting.count(len(main.configurations), 'configuration')}"
        yield f"The sentences of {num} were not stored: no difference to them can be decided."
    if main.on_selection and not main.is_reported_on_dev(main.best):
        yield "The chosen configuration has not been scored on dev: its sweep has not ended."


def _lacks_of_data(study: Study) -> Iterator[str]:
    if all(c.summary("cost_usd") is None for c in study.configurations):
        yield "Cost: no price was given."
    rows = max((c.setting("num_train_rows") or 0 for c in study.configurations), default=0)
    if study.is_sst2 and 0 < rows < SST2_TRAIN_ROWS:
        yield f"Trained on at most {rows:,} rows; the published figures stand on all {SST2_TRAIN_ROWS:,}."
    if not study.is_sst2:
        yield f"Published figures are for {SST2_DEV}, not for this data, and are not shown."
