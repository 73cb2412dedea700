"""Goodput: the share of a trial's time that went into optimizer steps that counted, and where the rest went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.records import TrialRecord
from sst2_ray.results.store.table import ResultsTable

_STEP_COLUMNS = ("data_seconds", "forward_seconds", "backward_seconds", "communication_seconds", "optimizer_seconds")


_COLUMNS = (
    "experiment",
    "trial_id",
    "attempt",
    "status",
    "written_at",
    "seconds",
    "startup_seconds",
    "evaluation_seconds",
    "checkpoint_seconds",
    "first_global_step",
    "last_global_step",
    *_STEP_COLUMNS,
)


@dataclass(frozen=True, kw_only=True)
class Goodput:
    """The time of some attempts, from the start of each to its end, by what it went into. Seconds unless said otherwise."""

    wall: float
    counted: float
    """Optimizer steps that counted: no later attempt did them again."""
    repeated: float
    """Optimizer steps that a later attempt did again, from the checkpoint before them."""
    startup: float
    """First attempts: until the first step."""
    restarts: float
    """Later attempts: until their first step, or their end without one."""
    evaluation: float
    checkpoints: float
    """Training stood still for checkpoints, and for the export of the model."""
    num_restarts: int
    num_lost_steps: int
    """Optimizer steps that were done again."""

    @property
    def share(self) -> float:
        """Return the share of the time in optimizer steps that counted, 0-1."""
        return self.counted / self.wall if self.wall > 0 else 0.0

    @property
    def other(self) -> float:
        """Return the rest: waits for a failure to be noticed, for the workers to end, and what is between the phases."""
        named = self.counted + self.repeated + self.startup + self.restarts + self.evaluation + self.checkpoints
        return max(0.0, self.wall - named)

    def words(self) -> str:
        """Describe it in one line."""
        parts = [
            ("start-up", self.startup),
            ("evaluation", self.evaluation),
            ("checkpoints", self.checkpoints),
            (formatting.count(self.num_restarts, "restart"), self.restarts),
            (f"{formatting.count(self.num_lost_steps, 'step')} done again", self.repeated),
            ("other", self.other),
        ]
        said = [f"{name} {formatting.duration(seconds)}" for name, seconds in parts if seconds >= 0.05]
        total = formatting.duration(self.wall)
        return f"{formatting.percent(self.share, 1)} % of {total} in steps that counted; {', '.join(said)}"


def goodput(rows: Iterable[TrialRecord]) -> Goodput:
    """Add up the time of every attempt of some trials, whose end rows `rows` are."""
    trials: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for row in rows:
        trials[row.experiment, row.trial_id].append(row)
    parts = []
    for attempts in trials.values():
        attempts.sort(key=lambda row: row.attempt)
        parts += [_of_attempt(row, attempts[n + 1 :], is_first=n == 0) for n, row in enumerate(attempts)]
    return Goodput(
        wall=sum(part.wall for part in parts),
        counted=sum(part.counted for part in parts),
        repeated=sum(part.repeated for part in parts),
        startup=sum(part.startup for part in parts),
        restarts=sum(part.restarts for part in parts),
        evaluation=sum(part.evaluation for part in parts),
        checkpoints=sum(part.checkpoints for part in parts),
        num_restarts=sum(part.num_restarts for part in parts),
        num_lost_steps=sum(part.num_lost_steps for part in parts),
    )


def read_goodput(table: ResultsTable, experiment: str) -> Goodput:
    """Add up the time of every attempt of a run or sweep, from the columns that it takes."""
    rows = table.read("trials", columns=_COLUMNS, experiment=experiment).to_pylist()
    return goodput(TrialRecord(**row) for row in rows)


def _of_attempt(row: TrialRecord, later: Sequence[TrialRecord], *, is_first: bool) -> Goodput:
    in_steps = sum(getattr(row, name) or 0.0 for name in _STEP_COLUMNS)
    wall = row.seconds or 0.0
    begin = row.startup_seconds if row.startup_seconds is not None else wall
    lost, done = _lost_steps(row, later), _num_steps(row)
    repeated = in_steps * lost / done if done else 0.0
    return Goodput(
        wall=wall,
        counted=in_steps - repeated,
        repeated=repeated,
        startup=begin if is_first else 0.0,
        restarts=0.0 if is_first else begin,
        evaluation=row.evaluation_seconds or 0.0,
        checkpoints=row.checkpoint_seconds or 0.0,
        num_restarts=0 if is_first else 1,
        num_lost_steps=lost,
    )


def _num_steps(row: TrialRecord) -> int:
    return (row.last_global_step or 0) - (row.first_global_step or 0) if row.first_global_step is not None else 0


def _lost_steps(row: TrialRecord, later: Sequence[TrialRecord]) -> int:
    """Count the steps of an attempt that a later one did again."""
    firsts = [other.first_global_step for other in later if other.first_global_step is not None]
    if row.first_global_step is None or not firsts:
        return 0
    kept = max(row.first_global_step, min(firsts))
    return max(0, (row.last_global_step or 0) - kept)
