"""The result of a sweep: the value that `sweep` returns, the file it leaves, the last lines it shows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.config.metrics import shown
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.errors import ExitCode, FailureClass
from sst2_ray.records import Status
from sst2_ray.results.analysis import verdict
from sst2_ray.run.tracking.trackers import tracker_rows
from sst2_ray.storage import address, typed
from sst2_ray.sweep import closing
from sst2_ray.tables import Rows


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepResult(Rows):
    """The result of a sweep, also kept as its result.json."""

    name: str
    exit_code: int
    """0; 3: nothing could be placed; 4: a trial failed (the others are ranked); 5: stopped, or its budget reached."""
    ended_by: str | None
    """budget, stop or infeasible; None: it came to its end."""
    counts: dict[str, int]
    """Trials by status."""
    failures: dict[str, int]
    """Failed trials by class."""
    best: str | None
    """The best configuration, in words."""
    best_trial: str | None
    """Best run of the sweep."""
    mean: float | None
    """Mean over seeds that the best is ranked by, see `metric`."""
    metric: str | None
    verdict: str | None
    """win: the best alone may be the best; not decided: several may; None: there is one configuration only."""
    possible_bests: list[str]
    """Configurations that may be the best, with 95 % confidence."""
    chosen: str
    """Disclosure of the choice: of how many configurations and runs, chosen on what."""
    model_dir: str | None
    sweep_dir: str
    results_dir: str
    seconds: float
    """Wall-clock over all sessions."""
    cost_usd: float | None
    chosen_by: str = "accuracy"
    """Metric that `mean` is of."""
    time_words: str = ""
    """Use of the time of all trials, in one line."""

    def rows(self) -> list[tuple[str, str]]:
        """Return name and value of each line that a notebook shows."""
        trials = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in self.counts.items())
        mean = ""
        if self.mean is not None and self.metric is not None:
            mean = f", {shown(self.chosen_by, self.mean)} {verdict.metric_words(self.chosen_by, self.metric)}"
        cost = f", {formatting.dollars(self.cost_usd)}" if self.cost_usd is not None else ""
        return [
            ("sweep", f"{self.name}: {trials}" + (f"; ended by {self.ended_by}" if self.ended_by else "")),
            ("best", f"{self.best}{mean}" + (f" ({self.verdict})" if self.verdict else "") if self.best else "none"),
            ("took", f"{formatting.duration(self.seconds)}{cost}"),
            ("best model", self.model_dir or "none"),
            ("sweep folder", self.sweep_dir),
            ("results table", self.results_dir),
        ]


def result_of(
    now: closing.Standing,
    *,
    config: SweepConfig,
    ended_by: str | None,
    seconds: float,
    cost_usd: float | None,
) -> SweepResult:
    """Build the result of a sweep that stands as `now` says."""
    ranking, best = now.ranking, now.best
    run = closing.best_run(ranking, best) if ranking and best else None
    bests = now.study.bests if now.study else None
    return SweepResult(
        name=config.name,
        exit_code=_exit_code(now, ended_by),
        ended_by=ended_by,
        counts=dict(now.counts),
        failures=dict(now.failures),
        best=best.label if best else None,
        best_trial=run.trial_id if run else None,
        mean=ranking.score(best) if ranking and best else None,
        metric=ranking.metric if ranking else None,
        chosen_by=ranking.chosen_by if ranking else config.base.metric,
        verdict=str(bests.verdict) if bests else None,
        possible_bests=[c.label for c in bests.configurations] if bests else [],
        chosen=verdict.chosen_from(now.study) if now.study else "",
        model_dir=run.values["export_path"] if run else None,
        sweep_dir=address(config.base.storage_path, config.name),
        results_dir=address(config.base.storage_path, "results"),
        seconds=seconds,
        cost_usd=cost_usd,
        time_words=now.goodput.words(),
    )


def closing_rows(result: SweepResult, config: SweepConfig) -> list[tuple[str, str]]:
    """Return name and value of each line below the ranking."""
    cost = f", {formatting.dollars(result.cost_usd)}" if result.cost_usd is not None else ""
    reason = {
        "budget": f"its budget: the next trial would go over ({_budget_words(config)})",
        "stop": "a request to stop",
    }.get(result.ended_by or "")
    goes_on = f"sst2-ray sweep --resume {shlex.quote(typed(result.sweep_dir))}"
    table = shlex.quote(typed(address(config.base.storage_path)))
    return [
        ("", ""),
        ("took", f"{formatting.duration(result.seconds)}{cost}"),
        *([("time of trials", result.time_words)] if result.time_words else []),
        *([("ended by", reason), ("goes on with", goes_on)] if reason else []),
        *(
            [
                (
                    "best model",
                    f"{typed(result.model_dir)} ({result.chosen})" if result.chosen else typed(result.model_dir),
                )
            ]
            if result.model_dir
            else []
        ),
        ("sweep folder", typed(result.sweep_dir)),
        ("results table", typed(result.results_dir)),
        *tracker_rows(config.base.trackers, address(config.base.storage_path, config.name)),
        ("try it", f"sst2-ray report --storage-path {table} --experiment {result.name}"),
    ]


def _budget_words(config: SweepConfig) -> str:
    given = []
    if config.budget_usd is not None:
        given.append(f"--budget-usd {config.budget_usd:g}")
    if config.budget_hours is not None:
        given.append(f"--budget-hours {config.budget_hours:g}")
    return " ".join(given)


def _exit_code(now: closing.Standing, ended_by: str | None) -> ExitCode:
    if not now.counts.get(Status.SUCCEEDED) and set(now.failures) == {FailureClass.NOT_PLACEABLE}:
        return ExitCode.INFEASIBLE
    if ended_by:
        return ExitCode.STOPPED
    return ExitCode.FAILED if now.num_failed else ExitCode.SUCCEEDED
