"""Figures of single runs: accuracy beside published figures, calibration, time by phase."""

from __future__ import annotations

import numpy as np

from sst2_ray import formatting
from sst2_ray.results.analysis.errors import ModelAnswers
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.published import REFERENCES
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.report import drawing
from sst2_ray.results.report.drawing import Drawn

PHASES = ("startup", "data", "forward", "backward", "communication", "optimizer", "evaluation", "checkpoint")


def references(study: Study, name: str) -> Drawn | None:
    """Draw the best of each model beside published figures; None on data other than SST-2 dev."""
    if not study.is_sst2 or study.main is None:
        return None
    rows = []
    for configuration in study.best_per_model:
        summary = configuration.summary("best_dev_accuracy")
        if summary is not None:
            rows.append((model_label(configuration.setting), summary, study.on_dev.estimate(configuration)))
    if not rows:
        return None
    names = [drawing.short(model) for model, _, _ in rows] + [r.name for r in REFERENCES]
    figure, axes = drawing.new_figure(width=4.7, height=0.9 + 0.32 * len(names))
    palette = drawing.colors([model for model, _, _ in rows])
    for y, (model, summary, estimate) in enumerate(rows):
        if estimate is not None:
            ends = [estimate.interval.low, estimate.interval.high]
            axes.plot(ends, [y, y], color=palette[model], linewidth=2.5, alpha=0.4)
        axes.plot(summary.mean, y, marker="o", color=palette[model], markersize=6)
        axes.annotate(
            formatting.percent(summary.mean),
            (summary.mean, y),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    for y, reference in enumerate(REFERENCES, start=len(rows)):
        axes.plot(reference.accuracy, y, marker="|", color=drawing.MUTED, markersize=11, markeredgewidth=2)
        axes.annotate(
            formatting.percent(reference.accuracy, reference.digits), (reference.accuracy, y), xytext=(7, 0), textcoords="offset points",
            va="center", fontsize=7, color=drawing.MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.grid(False, axis="y")
    drawing.percent_axis(axes, "x")
    axes.set(xlabel="SST-2 dev accuracy, %", title="Beside published figures")
    axes.margins(x=0.12)
    return drawing.save(
        figure, name, "Measured here: best configuration of each model, mean over seeds (dots) with its 95 % interval for new "
        "seeds and sentences. Published, not run here: single figures (bars).",
    )  # fmt: skip


def _calibration_words(model: ModelAnswers) -> str:
    assert model.calibration is not None
    before = f"{formatting.percent(model.uncalibrated.expected_error)} before, " if model.uncalibrated else ""
    error, floor = (formatting.percent(v) for v in (model.calibration.expected_error, model.calibration.floor))
    return f"ECE {before}{error} (floor {floor})"


def calibration(models: list[ModelAnswers], name: str) -> Drawn | None:
    """Draw accuracy against confidence; None without probabilities."""
    shown = [model for model in models if model.calibration is not None]
    if not shown:
        return None
    figure, axes = drawing.new_figure()
    axes.plot(
        [0.5, 1], [0.5, 1], color=drawing.MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="confidence = accuracy"
    )
    palette = drawing.colors([model.name for model in models])
    for model in shown:
        assert model.calibration is not None
        bins = [b for b in model.calibration.bins if b.num]
        label = f"{drawing.short(model.name)}, {_calibration_words(model)}"
        axes.plot(
            [b.confidence for b in bins],
            [b.accuracy for b in bins],
            color=palette[model.name],
            linewidth=1.2,
            label=label,
        )
        sizes = np.array([b.num for b in bins], dtype=float)
        axes.scatter(
            [b.confidence for b in bins], [b.accuracy for b in bins], s=14 + 90 * np.sqrt(sizes / sizes.sum()),
            color=palette[model.name], alpha=0.75, linewidths=0, zorder=3,
        )  # fmt: skip
    for axis in ("x", "y"):
        drawing.percent_axis(axes, axis)
    axes.set(xlabel="confidence, %", ylabel="right, %", title="Can the confidence be believed?")
    drawing.legend(figure, columns=1)  # a calibration error stands beside each name
    return drawing.save(
        figure, name, "Share of right answers by confidence, the answers of all seeds together; larger dots hold more "
        "sentences. ECE: expected calibration error, in points; floor: that of a perfectly calibrated model on so many sentences.",
    )  # fmt: skip


def _word(phase: str) -> str:
    return "start-up" if phase == "startup" else phase


def _phase_seconds(configuration: Configuration) -> tuple[str, dict[str, float], float] | None:
    """Return the model's name, its mean seconds by phase and in all; None when they were not recorded."""
    summaries = {phase: configuration.summary(f"{phase}_seconds") for phase in PHASES}
    seconds = {phase: summary.mean for phase, summary in summaries.items() if summary is not None}
    total = configuration.summary("seconds")
    if not seconds or total is None:
        return None
    seconds["other"] = max(0.0, total.mean - sum(seconds.values()))
    return model_label(configuration.setting), seconds, total.mean


def time_spent(study: Study, name: str) -> Drawn | None:
    """Draw the share of time by phase, for the best configuration of each model."""
    rows = [row for configuration in study.best_per_model if (row := _phase_seconds(configuration)) is not None]
    if not rows:
        return None
    figure, axes = drawing.new_figure(width=9.6, height=1.35 + 0.42 * len(rows))
    phases = [phase for phase in (*PHASES, "other") if any(seconds.get(phase) for _, seconds, _ in rows)]
    color_of = {phase: (*drawing.PALETTE, drawing.MUTED)[i % 9] for i, phase in enumerate((*PHASES, "other"))}
    for y, (_, seconds, whole) in enumerate(rows):
        left = 0.0
        for phase in phases:
            share = seconds.get(phase, 0.0) / whole
            axes.barh(y, share, left=left, color=color_of[phase], height=0.62, label=_word(phase) if y == 0 else None)
            if share > 0.05:
                axes.text(
                    left + share / 2, y, f"{100 * share:.0f} %", ha="center", va="center", color="#ffffff", fontsize=7
                )
            left += share
    axes.set_yticks(
        range(len(rows)), [f"{drawing.short(model)}\n{formatting.duration(whole)}" for model, _, whole in rows]
    )
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    drawing.percent_axis(axes, "x")
    axes.set(xlabel="share of a run's time, %", title="Where the time went", xlim=(0, 1))
    drawing.legend(figure, columns=5)
    return drawing.save(
        figure,
        name,
        "Where a run's time went, mean over the seeds of each model's best configuration (rank 0).",
        wide=True,
    )
