"""`sst2-ray compare A B`: whether the difference is real, as a table, JSON, Markdown or LaTeX; and `sst2-ray power`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.config.fields import Positional, Positive, RunName
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError
from sst2_ray.results.analysis import methods, wording
from sst2_ray.results.analysis.compared import Compared, Difference, compare_sides
from sst2_ray.results.analysis.settings import difference_of_settings
from sst2_ray.results.analysis.sides import find_side
from sst2_ray.results.compare_words import cells, headings, names_of, sentences
from sst2_ray.results.margin import margin_points
from sst2_ray.statistics import power
from sst2_ray.tables import Column, Tabular, print_table
from sst2_ray.terminal import busy, console, print_line


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare two configurations, runs, models, sweeps or files of predictions on the same sentences."""

    a: Positional[RunName]
    """A configuration id, a run (SWEEP/TRIAL or its name), a model or a sweep (its best), or a file with the columns row_id,
    label, prediction (and seed, probability, text)."""
    b: Positional[RunName]
    """The other one."""
    storage_path: str = "runs"
    """Folder or URI whose subfolder `results` holds the table."""
    other_storage_path: str | None = None
    """Storage path of B; None: the same."""
    experiment: RunName | None = None
    """Only this run or sweep, on both sides; None: all of them."""
    margin: Positive[float] | None = None
    """Points of accuracy that count as no difference (a point of MCC or a correlation is 0.02); None: what the sweeps were
    given (`sweep --margin`), else 0.5."""
    sentences: int = 10
    """Sentences shown on which the two differ."""
    json: bool = False
    """Print JSON."""
    markdown: bool = False
    """Print Markdown."""
    latex: bool = False
    """Print LaTeX (booktabs)."""

    def __post_init__(self) -> None:
        if sum((self.json, self.markdown, self.latex)) > 1:
            raise InputError("--json, --markdown, --latex: choose one")


def to_json(found: Compared, num_sentences: int) -> dict[str, object]:
    """Return everything as plain values."""
    metrics = {}
    for c, scores in zip(found.comparisons, found.scores, strict=True):
        e = c.estimate
        metrics[c.metric] = {
            "a": scores[0],
            "b": scores[1],
            "verdict": str(c.verdict),
            "winner": None if c.winner is None else "a" if c.winner is c.a else "b",
            "margin": c.margin,
            "p_value": c.p_value,
            "why": wording.verdict(c, names_of(found)),
            **({} if e is None else {"difference": e.value, "standard_error": e.standard_error, "degrees_of_freedom": e.degrees_of_freedom,
                "low": e.interval.low, "high": e.interval.high, "level": e.interval.level, "covers_seeds": e.covers_seeds,
                "num_seeds": list(e.num_seeds), "num_sentences": e.num_sentences,
                "variance_shares": dict(zip(("sentences", "seeds", "both"), power.variance_shares(e), strict=True))}),
        }  # fmt: skip
    return {
        "a": {"name": found.a.name, "configuration": found.a.configuration.label, "chosen": found.a.chosen},
        "b": {"name": found.b.name, "configuration": found.b.configuration.label, "chosen": found.b.chosen},
        "settings": difference_of_settings(found.a.configuration, found.b.configuration),
        "decided_by": found.decided_by,
        "metrics": metrics,
        "mcnemar_p": found.mcnemar_p,
        "num_sentences_that_differ": len(found.differences),
        "sentences": [dataclasses.asdict(d) for d in found.differences[:num_sentences]],
        "methods": methods.paragraph(found.comparisons),
        "references": methods.references(),
    }


def to_markdown(found: Compared) -> str:
    """Render table, verdict and methods as Markdown."""
    names = names_of(found)
    heads = ("", *names, "difference", "95 % interval", "verdict")
    lines = [heads, ("---", *["---:"] * 4, "---"), *cells(found, names)]
    table = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
    listed = "\n".join(f"- {reference}" for reference in methods.references())
    return "\n\n".join(
        [table, *sentences(found, names), f"**Methods.** {methods.paragraph(found.comparisons)}", listed]
    )


def to_latex(found: Compared) -> str:
    """Render table and methods as LaTeX; the table needs the package booktabs."""
    names = names_of(found)
    heads = ("", *names, "difference", r"95\,\% interval", "verdict")
    body = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in cells(found, names)]
    return "\n".join(
        [
            r"\begin{tabular}{lrrrrl}",
            r"\toprule",
            " & ".join(_escaped(h) if i != 4 else h for i, h in enumerate(heads)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            *(_escaped(s) for s in sentences(found, names)),
            "",
            rf"\paragraph{{Methods.}} {_escaped(methods.paragraph(found.comparisons))}",
            "",
            *(f"% {reference}" for reference in methods.references()),
        ]
    )


def _escaped(text: str) -> str:
    table = {"\\": r"\textbackslash{}", "−": "$-$", "±": r"$\pm$", "–": "--", **{c: f"\\{c}" for c in "&%$#_{}"}}
    return "".join(table.get(c, c) for c in text.replace("--", "-\0-")).replace("\0", "{}")  # "--" is a dash


@dataclass(frozen=True, kw_only=True, repr=False)
class CompareResult(Tabular):
    """The comparison of two sides: a table of every metric, and the verdict in words."""

    compared: Compared

    @property
    def verdict(self) -> str:
        """win, tie or not decided, in the metric that both sides were chosen by (`compared.decided_by`)."""
        return str(self.compared.comparisons[0].verdict)

    @property
    def winner(self) -> str | None:
        """Name of the side that wins; None unless one does."""
        c = self.compared.comparisons[0]
        return None if c.winner is None else self.compared.names[0 if c.winner is c.a else 1]

    def table(self) -> tuple[Sequence[Column], Sequence[Sequence[str]]]:
        """Return a row for each metric: both scores, difference, interval and verdict."""
        columns = [Column(title="", align="left"), *(Column(title=name) for name in headings(self.compared))]
        columns += [
            Column(title="difference"),
            Column(title="95 % interval", min_width=len("+15.54 to")),
            Column(title="verdict", align="left", rank=2),  # stands in the sentence below as well
        ]
        return columns, cells(self.compared, headings(self.compared))

    def notes(self) -> Sequence[str]:
        """Return the verdict and what it rests on."""
        return sentences(self.compared, headings(self.compared))

    def to_dict(self, num_sentences: int = 10) -> dict[str, object]:
        """Return everything as plain values, as `--json` prints it; of the sentences that differ, the first so many."""
        return to_json(self.compared, num_sentences)

    def to_markdown(self) -> str:
        """Render table, verdict and methods as Markdown."""
        return to_markdown(self.compared)

    def to_latex(self) -> str:
        """Render table, verdict and methods as LaTeX (booktabs)."""
        return to_latex(self.compared)


def compared(config: CompareConfig) -> Compared:
    """Find both sides and compare them. Raises InputError."""
    other = config.other_storage_path or config.storage_path
    a, b = (find_side(name, at, config.experiment) for name, at in ((config.a, config.storage_path), (config.b, other)))
    experiments = [[run.experiment for run in side.configuration.runs] for side in (a, b)]
    ids_a, ids_b = ({(side.origin, run.experiment, run.trial_id) for run in side.configuration.runs} for side in (a, b))
    if ids_a & ids_b:
        what = "are the same" if ids_a == ids_b else f"share {formatting.count(len(ids_a & ids_b), 'run')}"
        raise InputError(f"{config.a} and {config.b} {what}; name two different sides")
    margin = config.margin or margin_points(zip((config.storage_path, other), experiments, strict=True))
    return compare_sides(a, b, margin=margin / 100)


def main_compare(argv: list[str]) -> int:
    """Run `sst2-ray compare`."""
    config = parse(CompareConfig, argv, prog="sst2-ray compare")
    with busy(f"comparing {config.a} and {config.b}"):
        found = compared(config)
    if config.json:
        print(json.dumps(to_json(found, config.sentences), indent=1))
    elif config.markdown or config.latex:
        print(to_markdown(found) if config.markdown else to_latex(found))
    else:
        _print(found, config.sentences)
    return 0


def _print(found: Compared, num_sentences: int) -> None:
    out = console()
    CompareResult(compared=found).show(out)
    shown: Sequence[Difference] = found.differences[:num_sentences]
    if shown:
        columns = [Column(title=h) for h in ("row", "label", *headings(found))]
        columns.append(Column(title="sentence", align="left", min_width=30))
        differing = [
            (str(d.row_id), str(d.label), f"{100 * d.share_a:.0f} %", f"{100 * d.share_b:.0f} %", d.text) for d in shown
        ]
        out.print(
            f"The {len(shown)} of {len(found.differences)} sentences on which they differ most; runs that are right:"
        )
        print_table(out, columns, differing)
    print_line(out, f"Methods: {methods.paragraph(found.comparisons)}", style="dim", highlight=False)
