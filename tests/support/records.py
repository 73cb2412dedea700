"""Short ways to make records for tests of the results table."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sst2_ray.records import EpochRecord, PredictionRecord, TrialRecord

NOON = dt.datetime(2026, 1, 5, 12, 0, tzinfo=dt.UTC)


def at(minutes: float) -> dt.datetime:
    """A time so many minutes after noon."""
    return NOON + dt.timedelta(minutes=minutes)


def trial(trial_id: str = "t", **values: Any) -> TrialRecord:
    """A succeeded trial of the experiment e."""
    return TrialRecord(
        **{"experiment": "e", "trial_id": trial_id, "attempt": 0, "status": "succeeded", "written_at": NOON, **values}
    )


def epoch(step: int, trial_id: str = "t", **values: Any) -> EpochRecord:
    """An evaluation of that trial, 100 steps an epoch."""
    defaults = {"experiment": "e", "trial_id": trial_id, "attempt": 0, "split": "dev", "written_at": NOON}
    return EpochRecord(**{**defaults, "global_step": step, "epoch": step / 100, **values})


def prediction(row_id: int, trial_id: str = "t", **values: Any) -> PredictionRecord:
    """A right prediction of that trial."""
    defaults = {"experiment": "e", "trial_id": trial_id, "attempt": 0, "split": "dev", "global_step": 100}
    answer = {"text": f"sentence {row_id}", "label": 1, "predicted": 1, "probability": 0.9}
    return PredictionRecord(**{**defaults, **answer, "row_id": row_id, **values})
