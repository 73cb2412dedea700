"""The end of a sweep: where it stands, dev scored for the chosen, the few models that stay, the ranking in words."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from sst2_ray import formatting
from sst2_ray.config.metrics import oriented, worst
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.analysis import leaderboard, limits, verdict
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.analysis.goodput import Goodput, read_goodput
from sst2_ray.results.analysis.ranking import Configuration, RankedGroup, Run
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.storage import Storage
from sst2_ray.terminal import print_line
from sst2_ray.training.names import EXPORT_FOLDER, LAST_EXPORT_FOLDER


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The state of a sweep, from the table alone."""

    experiment: str
    study: Study | None
    """Findings; None: no trial has a row yet."""
    counts: Mapping[str, int]
    """Trials by status."""
    failures: Mapping[str, int]
    """Failed trials by class."""
    goodput: Goodput
    """Time of all trials."""

    @property
    def ranking(self) -> RankedGroup | None:
        """The ranking of the configurations."""
        return self.study.main if self.study else None

    @property
    def best(self) -> Configuration | None:
        """The first of the ranking."""
        return self.ranking.best if self.ranking else None

    @property
    def num_failed(self) -> int:
        """Trials that failed or were lost."""
        return self.counts.get(Status.FAILED, 0) + self.counts.get(Status.LOST, 0)


def standing(table: ResultsTable, config: SweepConfig) -> Standing:
    """Read, rank and compare. A sweep has one set of evaluation sentences, so one study."""
    experiment = config.name
    trials = table.read("trials", experiment=experiment, attempts="latest")
    rows = trials.select(["status", "failure_class"]).to_pylist()
    found = studies(table, trials, margin=config.margin / 100)
    return Standing(
        experiment=experiment,
        study=found[0] if found else None,
        counts=Counter(row["status"] for row in rows),
        failures=Counter(str(row["failure_class"]) for row in rows if row["status"] in (Status.FAILED, Status.LOST)),
        goodput=read_goodput(table, experiment),
    )


def best_run(ranking: RankedGroup, configuration: Configuration) -> Run:
    """Return the run of a configuration that is best by what it is ranked by; ties go to the first seed."""
    metric = ranking.chosen_by

    def order(run: Run) -> tuple[float, int]:
        value = run.values[ranking.metric]
        return worst(metric) if value is None else oriented(metric, value), -(run.seed or 0)

    return max(configuration.runs, key=order)


# ---- what is shown


def show(out: Console, now: Standing, *, num_not_run: int = 0) -> None:
    """Print the table of configurations, the verdict in words, what was not measured, what failed.

    While trials are yet to run, what lies beyond the best is no advice: they may be it.
    """
    if now.study is None:
        out.print("no trial has ended yet")
        return
    board, whole = leaderboard.of_study(now.study), "sst2-ray results --wide"
    leaderboard.print_table(board, out, title=now.experiment, ranked=True, limit=0, whole=whole)
    study = dataclasses.replace(now.study, edges=()) if num_not_run else now.study
    for sentence in verdict.sentences(study):
        print_line(out, sentence, highlight=False)
    for sentence in limits.not_measured(now.study):
        print_line(out, f"note: {sentence}", highlight=False, style="dim")
    print_line(out, counts_sentence(now, num_not_run=num_not_run), highlight=False)


def counts_sentence(now: Standing, *, num_not_run: int = 0) -> str:
    """Count the trials in words: 24 trials: 20 succeeded, 2 failed (1 non_finite, 1 out_of_memory), 2 not run yet."""
    parts = []
    for status in (Status.SUCCEEDED, Status.EARLY_STOPPED, Status.STOPPED, Status.RUNNING):
        if now.counts.get(status):
            parts.append(f"{now.counts[status]} {status.replace('_', ' ')}")
    if now.num_failed:
        classes = ", ".join(f"{count} {name}" for name, count in sorted(now.failures.items()))
        parts.append(f"{now.num_failed} failed ({classes})")
    if num_not_run:
        parts.append(f"{num_not_run} not run yet")
    return f"{formatting.count(sum(now.counts.values()) + num_not_run, 'trial')}: {', '.join(parts) or 'none'}."


# ---- the models that stay


def keep_best_models(table: ResultsTable, sweep: Storage, now: Standing, *, keep: int) -> int:
    """Delete the exports of all but the best run of each of the `keep` best configurations, and Ray's bookkeeping.

    Returns how many were deleted; their rows no longer name an export.
    """
    if now.ranking is None:
        return 0
    kept = {best_run(now.ranking, c).trial_id for c in now.ranking.configurations[:keep]}
    records: Sequence[TrialRecord] = table.records("trials", experiment=now.experiment, attempts="latest")
    gone = []
    for record in records:
        run = sweep.child(record.trial_id)
        run.delete("ray")
        run.delete(LAST_EXPORT_FOLDER)
        if record.trial_id not in kept and record.export_path is not None:
            run.delete(EXPORT_FOLDER)
            gone.append(dataclasses.replace(record, export_path=None, written_at=_now()))
    if gone:
        table.write("trials", gone)
    return len(gone)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
