"""Figures of training curves with their spread over seeds: metrics over epochs, losses, all metrics together."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES
from sst2_ray.results.analysis.curves import Band, band
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.published import REFERENCES
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.report import drawing
from sst2_ray.results.report.drawing import Drawn

_DRAWN = ("accuracy", "f1", "loss")
"""Metrics that are drawn whatever the runs were chosen by."""
_LINES = ("-", "--", "-.", ":")


def draw(study: Study) -> list[Drawn]:
    """Draw up to six figures, depending on which metrics were recorded."""
    if not study.best_per_model or not has_curves(study):
        return []
    names = [model_label(c.setting) for c in study.best_per_model]
    palette = drawing.colors(names)
    on, best = study.curves_on, study.best_per_model[0]
    by = study.main.chosen_by if study.main else "accuracy"
    decides = f"{METRIC_NAMES[by]} over epochs ({on})"
    found = [
        *([] if by in _DRAWN else [_over_epochs(study, palette, f"dev_{by}", decides, "chosen-metric-over-epochs")]),
        _over_epochs(study, palette, "dev_accuracy", f"Accuracy over epochs ({on})", "accuracy-over-epochs"),
        _over_epochs(study, palette, "dev_f1", f"F1 over epochs ({on})", "f1-over-epochs"),
        _over_epochs(study, palette, "train_loss", "Training loss over epochs", "train-loss-over-epochs"),
        _losses(study, best, "train-and-dev-loss"),
        _together(study, best, "metrics-together"),
    ]
    return [figure for figure in found if figure is not None]


def has_curves(study: Study) -> bool:
    """Tell whether a best configuration was evaluated more than once: a single point is no curve."""
    bands = [band(c, study.curves, "dev_accuracy") for c in study.best_per_model]
    return any(found is not None and len(found.epoch) > 1 for found in bands)


def _spread_words(study: Study) -> str:
    several = any(len(c.runs) > 1 for c in study.best_per_model)
    return "Line: mean over seeds; band: one standard deviation" if several else "One seed"


def _plot(axes: Axes, found: Band, *, color: str, label: str, line: str = "-", highest: float = np.inf) -> None:
    """Draw the mean and a band of one standard deviation, cut at 0 and at the metric's highest value."""
    axes.plot(found.epoch, found.mean, color=color, label=label, linestyle=line, marker="o", markersize=3.5, zorder=3)
    if found.sd is not None:
        low, high = np.maximum(found.mean - found.sd, 0), np.minimum(found.mean + found.sd, highest)
        axes.fill_between(found.epoch, low, high, color=color, alpha=0.2, lw=0)


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _over_epochs(study: Study, palette: dict[str, str], metric: str, title: str, name: str) -> Drawn | None:
    bands = {model_label(c.setting): band(c, study.curves, metric) for c in study.best_per_model}
    shown = {model: found for model, found in bands.items() if found is not None}
    if not shown:
        return None
    figure, axes = drawing.new_figure()
    for model, found in shown.items():
        highest = np.inf if metric == "train_loss" else 1.0
        _plot(axes, found, color=palette[model], label=drawing.short(model), highest=highest)
    axes.set_title(title)
    _epoch_axis(axes)
    if metric != "train_loss":
        drawing.percent_axis(axes)
        axes.set_ylabel("%" if metric.removeprefix("dev_") in SHARES else "× 100")
    else:
        axes.set_ylabel(_loss_unit(study))
    published = ""
    if metric == "dev_accuracy" and study.is_sst2 and study.curve_split == "dev":
        _references(axes)
        published = " Dashed: published figures, not run here."
    drawing.legend(figure)
    models = "; ".join(c.label for c in study.best_per_model if model_label(c.setting) in shown)
    caption = f"{title}, the best configuration of each model ({models}). {_spread_words(study)}.{published}"
    return drawing.save(figure, name, caption)


def _loss_unit(study: Study) -> str:
    is_regression = any(c.setting("num_classes") == 1 for c in study.configurations)
    return "squared error" if is_regression else "cross entropy, nats"


def _references(axes: Axes) -> None:
    """Mark published figures; the axis grows to include them."""
    low, high = axes.get_ylim()
    known = [r.accuracy for r in REFERENCES]
    axes.set_ylim(min(low, min(known) - 0.005), max(high, max(known) + 0.005))
    drawing.label_lines(
        axes, [(r.accuracy, f"{r.short} {formatting.percent(r.accuracy, r.digits)}") for r in REFERENCES]
    )


def _losses(study: Study, configuration: Configuration, name: str) -> Drawn | None:
    train, dev = (band(configuration, study.curves, metric) for metric in ("train_loss", "dev_loss"))
    if train is None or dev is None:
        return None
    figure, axes = drawing.new_figure()
    _plot(axes, train, color=drawing.PALETTE[0], label="training (dropout on)")
    _plot(axes, dev, color=drawing.PALETTE[1], label=study.curves_on, line="--")
    axes.set_title(f"Losses of {drawing.short(model_label(configuration.setting))}")
    axes.set_ylabel(_loss_unit(study))
    axes.set_ylim(0, 1.05 * axes.dataLim.y1)
    _epoch_axis(axes)
    drawing.legend(figure)
    return drawing.save(
        figure,
        name,
        f"Training loss against loss on {study.curves_on} of {configuration.label}. {_spread_words(study)}.",
    )


def _together(study: Study, configuration: Configuration, name: str) -> Drawn | None:
    metrics = {"dev_accuracy": "accuracy", "dev_f1": "F1", "dev_precision": "precision", "dev_recall": "recall"}
    found = {word: band(configuration, study.curves, metric) for metric, word in metrics.items()}
    shown = {word: one for word, one in found.items() if one is not None and np.isfinite(one.mean).all()}
    if len(shown) < 2:
        return None
    figure, axes = drawing.new_figure()
    for i, (word, one) in enumerate(shown.items()):
        _plot(axes, one, color=drawing.PALETTE[i], label=word, line=_LINES[i], highest=1.0)
    axes.set_title(f"Metrics of {drawing.short(model_label(configuration.setting))}")
    drawing.percent_axis(axes)
    axes.set_ylabel("%")
    _epoch_axis(axes)
    drawing.legend(figure)
    return drawing.save(
        figure,
        name,
        f"Accuracy and, of the positive class, F1, precision and recall of {configuration.label} on {study.curves_on}. "
        f"{_spread_words(study)}.",
    )
