"""The report: one self-contained HTML page, and its figures as PNG, SVG and PDF, from the results table alone."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
import pyarrow as pa
from markupsafe import Markup, escape

from sst2_ray import formatting
from sst2_ray.errors import InputError
from sst2_ray.records import Status
from sst2_ray.results.analysis import errors as errors_found
from sst2_ray.results.analysis import limits, verdict
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.analysis.head_to_head import Moment
from sst2_ray.results.analysis.ranking import model_label
from sst2_ray.results.margin import margin_points
from sst2_ray.results.report import answer_tables, drawing, figures_curves, figures_runs, figures_sweep
from sst2_ray.results.report import run_tables as report_runs
from sst2_ray.results.report import tables as report_tables
from sst2_ray.results.report.drawing import Drawn
from sst2_ray.results.store.dedup import latest_attempts, with_totals
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.storage import Storage
from sst2_ray.version import __version__

PAGE = "report.html"
_FIGURE_NAME = re.compile(r"\d\d-[a-z0-9-]+\.(png|svg|pdf)")
MAX_STUDIES = 6


@dataclass(frozen=True, kw_only=True)
class Report:
    """A page and its figures, not yet written."""

    html: str
    figures: tuple[Drawn, ...]
    headlines: tuple[str, ...]
    """Of each study; where there are several, behind the sweeps and runs that it is of."""


def build(
    table: ResultsTable, *, experiment: str | None = None, notes: Sequence[str] = (), margin: float | None = None
) -> Report:
    """Read the table and lay out the page.

    Args:
        experiment: only this run or sweep.
        notes: further lines for its head, e.g. about skipped files.
        margin: points of accuracy that count as no difference; None: what the sweeps were given.

    Raises InputError when there is no trial to report.
    """
    every_attempt = table.read("trials", experiment=experiment)
    trials = with_totals(latest_attempts("trials", every_attempt), every_attempt)
    if not trials.num_rows:
        if experiment is not None:
            table.check_experiment(experiment)
        raise InputError(f"no trial in {table.location}")
    points = margin or margin_points([(table.storage_path, trials.column("experiment").to_pylist())])
    found = studies(table, trials, margin=points / 100)
    figures: list[Drawn] = []
    with drawing.style():
        parts = [_study_part(study, len(found) > 1, figures) for study in found[:MAX_STUDIES]]
    left_out = [f"{study.title} ({report_runs.experiments(study.trials)})" for study in found[MAX_STUDIES:]]
    html = _template().render(
        title=f"sst2-ray: {experiment or table.location}",
        location=table.location,
        generated=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        margin=f"{points:g}",
        counts=_counts(trials, found, every_attempt),
        notes=[*notes, *([f"Evaluated on other data and left out: {formatting.join(left_out)}."] if left_out else [])],
        studies=parts,
        several=len(parts) > 1,
        runs=_runs_part(trials),
        css=_file("report.css"),
        js=_file("report.js"),
    )
    return Report(html=html, figures=tuple(figures), headlines=tuple(_headline(part) for part in parts))


def write(report: Report, out: str) -> str:
    """Write `report.html` and `figures/` to a folder or a URI, replacing an older report, and return the page's path.

    Raises InputError when it cannot be written.
    """
    storage = Storage.open(out, "--out")
    try:
        written = set()
        for figure in report.figures:
            for suffix, data in (("png", figure.png), ("svg", figure.svg), ("pdf", figure.pdf)):
                written.add(f"{figure.name}.{suffix}")
                storage.write_bytes(f"figures/{figure.name}.{suffix}", data)
        # Left-over figures of an older report would pass for this one's.
        for name in storage.list("figures"):
            if name not in written and _FIGURE_NAME.fullmatch(name):
                storage.delete(f"figures/{name}")
        storage.write_bytes(PAGE, report.html.encode())
    except OSError as error:
        raise InputError(
            f"--out {formatting.without_secret(out)}: cannot be written ({str(error).splitlines()[0]}); choose another folder"
        ) from None
    return f"{formatting.without_secret(out).split('?')[0].rstrip('/')}/{PAGE}"


def _file(name: str) -> str:
    return resources.files("sst2_ray.results.report").joinpath(name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["unbroken"] = _unbroken
    return environment.get_template("report.html.j2")


def _unbroken(words: str) -> Markup:
    """Keep numbers such as 8e-5 from breaking at their hyphen."""
    return Markup(re.sub(r"\d[\d.]*e-\d+", r'<span class="nb">\g<0></span>', str(escape(words))))  # nosec B704: escaped


def _counts(trials: pa.Table, found: Sequence[Study], every_attempt: pa.Table) -> list[tuple[str, str]]:
    succeeded = trials.column("status").to_pylist().count(Status.SUCCEEDED)
    cost = [value for value in every_attempt.column("cost_usd").to_pylist() if value is not None]
    seconds = [value for value in every_attempt.column("seconds").to_pylist() if value is not None]
    num_experiments = len(set(trials.column("experiment").to_pylist()))
    num_configurations = sum(len(study.configurations) for study in found)
    counts = [
        (formatting.number(num_experiments), "experiment" if num_experiments == 1 else "experiments"),
        (formatting.number(trials.num_rows), "trial" if trials.num_rows == 1 else "trials"),
        (formatting.number(succeeded), Status.SUCCEEDED),
        (formatting.number(num_configurations), f"configuration{'' if num_configurations == 1 else 's'} with a result"),
        (formatting.duration(sum(seconds)), "of runs in all"),
    ]
    if cost:
        counts.append((formatting.dollars(sum(cost)), "in all"))
    if every_attempt.num_rows > trials.num_rows:
        num_restarts = every_attempt.num_rows - trials.num_rows
        counts.append((formatting.number(num_restarts), "restart" if num_restarts == 1 else "restarts"))
    return counts


def _study_part(study: Study, several: bool, figures: list[Drawn]) -> dict[str, object]:
    """Collect what the template shows of one study; its figures are numbered and appended to `figures`."""
    errors = errors_found.analyze(study)
    curves, sweep = figures_curves.draw(study), figures_sweep.draw(study)
    single = {
        "reference_figure": figures_runs.references(study, "beside-published-figures"),
        "calibration_figure": figures_runs.calibration(errors.models, "calibration") if errors else None,
        "time_figure": figures_runs.time_spent(study, "where-the-time-went"),
    }
    drawn = [*curves, *sweep, *(f for f in single.values() if f is not None)]
    named = {id(f): drawing.renamed(f, f"{len(figures) + i:02d}-{f.name}") for i, f in enumerate(drawn, start=1)}
    figures.extend(named.values())
    return {
        "title": study.title if several else None,
        "on": study.title,
        "of": report_runs.experiments(study.trials),
        "headline": verdict.headline(study),
        "sentences": verdict.sentences(study),
        "not_measured": limits.not_measured(study),
        "best_per_model": report_tables.best_per_model(study) if study.best_per_model else None,
        "uncertainty": report_tables.uncertainty(study),
        "moments": _moments_part(study),
        "references": report_tables.references(study) if single["reference_figure"] else None,
        "configurations": report_tables.configurations(study),
        "errors": _errors_part(errors) if errors else None,
        "is_values": any(sample.is_values for sample in study.on_dev.samples.values()),
        "curves": [named[id(f)] for f in curves],
        "has_single_points": bool(study.curves) and not figures_curves.has_curves(study),
        "sweep": [named[id(f)] for f in sweep],
        **{name: named[id(f)] if f is not None else None for name, f in single.items()},
    }


def _headline(part: dict[str, object]) -> str:
    return str(part["headline"]) if part["title"] is None else f"{part['on']}, {part['of']}: {part['headline']}"


def _moments_part(study: Study) -> list[tuple[Moment, report_tables.PageTable]]:
    duel = study.head_to_head
    if duel is None:
        return []
    names = model_label(duel.modernbert.setting), model_label(duel.sbert.setting)
    return [(moment, report_tables.moment(moment, names)) for moment in duel.moments]


def _errors_part(errors: errors_found.ErrorAnalysis) -> dict[str, object]:
    names = [model.name for model in errors.models]
    return {
        "best": names[0],
        "names": names,
        "num_rows": len(errors.models[0].row_id),
        "num_wrong": errors.num_wrong,
        "classes": answer_tables.classes(errors.models[0]),
        "wrong": answer_tables.sentences(errors.wrong, names, errors.class_names),
        "agreement": answer_tables.agreement(errors) if errors.agreement else None,
        "num_disagreements": errors.num_disagreements,
        "disagreements": answer_tables.sentences(errors.disagreements, names[:2], errors.class_names)
        if errors.disagreements
        else None,
    }


def _runs_part(trials: pa.Table) -> dict[str, object]:
    succeeded = Status.SUCCEEDED in trials.column("status").to_pylist()
    return {
        "statuses": report_runs.statuses(trials),
        "failures": report_runs.failures(trials),
        "resources": report_runs.resources(trials) if succeeded else None,
        "provenance": report_runs.provenance(trials),
        "trials": report_runs.trials_table(trials),
        "num_trials": trials.num_rows,
    }
