"""The end of a sweep: the ranking with its verdict, dev scored for the chosen, the few models that stay."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from sst2_ray import formatting
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.analysis import leaderboard, verdict
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.analysis.ranking import Configuration, RankedGroup, Run, without_unranked_runs
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.storage import Storage
from sst2_ray.training.names import EXPORT_FOLDER, LAST_EXPORT_FOLDER


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a sweep stands, from the table alone."""

    experiment: str
    study: Study | None
    """None: no trial has a row yet."""
    counts: Mapping[str, int]
    """Trials by status."""
    failures: Mapping[str, int]
    """Failed trials by class."""

    @property
    def ranking(self) -> RankedGroup | None:
        """Of the configurations with the most seeds."""
        return self.study.main if self.study else None

    @property
    def best(self) -> Configuration | None:
        return self.ranking.best if self.ranking else None

    @property
    def num_failed(self) -> int:
        return self.counts.get(Status.FAILED, 0) + self.counts.get(Status.LOST, 0)


def standing(table: ResultsTable, experiment: str) -> Standing:
    """Read, rank and compare. A sweep has one set of evaluation sentences, so one study."""
    trials = table.read("trials", experiment=experiment, attempts="latest")
    rows = trials.select(["status", "failure_class"]).to_pylist()
    found = studies(table, trials)
    return Standing(
        experiment=experiment,
        study=found[0] if found else None,
        counts=Counter(row["status"] for row in rows),
        failures=Counter(str(row["failure_class"]) for row in rows if row["status"] in (Status.FAILED, Status.LOST)),
    )


def best_run(ranking: RankedGroup, configuration: Configuration) -> Run:
    """The run of a configuration that is best by what it is ranked by; ties to the first seed."""
    return max(configuration.runs, key=lambda run: (run.values[ranking.metric] or 0.0, -(run.seed or 0)))


def show(out: Console, now: Standing) -> None:
    """The table of configurations, the verdict in words, what was not measured, what failed."""
    if now.study is None:
        out.print("no trial has ended yet")
        return
    ranked = without_unranked_runs(now.study.trials, now.study.groups)
    leaderboard.print_table(leaderboard.rows(ranked), out, title=now.experiment, ranked=True, limit=0)
    if num_left_out := now.study.trials.num_rows - ranked.num_rows:
        left_out = formatting.count(num_left_out, "run")
        out.print(f"Ranked on the seeds that most have run: {left_out} under other seeds not counted.", style="dim")
    for sentence in verdict.sentences(now.study):
        out.print(sentence, soft_wrap=True, highlight=False)
    for sentence in verdict.not_measured(now.study):
        out.print(f"note: {sentence}", soft_wrap=True, highlight=False, style="dim")
    out.print(counts_sentence(now), soft_wrap=True, highlight=False)


def counts_sentence(now: Standing) -> str:
    """24 trials: 22 succeeded, 2 failed (1 non_finite, 1 out_of_memory)."""
    parts = []
    for status in (Status.SUCCEEDED, Status.EARLY_STOPPED, Status.STOPPED, Status.RUNNING):
        if now.counts.get(status):
            parts.append(f"{now.counts[status]} {status.replace('_', ' ')}")
    if now.num_failed:
        classes = ", ".join(f"{count} {name}" for name, count in sorted(now.failures.items()))
        parts.append(f"{now.num_failed} failed ({classes})")
    return f"{formatting.count(sum(now.counts.values()), 'trial')}: {', '.join(parts) or 'none'}."


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
            gone.append(dataclasses.replace(record, export_path=None, written_at=dt.datetime.now(dt.timezone.utc)))
    if gone:
        table.write("trials", gone)
    return len(gone)
