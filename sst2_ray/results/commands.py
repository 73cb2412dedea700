"""`sst2-ray results` (the leaderboard, compact, import-tune) and `sst2-ray report`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from sst2_ray import formatting, terminal
from sst2_ray.config.fields import AlsoPositional, Folder, Positional, Positive, RunName
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.results.analysis import leaderboard
from sst2_ray.results.store import compaction, import_tune
from sst2_ray.results.store.schema import KEYS
from sst2_ray.results.store.table import ResultsTable, SkippedFileWarning
from sst2_ray.terminal import busy, print_line

_PLAIN_WIDTH = 200  # of the table where no terminal says its own


@dataclass(frozen=True, kw_only=True)
class LeaderboardConfig:
    """The configurations of a results table, best first. Also: `results compact`, `results import-tune DIR`."""

    storage_path: Annotated[Folder, AlsoPositional()] = "runs"
    """Folder or URI that runs were written to; its subfolder `results` holds the table."""
    experiment: RunName | None = None
    """Only this run or sweep; None: all of them."""
    where: str | None = None
    """SQL expression over the columns of `trials` (docs/results.md): "model='modernbert-base' and batch_size>=32"."""
    sort: str | None = None
    """SQL expression over the columns of --json, e.g. "examples_per_sec desc"; None: best first."""
    limit: int = 50
    """Configurations shown in the terminal; 0: all."""
    wide: bool = False
    """Show every column, however wide the table gets."""
    csv: bool = False
    """Print CSV."""
    json: bool = False
    """Print JSON."""
    markdown: bool = False
    """Print a Markdown table."""

    def __post_init__(self) -> None:
        if sum((self.csv, self.json, self.markdown)) > 1:
            raise InputError("--csv, --json, --markdown: choose one")
        if self.limit < 0:
            raise InputError(f"--limit {self.limit}: must be 0 (all) or above")


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """Replace results/snapshot/{trials,epochs,predictions}.parquet with files that hold every record once."""

    storage_path: str = "runs"
    """Folder or URI whose subfolder `results` holds the table."""
    prune: bool = False
    """Delete the raw files whose records the new snapshot holds."""


@dataclass(frozen=True, kw_only=True)
class ImportTuneConfig:
    """Add the trials of a Ray Tune experiment that this package did not run."""

    directory: Positional[str]
    """The experiment's folder or URI (it holds a folder for each trial)."""
    storage_path: str = "runs"
    """Folder or URI whose subfolder `results` holds the table."""
    experiment: str | None = None
    """Its name in the table; None: the folder's."""
    eval_split: str | None = None
    """Data that its accuracies were measured on, e.g. "SST-2 dev"; None: not known, so it is compared with nothing else."""
    model: str | None = None
    """The model of trials whose own settings do not name one."""
    map: tuple[str, ...] = ()
    """Names that are not found by themselves, as column=name, e.g. dev_accuracy=val/acc learning_rate=optimizer/lr; a slash
    leads into nested values."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write the results as one self-contained HTML page, and its figures as PNG, SVG and PDF."""

    storage_path: Annotated[Folder, AlsoPositional()] = "runs"
    """Folder or URI that runs were written to; its subfolder `results` holds the table."""
    out: Folder = "report"
    """Folder or URI for report.html and figures/; an older report there is replaced."""
    experiment: RunName | None = None
    """Only this run or sweep; None: all of them."""
    margin: Positive[float] | None = None
    """Points of accuracy that count as no difference; None: what the sweeps were given (`sweep --margin`), else 0.5."""


def main_results(argv: list[str]) -> int:
    """`sst2-ray results [STORAGE | compact | import-tune DIR] ...`. Raises InputError."""
    commands: dict[str, Callable[[list[str]], int]] = {"compact": _compact, "import-tune": _import_tune}
    if argv and not argv[0].startswith("-") and argv != ["help"]:
        if "/" in argv[0] or Path(argv[0]).is_dir():  # a storage path
            return _leaderboard(argv)
        if argv[0] not in commands:
            raise InputError(f"results {argv[0]}: no such subcommand; {did_you_mean(argv[0], commands)}")
        return commands[argv[0]](argv[1:])
    return _leaderboard(argv)


def main_report(argv: list[str]) -> int:
    """`sst2-ray report ...`. Raises InputError."""
    config = parse(ReportConfig, argv, prog="sst2-ray report")
    table = open_table(config.storage_path)
    console, errors = _consoles()
    with skipped_files_told(errors) as notes, busy(f"reading {table.location}"):
        table.read("trials", columns=["status"])
    with warnings.catch_warnings(), busy("drawing the report"):
        warnings.simplefilter("ignore", SkippedFileWarning)
        from sst2_ray.results.report import page as report  # the other commands need no drawing library

        made = report.build(table, experiment=config.experiment, notes=notes, margin=config.margin)
        page = report.write(made, config.out)
    for headline in made.headlines:
        print_line(console, headline, style="bold", highlight=False)
    console.print(
        f"{page} ({len(made.html) / 1e6:.1f} MB), {len(made.figures)} figures beside it",
        soft_wrap=True,
        highlight=False,
    )
    return 0


def open_table(storage_path: str) -> ResultsTable:
    """Open the table below a storage path. Raises InputError when there is none."""
    table = ResultsTable(storage_path)
    if not table.exists():
        raise InputError(
            f"--storage-path {storage_path}: no results table there ({table.location} is missing or empty); "
            f"{_other_storage(storage_path) or 'give the --storage-path that the runs were started with'}"
        )
    return table


def _other_storage(storage_path: str) -> str:
    """Name the folders below a local storage path that hold a results table; empty if there is none."""
    found = sorted(
        str(path.parent) for path in Path(storage_path).glob("*/results") if ResultsTable(str(path.parent)).exists()
    )
    return f"did you mean --storage-path {' or '.join(found[:3])}?" if found else ""


@contextlib.contextmanager
def skipped_files_told(console: Console) -> Iterator[list[str]]:
    """Print each warning about a skipped file once, as one line, and collect them."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SkippedFileWarning)
        yield notes
    for warning in caught:
        if not issubclass(warning.category, SkippedFileWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif str(warning.message) not in notes:
            notes.append(str(warning.message))
            console.print(f"warning: {warning.message}", style="yellow", highlight=False, soft_wrap=True)


def _consoles() -> tuple[Console, Console]:
    return terminal.console(pipe_width=_PLAIN_WIDTH), Console(stderr=True)


def _leaderboard(argv: Sequence[str]) -> int:
    config = parse(LeaderboardConfig, argv, prog="sst2-ray results")
    table = open_table(config.storage_path)
    console, errors = _consoles()
    with skipped_files_told(errors), busy(f"reading {table.location}"):
        board = leaderboard.load(table, where=config.where, sort=config.sort, experiment=config.experiment)
    if not board.num_rows:
        _explain_nothing(table, config)
    if config.csv or config.json or config.markdown:
        render = leaderboard.to_csv if config.csv else leaderboard.to_json if config.json else leaderboard.to_markdown
        print(render(board))
        return 0
    leaderboard.print_table(
        board, console, title=table.location, ranked=config.sort is None, limit=config.limit, wide=config.wide
    )
    return 0


def _explain_nothing(table: ResultsTable, config: LeaderboardConfig) -> None:
    if config.experiment is not None:
        table.check_experiment(config.experiment)
    if config.where is not None:
        raise InputError(f"--where {config.where!r}: no trial in {table.location} matches")
    raise InputError(f"{table.location}: holds no readable trial")


def _compact(argv: Sequence[str]) -> int:
    config = parse(CompactConfig, argv, prog="sst2-ray results compact")
    table = open_table(config.storage_path)
    console, errors = _consoles()
    for dataset in KEYS:
        with skipped_files_told(errors):
            done = compaction.compact(table, dataset, prune=config.prune)
        if done is None:
            console.print(f"{dataset}: nothing to compact")
            continue
        pruned = f", {formatting.count(done.num_pruned, 'raw file')} deleted" if config.prune else ""
        console.print(
            f"{dataset}: {formatting.count(done.num_rows, 'record')} of {formatting.count(done.num_files, 'raw file')} in "
            f"{done.snapshot} ({done.num_bytes / 1e6:.1f} MB){pruned}",
            soft_wrap=True,
            highlight=False,
        )
    return 0


def _import_tune(argv: Sequence[str]) -> int:
    config = parse(ImportTuneConfig, argv, prog="sst2-ray results import-tune")
    names = import_tune.parse_names(config.map)
    found = import_tune.read_experiment(
        config.directory,
        experiment=config.experiment,
        eval_split=config.eval_split,
        model=config.model,
        names=names,
    )
    table = ResultsTable(config.storage_path)
    # Evaluations first: a reader that sees a trial also sees its curve.
    table.write("epochs", found.epochs)
    table.write("trials", found.trials)
    console, errors = _consoles()
    for note in found.notes:
        errors.print(f"warning: {note}", style="yellow", highlight=False, soft_wrap=True)
    console.print(
        f"{formatting.count(len(found.trials), 'trial')} with {formatting.count(len(found.epochs), 'evaluation')} added to "
        f"{table.location} as experiment {found.trials[0].experiment}",
        soft_wrap=True,
        highlight=False,
    )
    return 0
