"""Knowledge that a session begins with, from the results table: earlier trials of the sweep, and how long other runs took.

A resumed sweep plans from these and from the trials' checkpoints alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow.compute as pc

from sst2_ray.config.metrics import oriented, worst
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig, config_from_dict
from sst2_ray.errors import InputError
from sst2_ray.records import Status
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.sweep.budget import Durations
from sst2_ray.sweep.queue import Outcome
from sst2_ray.sweep.schedulers import EarlyStopping, Evaluation, evaluation_number


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """The latest attempt of a trial."""

    trial_id: str
    config: TrainConfig
    outcome: Outcome
    seconds: float | None
    attempt: int

    @property
    def was_timed_whole(self) -> bool:
        """Tell whether its seconds are those of the whole trial."""
        return self.outcome.status == Status.SUCCEEDED and self.attempt == 0 and bool(self.seconds)


def past_trials(table: ResultsTable, experiment: str) -> dict[str, PastTrial]:
    """Read the trials of a sweep by trial id; empty for one that has not begun."""
    return {
        record.trial_id: PastTrial(
            trial_id=record.trial_id,
            config=config_from_dict(json.loads(record.config_json), source=record.trial_id),
            outcome=Outcome.of(record),
            seconds=record.seconds,
            attempt=record.attempt,
        )
        for record in table.records("trials", experiment=experiment, attempts="latest")
    }


def durations_of(table: ResultsTable, num_train_rows: int, trials: dict[str, PastTrial], *, use_gpu: bool) -> Durations:
    """Collect what the trials of this sweep took, and runs of any name in this table on the same kind of device."""
    durations = Durations(num_train_rows)
    columns = ["config_json", "seconds", "status", "attempt", "device", "num_train_rows"]
    for row in table.read("trials", columns=columns, attempts="latest").to_pylist():
        finished = row["status"] == Status.SUCCEEDED and row["attempt"] == 0 and row["seconds"] and row["config_json"]
        if finished and row["device"] == ("cuda" if use_gpu else "cpu") and row["num_train_rows"]:
            try:
                config = config_from_dict(json.loads(row["config_json"]))
            except InputError:
                continue  # of another version
            durations.add_earlier(config, row["seconds"], row["num_train_rows"])
    for trial in trials.values():
        if trial.was_timed_whole:
            durations.add(trial.config, trial.seconds or 0.0)
    return durations


def early_stopping(table: ResultsTable, config: SweepConfig, trials: dict[str, PastTrial]) -> EarlyStopping | None:
    """Rebuild the stopping rule from the evaluations that it has decided on, in their order; None: no scheduler."""
    if config.scheduler == "none":
        return None
    first = {t.trial_id: t for t in trials.values() if t.config.seed == config.seeds[0]}
    split, metric = "selection" if config.held_out_fraction > 0 else "dev", config.base.metric
    rows = table.read(
        "epochs",
        columns=["trial_id", "epoch", f"dev_{metric}", "score_error", "num_dev_rows", "written_at", "split"],
        experiment=config.name,
        attempts="latest",
        filter=pc.field("split") == split,
    ).sort_by("written_at")
    past = [
        Evaluation(
            trial_id=row["trial_id"],
            model=first[row["trial_id"]].config.model,
            number=evaluation_number(row["epoch"], config.base.evaluations_per_epoch),
            score=worst(metric) if row[f"dev_{metric}"] is None else oriented(metric, row[f"dev_{metric}"]),
            num_rows=row["num_dev_rows"] or 1,
            error=row["score_error"],
        )
        for row in rows.to_pylist()
        if row["trial_id"] in first
    ]
    rule = EarlyStopping(config, past)
    for trial in first.values():
        if trial.outcome.is_worst:
            rule.record_failure(trial.trial_id, trial.config.model)
    return rule
