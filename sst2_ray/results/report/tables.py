"""Report tables: the text of every cell and its sort key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES, shown
from sst2_ray.records import Status
from sst2_ray.results.analysis import leaderboard, wording
from sst2_ray.results.analysis.comparison import Comparison, Verdict
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.head_to_head import Moment
from sst2_ray.results.analysis.published import REFERENCES
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.analysis.verdict import METRIC_WORDS
from sst2_ray.statistics import power
from sst2_ray.statistics.scores import Summary

MAX_CONFIGURATIONS = 200
_LONG = 44  # characters; longer cells may break into lines


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A table cell."""

    text: str
    sort: float | str | None = None
    """Sort key; None: the text."""
    kind: str = ""
    """CSS class: num, long, win, tie, unknown, best, right or wrong."""


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A sortable table."""

    columns: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""
    """Text below the table."""


def number_cell(value: float | None, show: Callable[[float | None], str]) -> Cell:
    """Format a number with `show`; a missing one sorts last."""
    return Cell(text=show(value), sort=value if value is not None else float("-inf"), kind="num")


def text_cell(value: object) -> Cell:
    """Format plain text, nothing as a dash."""
    shown = formatting.NONE if value in (None, "") else str(value)
    return Cell(text=shown, kind="long" if len(shown) > _LONG else "")


def summary_cell(summary: Summary | None, metric: str = "accuracy") -> Cell:
    """Format a score with its standard deviation."""
    if summary is None:
        return number_cell(None, formatting.percent)
    if metric not in SHARES:
        spread = f" ± {summary.sd:.4f}" if summary.sd is not None else ""
        return Cell(text=f"{summary.mean:.4f}{spread}", sort=summary.mean, kind="num")
    spread = f" ± {formatting.percent(summary.sd)}" if summary.sd is not None else ""
    return Cell(text=f"{formatting.percent(summary.mean)}{spread}", sort=summary.mean, kind="num")


def interval_cell(low: float | None, high: float | None, metric: str = "accuracy") -> Cell:
    """Format the interval of a score."""
    if low is None or high is None:
        return number_cell(None, formatting.percent)
    ends = [shown(metric, value).removesuffix(" %") for value in (low, high)]
    return Cell(text=f"{ends[0]} – {ends[1]}", sort=low, kind="num")


def _mean_cell(configuration: Configuration, column: str, show: Callable[[float | None], str]) -> Cell:
    summary = configuration.summary(column)
    return number_cell(summary.mean if summary else None, show)


def verdict_cell(comparison: Comparison | None) -> Cell:
    """Format a verdict; a win names the winner's model."""
    if comparison is None:
        return Cell(text=formatting.NONE)
    if comparison.winner is not None:
        return Cell(text=f"{model_label(comparison.winner.setting)} wins", kind="win")
    return Cell(text=str(comparison.verdict), kind="tie" if comparison.verdict is Verdict.TIE else "unknown")


def best_per_model(study: Study) -> PageTable:
    """Compare the best configuration of each model with the best of all."""
    rows, by = [], study.main.chosen_by if study.main else "accuracy"
    other = by != "accuracy"
    for c, comparison in zip(study.best_per_model, study.against_best, strict=True):
        estimate = study.on_dev.estimate(c, by)
        first = c is study.best_per_model[0]
        verdict = Cell(text="best", kind="best") if first else verdict_cell(comparison)
        rows.append(
            [
                text_cell(model_label(c.setting)),
                verdict,
                number_cell(c.setting("learning_rate"), formatting.learning_rate),
                number_cell(c.setting("batch_size"), formatting.number),
                number_cell(len(c.runs), formatting.number),
                summary_cell(c.summary("selection_score"), by) if other else Cell(text=formatting.NONE),
                summary_cell(c.summary("best_score"), by) if other else Cell(text=formatting.NONE),
                summary_cell(c.summary("selection_accuracy")),
                summary_cell(c.summary("best_dev_accuracy")),
                interval_cell(estimate.interval.low, estimate.interval.high, by)
                if estimate
                else interval_cell(None, None),
                summary_cell(c.summary("last_dev_accuracy")),
                _mean_cell(c, "best_dev_f1", formatting.percent),
                _mean_cell(c, "best_dev_loss", formatting.number),
                _mean_cell(c, "best_epoch", formatting.number),
                _mean_cell(c, "examples_per_sec", formatting.number),
                _mean_cell(c, "seconds", formatting.duration),
                _mean_cell(c, "cost_usd", formatting.dollars),
            ]
        )
    columns = (
        "model", "against the best", "learning rate", "batch", "seeds", f"held-out {score_title(by)}",
        f"dev {score_title(by)}", "held-out accuracy, %", "dev accuracy, %",
        _interval_title(by), "at the last epoch, %", "F1, %", "loss", "best epoch", "examples/s", "time a run", "cost a run",
    )  # fmt: skip
    shown, rows = without_empty(columns, rows)
    return PageTable(
        columns=shown,
        rows=rows,
        note=f"± is the standard deviation over seeds. {_interval_note([len(c.runs) for c in study.best_per_model])}",
    )


def score_title(metric: str) -> str:
    """Return the title of a column of scores."""
    return METRIC_NAMES[metric] + (", %" if metric in SHARES else "")


def _interval_note(seeds: Sequence[int]) -> str:
    return wording.OF_ONE_SEED if 1 in seeds else "Intervals are for new seeds and new sentences."


def _interval_title(metric: str) -> str:
    return "95 % interval" if metric == "accuracy" else f"95 % interval of {METRIC_NAMES[metric]}"


def without_empty(columns: Sequence[str], rows: list[list[Cell]]) -> tuple[tuple[str, ...], list[list[Cell]]]:
    """Drop the columns that are empty in every row."""
    kept = [i for i in range(len(columns)) if any(row[i].text != formatting.NONE for row in rows)]
    return tuple(columns[i] for i in kept), [[row[i] for i in kept] for row in rows]


_LEVEL: dict[str, Callable[[float | None], str]] = {
    **dict.fromkeys(
        ("loss", "mcc", "auroc", "pearson", "spearman"), lambda v: formatting.NONE if v is None else f"{v:.3f}"
    ),
    "seconds": formatting.duration,
    "epoch": lambda v: formatting.NONE if v is None else f"{v:.3g}",
}
"""Formats of metrics that are not shares."""


def moment(found: Moment, names: tuple[str, str]) -> PageTable:
    """Compare accuracy, F1, loss and speed of two configurations at one moment."""
    rows = []
    for row in found.rows:
        level, c = _LEVEL.get(row.metric, formatting.percent), row.comparison
        estimate = c.estimate if c else None
        gap = row.mean_a - row.mean_b
        difference = formatting.NONE if c is None else wording.difference(gap, row.metric)
        rows.append(
            [
                text_cell(METRIC_WORDS[row.metric] + ("" if row.metric in _LEVEL else ", %")),
                number_cell(row.mean_a, level),
                number_cell(row.mean_b, level),
                Cell(text=difference, sort=gap, kind="num"),
                Cell(
                    text=wording.span(estimate, row.metric).split("interval ")[1] if estimate else formatting.NONE,
                    kind="num",
                ),
                verdict_cell(c),
                text_cell(wording.verdict(c, names) if c else ""),
            ]
        )
    note = wording.contradiction([row.comparison for row in found.rows if row.comparison])
    return PageTable(columns=("", *names, "difference", "95 % interval", "verdict", "why"), rows=rows, note=note)


def uncertainty(study: Study) -> PageTable:
    """Split the variance of each difference between models, and show what twice the seeds or sentences would detect."""
    rows = []
    for c in study.comparisons:
        if c.estimate is None or not c.estimate.covers_seeds or not power.knows_noise(c.estimate):
            continue
        e, names = c.estimate, [model_label(one.setting) for one in (c.a, c.b)]
        seeds = len(e.num_seeds) / sum(1 / n for n in e.num_seeds)  # harmonic mean
        designs = ((seeds, e.num_sentences), (2 * seeds, e.num_sentences), (seeds, 2 * e.num_sentences))
        smallest = [power.planned_difference(e, *design) for design in designs]
        rows.append(
            [
                text_cell(" against ".join(names)),
                *(number_cell(share, lambda v: f"{100 * v:.0f} %") for share in power.variance_shares(e)),  # type: ignore[operator]
                *(
                    Cell(text=wording.difference(value, c.metric, sign=False), sort=value, kind="num")
                    for value in smallest
                ),
            ]
        )
    return PageTable(
        columns=(
            "difference", "variance: sentences", "runs as a whole", "a run on single sentences", "detects", "with twice the seeds",
            "with twice the sentences",
        ),
        rows=rows,
        note="Where the variance of a difference comes from, and the true difference that is detected in four of five studies, as "
        "it was run and with more seeds or sentences.",
    )  # fmt: skip


def references(study: Study) -> PageTable:
    """List published figures beside the best that was measured."""
    best = study.main.best.summary("best_dev_accuracy") if study.main else None
    rows = [
        [
            text_cell(r.name),
            number_cell(r.accuracy, lambda v, digits=r.digits: formatting.percent(v, digits)),  # type: ignore[misc]
            Cell(text=formatting.points(best.mean - r.accuracy) if best else formatting.NONE, kind="num"),
            text_cell(r.source),
        ]
        for r in REFERENCES
    ]
    return PageTable(columns=("published figure", "accuracy, %", "best here minus it, points", "what it is"), rows=rows)


def configurations(study: Study) -> PageTable:
    """Show the leaderboard of a study."""
    board = leaderboard.of_study(study)
    possible = {c.configuration_id for c in study.bests.configurations} if study.bests else set()
    other_axes = [axis for axis in study.axes if axis not in ("learning_rate", "batch_size")]
    rows, by = [], study.main.chosen_by if study.main else "accuracy"
    for r in board.slice(0, MAX_CONFIGURATIONS).to_pylist():
        sd = f" ± {formatting.percent(r['accuracy_sd'])}" if r["accuracy_sd"] else ""
        accuracy = f"{formatting.percent(r['accuracy'])}{sd}"
        rows.append(
            [
                number_cell(r["rank"], formatting.number),
                text_cell(model_label(r.get)),
                number_cell(r["learning_rate"], formatting.learning_rate),
                number_cell(r["batch_size"], formatting.number),
                *(number_cell(r[axis], _general) for axis in other_axes),
                number_cell(r["seeds"], formatting.number),
                *leaderboard_scores(r, by),
                number_cell(r["selection_accuracy"], formatting.percent),
                Cell(text=accuracy, sort=r["accuracy"] if r["accuracy"] is not None else float("-inf"), kind="num"),
                interval_cell(r["low"], r["high"], by),
                text_cell("may be the best" if r["configuration"] in possible else ""),
                number_cell(r["last_accuracy"], formatting.percent),
                number_cell(r["f1"], formatting.percent),
                number_cell(r["examples_per_sec"], formatting.number),
                number_cell(r["seconds"], formatting.duration),
                number_cell(r["cost_usd"], formatting.dollars),
                text_cell(_statuses(r)),
            ]
        )
    columns, rows = without_empty(
        (
            "#", "model", "learning rate", "batch", *(axis.replace("_", " ") for axis in other_axes), "seeds",
            f"held-out {score_title(by)}", f"dev {score_title(by)}", "held-out accuracy, %", "dev accuracy, %",
            _interval_title(by), "with 95 % confidence", "last epoch, %", "F1, %", "examples/s", "time", "cost", "trials",
        ),
        rows,
    )  # fmt: skip
    note = _interval_note(board.column("seeds").to_pylist())
    if any(board.column("collapsed").to_pylist()):
        note += f" {leaderboard.COLLAPSED[0].upper()}{leaderboard.COLLAPSED[1:]}"
    if len(rows) < board.num_rows:
        note += f" The first {len(rows)} of {board.num_rows}."
    return PageTable(columns=columns, rows=rows, note=note)


def leaderboard_scores(row: leaderboard.Row, metric: str) -> tuple[Cell, Cell]:
    """Format the scores of a row of the leaderboard in another metric than accuracy: on the held-out part of train, on dev."""
    if metric == "accuracy":
        return Cell(text=formatting.NONE), Cell(text=formatting.NONE)

    def show(value: float | None) -> str:
        return shown(metric, value).removesuffix(" %")

    return number_cell(row["selection_score"], show), number_cell(row["best_score"], show)


def _general(value: float | None) -> str:
    return formatting.NONE if value is None else f"{value:g}"


def _statuses(row: leaderboard.Row) -> str:
    states = (Status.SUCCEEDED, Status.FAILED, Status.STOPPED, Status.LOST, Status.RUNNING)
    collapsed = f" ({row['collapsed']} collapsed)" if row["collapsed"] else ""
    return ", ".join(f"{row[s]} {s}" for s in states if row[s]) + collapsed
