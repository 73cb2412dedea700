"""Figures of what accuracy costs: against time and money, and the expected best against the size of a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from sst2_ray.config.metrics import METRIC_NAMES, SHARES, oriented
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.report import drawing
from sst2_ray.results.report.drawing import Drawn
from sst2_ray.statistics.selection import expected_best


def draw(study: Study, palette: dict[str, str]) -> list[Drawn | None]:
    """Draw accuracy against time and against cost, and the expected best; None for what was not recorded."""
    searched = any(len(of_model(study, model)) > 1 for model in palette)
    return [
        _against(study, palette, "seconds", "accuracy-against-time"),
        _against(study, palette, "cost_usd", "accuracy-against-cost"),
        _expected_best(study, palette, "expected-best") if searched else None,
    ]


def metric_of(study: Study) -> str:
    """Return the column of `trials` that ranks the configurations."""
    return study.main.metric if study.main else "best_dev_accuracy"


def metric_title(study: Study) -> str:
    """Return the metric's name, for an axis."""
    main = study.main
    unit = ", %" if main is None or main.chosen_by in SHARES else " × 100"
    return f"{'held-out' if main and main.on_selection else 'dev'} {metric_word(study)}{unit}"


def metric_word(study: Study) -> str:
    """Return the metric that ranks the configurations in words."""
    return METRIC_NAMES[study.main.chosen_by if study.main else "accuracy"]


def capitalized(words: str) -> str:
    """Return words with their first letter in upper case, the others as they are."""
    return words[:1].upper() + words[1:]


def of_model(study: Study, model: str) -> list[Configuration]:
    """Return the ranked configurations of a model."""
    return [c for c in study.configurations if model_label(c.setting) == model and c.summary(metric_of(study))]


def mean_of(study: Study, configuration: Configuration) -> float:
    """Return a configuration's mean of the ranking metric, NaN when it is not known."""
    summary = configuration.summary(metric_of(study))
    return summary.mean if summary else float("nan")


def oriented_mean(study: Study, configuration: Configuration) -> float:
    """Return a configuration's mean of the ranking metric such that more is better: the loss with its sign turned."""
    return oriented(study.main.chosen_by if study.main else "accuracy", mean_of(study, configuration))


def _against(study: Study, palette: dict[str, str], column: str, name: str) -> Drawn | None:
    """Draw accuracy against time or cost per run, with the Pareto front."""
    points = [
        (spent.mean, mean_of(study, c), model_label(c.setting))
        for c in study.configurations
        if (spent := c.summary(column)) is not None and np.isfinite(mean_of(study, c))
    ]
    if len(points) < 2:
        return None
    figure, axes = drawing.new_figure()
    for model, color in palette.items():
        mine = [(x, y) for x, y, m in points if m == model]
        if mine:
            xs, ys = zip(*mine, strict=True)
            axes.scatter(xs, ys, color=color, s=22, alpha=0.8, label=drawing.short(model), zorder=3, linewidths=0)
    by = study.main.chosen_by if study.main else "accuracy"
    front = [(x, oriented(by, y)) for x, y in pareto_front([(x, oriented(by, y)) for x, y, _ in points])]
    axes.step(
        *zip(*front, strict=True), where="post", color=drawing.MUTED, linewidth=1.1, label="Pareto front", zorder=2
    )
    drawing.percent_axis(axes)
    word, unit = ("time", "s") if column == "seconds" else ("cost", "US$")
    axes.set(
        xlabel=f"{word} a run, {unit}",
        ylabel=metric_title(study),
        title=f"{capitalized(metric_word(study))} against {word}",
    )
    drawing.legend(figure)
    return drawing.save(
        figure, name, f"{capitalized(metric_title(study).removesuffix(', %'))} against the {word} of a run, a point a "
        "configuration (means over seeds); no point is better in both than one on the Pareto front.",
    )  # fmt: skip


def _expected_best(study: Study, palette: dict[str, str], name: str) -> Drawn:
    """Draw the expected best of k configurations, against k and against the time, or the cost, of running them."""
    column, unit = ("cost_usd", "US$") if any(c.summary("cost_usd") for c in study.configurations) else ("seconds", "h")
    by = study.main.chosen_by if study.main else "accuracy"
    figure, axes, right = drawing.new_pair()
    for model, color in palette.items():
        members = of_model(study, model)
        best = [oriented(by, value) for value in expected_best([oriented_mean(study, c) for c in members])]
        count = np.arange(1, len(best) + 1)
        axes.plot(count, best, color=color, marker="o", markersize=3, label=drawing.short(model))
        spent = _spent(members, column)
        if spent is not None:
            right.plot(count * (spent / 3600 if unit == "h" else spent), best, color=color, marker="o", markersize=3)
    for each in (axes, right):
        drawing.percent_axis(each)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="configurations tried", ylabel=metric_title(study), title="Expected best of a search")
    right.set(xlabel=f"{'cost' if column == 'cost_usd' else 'time'} of the runs, {unit}")
    drawing.legend(figure)
    return drawing.save(
        figure, name, "Expected best of so many configurations, drawn from those that were run, against their number and what "
        "they cost: models that were searched unequally compare at equal search (Dodge et al. 2019; Tang et al. 2020).",
        wide=True,
    )  # fmt: skip


def _spent(members: Sequence[Configuration], column: str) -> float | None:
    """Return the mean over configurations of what their runs took in all; None where a run's figure is not known."""
    runs = [run.values.get(column) for c in members for run in c.runs]
    known = [value for value in runs if value is not None]
    return sum(known) / len(members) if runs and len(known) == len(runs) else None


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points not dominated in (less of the first, more of the second), by the first, ascending."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
