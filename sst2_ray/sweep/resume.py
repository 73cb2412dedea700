"""What earlier sessions of a sweep left in the results table: all that a resumed one plans from, besides checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pyarrow.compute as pc

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig, config_from_dict
from sst2_ray.records import Status
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.sweep.queue import Outcome
from sst2_ray.sweep.schedulers import PastResult, evaluation_number

_COLUMNS = (
    "experiment", "trial_id", "attempt", "status", "failure_class", "selection_accuracy", "best_dev_accuracy", "model", "seed",
    "seconds", "config_json", "best_epoch", "examples_per_sec",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """The latest attempt of a trial."""

    trial_id: str
    config: TrainConfig
    outcome: Outcome
    seconds: float | None
    attempt: int


def past_trials(table: ResultsTable, experiment: str) -> dict[str, PastTrial]:
    """By trial id; empty for a sweep that has not begun."""
    rows = table.read("trials", columns=_COLUMNS, experiment=experiment, attempts="latest").to_pylist()
    return {
        row["trial_id"]: PastTrial(
            trial_id=row["trial_id"],
            config=config_from_dict(json.loads(row["config_json"]), source=row["trial_id"]),
            outcome=Outcome(
                status=row["status"],
                score=row["selection_accuracy"] if row["selection_accuracy"] is not None else row["best_dev_accuracy"],
                failure_class=row["failure_class"],
            ),
            seconds=row["seconds"],
            attempt=row["attempt"],
        )
        for row in rows
    }


def past_results(table: ResultsTable, config: SweepConfig, trials: dict[str, PastTrial]) -> list[PastResult]:
    """The evaluations that the scheduler has decided on, in their order: those of the first seed. A trial that failed
    counts as the worst there is, as it did then."""
    if config.scheduler == "none" or not trials:
        return []
    first = {t.trial_id: t for t in trials.values() if t.config.seed == config.seeds[0]}
    split = "selection" if config.base.selection_fraction > 0 else "dev"
    rows = table.read(
        "epochs",
        columns=["trial_id", "epoch", "dev_accuracy", "written_at", "split"],
        experiment=config.name,
        attempts="latest",
        filter=pc.field("split") == split,
    ).sort_by("written_at")
    results = [
        PastResult(
            trial_id=row["trial_id"],
            model=first[row["trial_id"]].config.model,
            evaluation=evaluation_number(row["epoch"], config.base.evaluations_per_epoch),
            accuracy=_finite(row["dev_accuracy"]),
        )
        for row in rows.to_pylist()
        if row["trial_id"] in first
    ]
    failed = [t for t in first.values() if t.outcome.status == Status.FAILED and t.outcome.is_over]
    return results + [PastResult(trial_id=t.trial_id, model=t.config.model, evaluation=1, accuracy=0.0) for t in failed]


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0
