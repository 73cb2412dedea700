"""Figures of a sweep: heat maps, accuracy against learning rate, time and cost, all curves, parallel coordinates."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from sst2_ray import formatting
from sst2_ray.records import Status
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.published import PAPER_LEARNING_RATE
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.report import drawing, figures_budget
from sst2_ray.results.report.drawing import Drawn
from sst2_ray.results.report.figures_budget import (
    capitalized,
    mean_of,
    metric_of,
    metric_title,
    metric_word,
    of_model,
    oriented_mean,
)
from sst2_ray.statistics.scores import Array

MAX_HEAT_MAPS = 6
MAX_HEAT_MAP_SIDE = 12
_AXIS_TITLES = {
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "weight_decay": "weight decay",
    "warmup_fraction": "warm-up",
    "epochs": "epochs",
}


def draw(study: Study) -> list[Drawn]:
    """Draw the figures that the searched axes allow; none for a single configuration."""
    if study.main is None or len(study.configurations) < 2:
        return []
    models = [model_label(c.setting) for c in study.best_per_model]
    palette = drawing.colors(models)
    found = [_heat_map(study, model, f"heat-map-{_slug(model)}") for model in models[:MAX_HEAT_MAPS]]
    found += [
        _against_learning_rate(study, palette, "accuracy-against-learning-rate"),
        _all_curves(study, palette, "all-curves"),
        _parallel_coordinates(study, "parallel-coordinates"),
        *figures_budget.draw(study, palette),
    ]
    return [figure for figure in found if figure is not None]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _heat_map(study: Study, model: str, name: str) -> Drawn | None:
    """Draw accuracy by learning rate and batch size, taking the best over any other axes."""
    members = [c for c in of_model(study, model) if c.setting("learning_rate") and c.setting("batch_size")]
    rates, sizes = _values(members, "learning_rate"), _values(members, "batch_size")
    if len(members) < 2 or max(len(rates), len(sizes)) > MAX_HEAT_MAP_SIDE:
        return None
    best = {(c.setting("learning_rate"), c.setting("batch_size")): c for c in _worst_first(study, members)}
    means = np.full((len(sizes), len(rates)), np.nan)
    for (rate, size), configuration in best.items():
        means[sizes.index(size), rates.index(rate)] = mean_of(study, configuration)
    figure, axes = drawing.new_figure(height=1.5 + 0.55 * len(sizes))
    axes.grid(False)
    low, high = _color_scale(study)
    image = axes.imshow(means, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (rate, size), configuration in best.items():
        dark = (mean_of(study, configuration) - low) / (high - low) < 0.55
        _cell(axes, rates.index(rate), sizes.index(size), configuration, metric_of(study), dark=dark)
    axes.set_xticks(range(len(rates)), [formatting.learning_rate(r) for r in rates])
    axes.set_yticks(range(len(sizes)), [str(s) for s in sizes])
    axes.set(xlabel="learning rate", ylabel="batch size", title=drawing.short(model, 44))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, pad=0.02, use_gridspec=False)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.1f}")
    others = [_AXIS_TITLES[axis] for axis in study.axes if axis not in ("learning_rate", "batch_size")]
    over = f" (the best over {formatting.join(others)})" if others else ""
    caption = (
        f"{capitalized(metric_title(study).removesuffix(', %'))} of {model} by learning rate and batch size{over}:"
    )
    return drawing.save(
        figure,
        name,
        f"{caption} mean over seeds{'' if '×' in caption else ' in %'}, ± standard deviation, n: number of seeds. "
        "All heat maps have the same colors.",
    )


def _color_scale(study: Study) -> tuple[float, float]:
    """Return the accuracies of the darkest and the lightest color, the same for the heat maps of all models."""
    means = [mean_of(study, c) for c in study.configurations]
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    return low - 0.05 * ((high - low) or 0.01), high


def _values(members: Sequence[Configuration], axis: str) -> list[float]:
    return sorted({c.setting(axis) for c in members if c.setting(axis)})


def _worst_first(study: Study, members: Sequence[Configuration]) -> list[Configuration]:
    return sorted(members, key=lambda c: oriented_mean(study, c))


def _cell(axes: Axes, x: int, y: int, configuration: Configuration, metric: str, *, dark: bool) -> None:
    summary = configuration.summary(metric)
    if summary is None:
        return
    sd = f"±{formatting.percent(summary.sd)} " if summary.sd is not None else ""
    color = "#ffffff" if dark else "#101010"
    axes.text(
        x, y - 0.13, formatting.percent(summary.mean), ha="center", va="center", color=color, fontsize=9, weight="bold"
    )
    axes.text(x, y + 0.22, f"{sd}n={summary.num}", ha="center", va="center", color=color, fontsize=6.5)


def _against_learning_rate(study: Study, palette: dict[str, str], name: str) -> Drawn | None:
    if len({c.setting("learning_rate") for c in study.configurations}) < 2:
        return None
    figure, axes = drawing.new_figure()
    sizes = _values(study.configurations, "batch_size")
    for (model, color), size in itertools.product(palette.items(), [None, *sizes]):
        members = [c for c in of_model(study, model) if c.setting("batch_size") == size and c.setting("learning_rate")]
        best = {c.setting("learning_rate"): c for c in _worst_first(study, members)}
        if best:
            _line_with_bars(axes, study, [best[r] for r in sorted(best)], color, _marker(sizes, size))
    axes.set_xscale("log")
    _rate_ticks(axes, _values(study.configurations, "learning_rate"))
    drawing.percent_axis(axes)
    paper = f"{formatting.learning_rate(PAPER_LEARNING_RATE)}, the paper's"
    axes.axvline(PAPER_LEARNING_RATE, color=drawing.MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label=paper)
    axes.set(
        xlabel="learning rate (logarithmic)",
        ylabel=metric_title(study),
        title=f"{capitalized(metric_word(study))} against learning rate",
    )
    for model, color in palette.items():
        axes.plot([], [], color=color, label=drawing.short(model))
    for size in sizes if len(sizes) > 1 else ():
        axes.plot(
            [], [], color=drawing.MUTED, linestyle="", marker=_marker(sizes, size), markersize=4, label=f"batch {size}"
        )
    drawing.legend(figure)
    return drawing.save(
        figure,
        name,
        f"{capitalized(metric_title(study).removesuffix(', %'))} against the learning rate, a line for each model and "
        "batch size; bars: one standard deviation over seeds.",
    )


def _marker(sizes: Sequence[float], size: float | None) -> str:
    return "osD^vP*X"[sizes.index(size) % 8] if size else "."


def _line_with_bars(axes: Axes, study: Study, members: Sequence[Configuration], color: str, marker: str) -> None:
    summaries = [c.summary(metric_of(study)) for c in members]
    rates = [c.setting("learning_rate") for c in members]
    means = [s.mean if s else np.nan for s in summaries]
    sds = [s.sd or 0.0 if s else 0.0 for s in summaries]
    axes.errorbar(rates, means, yerr=sds, color=color, marker=marker, markersize=4, linewidth=1.2, elinewidth=0.9)


def _rate_ticks(axes: Axes, rates: Sequence[float]) -> None:
    """Set ticks at the rates tried, without those whose label would overlap the one before."""
    shown = [rates[0]]
    for rate in rates[1:]:
        if np.log(rate / shown[-1]) > 0.09 * np.log(rates[-1] / rates[0]):
            shown.append(rate)
    axes.set_xticks(shown, [formatting.learning_rate(float(f"{r:.2g}")) for r in shown])
    axes.minorticks_off()


def _all_curves(study: Study, palette: dict[str, str], name: str) -> Drawn | None:
    """Draw every trial's accuracy; trials that a scheduler stopped are dashed and end in a cross.

    None where no trial was evaluated more than once.
    """
    if max((len(curve.epoch) for curve in study.curves.values()), default=0) < 2:
        return None
    columns = ("experiment", "trial_id", "status", "model", "random_weights")
    rows = study.trials.select(list(columns)).to_pylist()
    figure, axes = drawing.new_figure()
    counts = {Status.SUCCEEDED: 0, Status.EARLY_STOPPED: 0}
    for row in rows:
        curve = study.curves.get((row["experiment"], row["trial_id"]))
        model = model_label(row.get)
        if curve is None or row["status"] not in counts:
            continue
        stopped = row["status"] == Status.EARLY_STOPPED
        counts[row["status"]] += 1
        color = palette.get(model, drawing.MUTED)
        scores = curve.metrics[f"dev_{study.main.chosen_by if study.main else 'accuracy'}"]
        line = "--" if stopped else "-"
        axes.plot(curve.epoch, scores, color=color, alpha=0.8 if stopped else 0.5, linewidth=1.0, linestyle=line)
        if stopped:
            axes.plot(curve.epoch[-1:], scores[-1:], color=color, marker="x", markersize=5, linestyle="")
        elif len(curve.epoch) == 1:
            axes.plot(curve.epoch, scores, color=color, marker=".", alpha=0.5, linestyle="")
    if sum(counts.values()) < 2:
        return None
    for model, color in palette.items():
        axes.plot([], [], color=color, label=drawing.short(model))
    if counts[Status.EARLY_STOPPED]:
        axes.plot([], [], color=drawing.MUTED, linestyle="--", marker="x", markersize=5, label="stopped early")
    drawing.percent_axis(axes)
    axes.set(xlabel="epoch", ylabel=metric_title(study).split(" ", 1)[1], title="All trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    drawing.legend(figure)
    text_counts = (
        f"{formatting.count(counts[Status.SUCCEEDED], 'finished trial')}, {counts[Status.EARLY_STOPPED]} stopped early"
    )
    return drawing.save(
        figure,
        name,
        f"{capitalized(metric_word(study))} over epochs ({study.curves_on}) of every trial ({text_counts}).",
    )


def _parallel_coordinates(study: Study, name: str) -> Drawn | None:
    """Draw a line per configuration through its settings to its accuracy; None for fewer than three searched axes."""
    axes_names = study.axes
    members = [c for c in study.configurations if all(c.setting(a) is not None for a in axes_names)]
    if len(axes_names) < 3 or len(members) < 2:
        return None
    figure, axes = drawing.new_figure(width=9.6, height=3.4)
    scores = np.array([oriented_mean(study, c) for c in members])
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    positions = [_positions([float(c.setting(a)) for c in members], a) for a in axes_names]
    last = (scores - low) / max(high - low, 1e-12)
    # Both ends are visible on white and on near-black.
    color_map = LinearSegmentedColormap.from_list("worse to better", ["#8093a8", drawing.PALETTE[1]])
    for i in np.argsort(scores):
        ys = [*(p[i] for p in positions), last[i]]
        axes.plot(range(len(ys)), ys, color=color_map(last[i]), alpha=0.8, linewidth=1.2)
    for x, axis in enumerate(axes_names):
        _label_values(axes, x, axis, [float(c.setting(axis)) for c in members], positions[x])
    for y, value in ((0, low), (1, high)):
        label = formatting.percent(_unoriented(study, value))
        axes.annotate(label, (len(axes_names), y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_xticks(
        range(len(axes_names) + 1), [*(_AXIS_TITLES[a] for a in axes_names), metric_title(study).split(" ", 1)[1]]
    )
    axes.set_yticks([])
    axes.grid(True, axis="x")
    axes.set_xlim(-0.4, len(axes_names) + 0.4)
    axes.set_title(f"Settings and {metric_word(study)}")
    return drawing.save(
        figure,
        name,
        "Parallel coordinates: one line a configuration, the more orange, the better its score.",
        wide=True,
    )


def _unoriented(study: Study, value: float) -> float:
    return -value if study.main and study.main.chosen_by == "loss" else value


def _label_values(axes: Axes, x: int, axis: str, values: list[float], positions: Array) -> None:
    """Write the values tried beside a vertical axis: all of up to six, else the lowest and the highest."""
    shown = sorted(set(values))
    for value in shown if len(shown) <= 6 else (shown[0], shown[-1]):
        label = formatting.learning_rate(value) if axis == "learning_rate" else f"{value:g}"
        at = (x, positions[values.index(value)])
        axes.annotate(label, at, xytext=(-4, 5), textcoords="offset points", ha="right", va="center", fontsize=7)


def _positions(values: list[float], axis: str) -> Array:
    """Scale values to 0-1, logarithmically for learning rate, batch size and weight decay."""
    data = np.array(values)
    if axis in ("learning_rate", "batch_size", "weight_decay") and (data > 0).all():
        data = np.log(data)
    span = data.max() - data.min()
    return (data - data.min()) / span if span else np.full(len(data), 0.5)
