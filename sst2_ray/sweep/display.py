"""The display of a running sweep: a live table in a terminal, else a line an ended trial and one a minute."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from html import escape

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES, oriented, score_of, shown
from sst2_ray.errors import FailureClass
from sst2_ray.notebook import NotebookView, in_notebook
from sst2_ray.records import Status
from sst2_ray.run.logs import LOGGER
from sst2_ray.run.messages import Progress, TrialOverview
from sst2_ray.sweep.configurations import TrialSpec
from sst2_ray.sweep.queue import Outcome, TrialQueue
from sst2_ray.tables import Column, fitted_table, html_table
from sst2_ray.terminal import print_line
from sst2_ray.training.names import PHASE_WORDS, Phase

PLAIN_INTERVAL_S = 60.0
MAX_ENDED_ROWS = 12


_ACCURACY = "accuracy, %"

_COLUMNS = (
    Column(title="model", align="left", min_width=12),
    Column(title="lr"),
    Column(title="batch"),
    Column(title="seed"),
    Column(title="epoch", rank=3),
    Column(title=_ACCURACY, rank=1),
    Column(title="examples/s", rank=5),
    Column(title="time", rank=2),
    Column(title="cost", rank=4),
    Column(title="status", rank=1, align="left"),
)


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """The sweep at one moment, as the display needs it."""

    overview: Mapping[str, TrialOverview]
    """Progress by trial id."""
    elapsed: Mapping[str, float]
    """Seconds since each running trial began."""
    used_s: float
    left_s: float | None
    """Expected; None: not known yet."""
    cost_usd: float | None
    predicted_usd: float | None
    budget_usd: float | None


class SweepDisplay:
    """A context manager around a sweep's trials."""

    def __init__(self, out: Console, name: str, queue: TrialQueue) -> None:
        self.out, self.name, self.queue = out, name, queue
        self._seconds: dict[str, float] = {}
        self._cost: dict[str, float | None] = {}
        self._told: set[str] = set(queue.outcomes)
        self._last_plain = time.monotonic()
        self._live = Live(console=out, refresh_per_second=4, transient=True) if out.is_terminal else None
        self._view = NotebookView() if in_notebook() and not out.quiet else None

    def __enter__(self) -> SweepDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._view is not None:
            self._view.clear()

    def line(self, line: str) -> None:
        """Print a line above the live table."""
        print_line(self.out, line)

    def update(self, status: SweepProgress, cost_of: Callable[[float], float | None]) -> None:
        """Show the sweep as it stands; `cost_of`: US dollars of so many seconds of one trial, None without a price."""
        for trial_id, seconds in status.elapsed.items():
            self._seconds[trial_id] = seconds
            self._cost[trial_id] = cost_of(seconds)
        for trial_id, outcome in list(self.queue.outcomes.items()):  # Tune's thread adds to them
            if trial_id not in self._told:
                self._told.add(trial_id)
                self._line_or_log(self._ended_line(trial_id, outcome))
                self._last_plain = time.monotonic()
        if self._live is not None:
            self._live.update(Group(self._table(status), Text(self.summary(status))))
        elif self._view is not None:
            rows, _ = self._rows(status, MAX_ENDED_ROWS)
            self._view.show(
                f"{html_table(self._columns, rows, caption=self.name)}<p>{escape(self.summary(status))}</p>"
            )
        if time.monotonic() - self._last_plain >= PLAIN_INTERVAL_S:
            self._last_plain = time.monotonic()
            self._line_or_log(f"{self.summary(status)}{self._running_words(status)}")

    def _line_or_log(self, line: str) -> None:
        """Print a line where there is no live table, which leaves nothing behind; `sst2-ray logs` has it either way."""
        if self._live is None and self._view is None:
            self.line(line)
        else:
            LOGGER.info("%s", line)

    # ---- words

    def summary(self, status: SweepProgress) -> str:
        """Say counts, time, cost and the best so far in one line."""
        queue = self.queue
        outcomes = list(queue.outcomes.values())
        failed, over = sum(one.status == Status.FAILED for one in outcomes), sum(one.is_over for one in outcomes)
        parts = [
            f"{self.name}: {over} of {'' if self._is_exact else 'at most '}{queue.num_expected} trials done",
            *([f"{failed} failed"] if failed else []),
            f"{formatting.duration(status.used_s)} so far",
            *([f"about {formatting.duration(status.left_s)} left"] if status.left_s is not None else []),
        ]
        if status.cost_usd is not None:
            foretold = (
                f", {formatting.dollars(status.predicted_usd)} in all" if status.predicted_usd is not None else ""
            )
            budget = f" of {formatting.dollars(status.budget_usd)}" if status.budget_usd is not None else ""
            parts.append(f"{formatting.dollars(status.cost_usd)} so far{foretold}{budget}")
        best = self.best_so_far()
        return "; ".join([*parts, *([f"best so far: {best}"] if best else [])])

    @property
    def _is_exact(self) -> bool:
        return self.queue.config.scheduler == "none"

    def best_so_far(self) -> str:
        """Name the configuration that a ranking of what has ended puts first (`ranking.rank`), with its number of seeds."""
        scores: dict[str, list[float]] = defaultdict(list)
        diverged: set[str] = set()
        for spec in self.queue.planned:
            outcome = self.queue.outcomes.get(spec.trial_id)
            if outcome is not None and outcome.status == Status.SUCCEEDED and outcome.score is not None:
                scores[spec.configuration_name].append(outcome.score)
            elif outcome is not None and outcome.failure_class == FailureClass.NON_FINITE:
                diverged.add(spec.configuration_name)
        if not scores:
            return ""
        means = {name: sum(values) / len(values) for name, values in scores.items()}
        best = max(means, key=lambda name: (name not in diverged, means[name]))
        return f"{best} {self._shown(means[best])} ({formatting.count(len(scores[best]), 'seed')})"

    def _shown(self, score: float) -> str:
        metric = self.queue.config.base.metric
        return shown(metric, oriented(metric, score))

    def _ended_line(self, trial_id: str, outcome: Outcome) -> str:
        what = outcome.status.replace("_", " ")
        if outcome.failure_class and outcome.status == Status.FAILED:
            what = f"failed ({outcome.failure_class})"
        name = METRIC_NAMES[self.queue.config.base.metric]
        score = f", {name} {self._shown(outcome.score)}" if outcome.score is not None else ""
        seconds = self._seconds.get(trial_id)
        took = f", {formatting.duration(seconds)}" if seconds is not None else ""
        cost = self._cost.get(trial_id)
        return f"{trial_id}: {what}{score}{took}{f', {formatting.dollars(cost)}' if cost is not None else ''}"

    def _running_words(self, status: SweepProgress) -> str:
        places = [f"{spec.trial_id} {_place(status.overview.get(spec.trial_id))}" for spec in self._running()]
        return f"; running: {', '.join(places)}" if places else ""

    # ---- the live table

    def _running(self) -> list[TrialSpec]:
        return list(self.queue.running.values())

    def _table(self, status: SweepProgress) -> Table:
        """Lay out the trials in columns that fit the terminal."""
        rows, styles = self._rows(status, max(3, min(MAX_ENDED_ROWS, self.out.height - 8 - len(self.queue.running))))
        table = fitted_table(self._columns, rows, width=self.out.width, title=self.name)
        for row, style in zip(table.rows, styles, strict=True):
            row.style = style
        return table

    @property
    def _columns(self) -> list[Column]:
        title = _title(self.queue.config.base.metric)
        return [replace(one, title=title) if one.title == _ACCURACY else one for one in _COLUMNS]

    def _rows(self, status: SweepProgress, room: int) -> tuple[list[list[str]], list[str | None]]:
        """Return cells and style of the `room` trials that ended last and of those that run."""
        specs, metric = {spec.trial_id: spec for spec in self.queue.planned}, self.queue.config.base.metric
        ended = [trial_id for trial_id in list(self.queue.outcomes) if trial_id in specs and trial_id in self._seconds]
        rows: list[list[str]] = []
        styles: list[str | None] = []
        for trial_id in ended[-room:]:
            outcome = self.queue.outcomes[trial_id]
            styles.append({Status.FAILED: "red", Status.EARLY_STOPPED: "dim"}.get(Status(outcome.status)))
            state = outcome.failure_class if outcome.status == Status.FAILED else outcome.status.replace("_", " ")
            rows.append([*self._cells(specs[trial_id], None, outcome.score), str(state)])
        for spec in self._running():
            found = status.overview.get(spec.trial_id, TrialOverview())
            styles.append("bold")
            last = score_of(found.evaluation, metric) if found.evaluation else None
            score = None if last is None else oriented(metric, last)
            rows.append([*self._cells(spec, found.progress, score), _place(found)])
        return rows, styles

    def _cells(self, spec: TrialSpec, progress: Progress | None, score: float | None) -> list[str]:
        config = spec.config
        speed = progress.examples_per_sec if progress else None
        epoch = progress.epoch if progress else None
        return [
            config.model,
            formatting.learning_rate(config.learning_rate),
            str(config.batch_size),
            str(config.seed),
            f"{epoch:.2f}" if epoch is not None else "",
            self._shown(score).removesuffix(" %") if score is not None else "",
            formatting.number(speed) if speed else "",
            formatting.duration(self._seconds.get(spec.trial_id)),
            formatting.dollars(self._cost.get(spec.trial_id)),
        ]


def _title(metric: str) -> str:
    """Return the title of the column of scores."""
    return METRIC_NAMES[metric] + (", %" if metric in SHARES else "")


def _place(found: TrialOverview | None) -> str:
    """Say where a running trial is."""
    progress = found.progress if found else None
    if progress is None:
        return "starting"
    if progress.phase is Phase.TRAINING:
        return f"step {progress.global_step:,}/{progress.total_steps:,}"
    return PHASE_WORDS.get(progress.phase, str(progress.phase))
