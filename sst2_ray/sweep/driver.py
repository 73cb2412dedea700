"""What Tune runs: the driver function of one trial. It builds the trial's own TorchTrainer, through the main job's code."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import FailureClass, RunFailedError, Sst2RayError
from sst2_ray.records import EpochRecord, Status, TrialRecord
from sst2_ray.run.environment import prepare_driver
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import run_description
from sst2_ray.run.supervisor import Shared, Trial
from sst2_ray.run.workspace import Workspace
from sst2_ray.sweep.schedulers import METRIC, TIME, evaluation_number


@dataclass(frozen=True, kw_only=True)
class Session:
    """What all trials of a sweep share: in the object store once, read by every driver."""

    experiment: str
    workspace: Workspace
    base: TrainConfig
    shared: dict[str, Shared]
    """By model."""
    placement: Placement
    cost_share: float
    board: Any
    asks_scheduler: bool
    environment: dict[str, str]
    """Variables of the sweep's driver that trials need as well; never written anywhere."""

    @property
    def chooses_on_selection(self) -> bool:
        return self.base.selection_fraction > 0


class BoardDisplay:
    """A trial's display: its progress is on the board already, only its remarks have to get there."""

    def __init__(self, board: Any, trial_id: str) -> None:
        self.board, self.trial_id = board, trial_id

    def progress(self, values: dict[str, Any]) -> None:
        pass

    def record(self, record: EpochRecord) -> None:
        pass

    def line(self, text: str) -> None:
        self.board.say.remote(f"{self.trial_id}: {text.removeprefix(f'{self.trial_id}: ')}")


def trial_of(session: Session, config: TrainConfig, trial_id: str, **options: Any) -> Trial:
    """The trial as the main job would run it, below the sweep's folder."""
    shared = session.shared[config.model]
    return Trial(
        dataclasses.replace(shared, checked=dataclasses.replace(shared.checked, config=config)),
        session.placement,
        BoardDisplay(session.board, trial_id),
        session.workspace,
        experiment=session.experiment,
        trial_id=trial_id,
        board=session.board,
        cost_share=session.cost_share,
        score_dev=not session.chooses_on_selection,
        **options,
    )


def run_trial(values: dict[str, Any], *, session: Session) -> dict[str, Any]:
    """Tune's function. values: trial_id, is_first_seed and the varied fields of the config (see search.tune_values).

    Returns the outcome; never raises: a failing trial is a row of the table, and the sweep goes on.
    """
    from ray import tune

    os.environ.update(session.environment)
    prepare_driver()
    config = config_of(session.base, values)
    last: dict[str, Any] = {TIME: 1, METRIC: 0.0}

    def report(record: EpochRecord) -> None:
        last.update(tune_metrics(record, config))
        tune.report(dict(last))

    trial = trial_of(
        session,
        config,
        values["trial_id"],
        on_record=report,
        asks_scheduler=session.asks_scheduler and values["is_first_seed"],
    )
    trial.run_storage.write_json("config.json", run_description(trial.shared.checked))
    try:
        record = trial.run()
        trial.drop_checkpoints(record)
    except Sst2RayError as error:
        failure_class = error.failure_class if isinstance(error, RunFailedError) else FailureClass.NOT_PLACEABLE
        # To a scheduler a failed trial is the worst there is.
        return {**last, METRIC: 0.0, "status": Status.FAILED, "score": None, "failure_class": failure_class}
    except Exception as error:  # of this package's own: its row says what
        trial.attempts.close_orphans(f"{type(error).__name__}: {error}"[:1000], FailureClass.BUG)
        return {**last, METRIC: 0.0, "status": Status.FAILED, "score": None, "failure_class": FailureClass.BUG}
    return {**last, "status": record.status, "score": score_of(record), "failure_class": record.failure_class}


def config_of(base: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """The config of a trial from what Tune carries."""
    fields = {f.name for f in dataclasses.fields(TrainConfig)}
    return dataclasses.replace(base, **{k: v for k, v in values.items() if k in fields}, name=None)


def score_of(record: TrialRecord) -> float | None:
    """What configurations are ranked by."""
    return record.selection_accuracy if record.selection_accuracy is not None else record.best_dev_accuracy


def tune_metrics(record: EpochRecord, config: TrainConfig) -> dict[str, Any]:
    """Plain numbers for Tune, its schedulers and the trackers."""
    return {
        TIME: evaluation_number(record.epoch, config.evaluations_per_epoch),
        METRIC: record.dev_accuracy or 0.0,
        "epoch": record.epoch,
        "global_step": record.global_step,
        "split": record.split,
        "loss": record.dev_loss,
        "f1": record.dev_f1,
        "train_loss": record.train_loss,
        "current_learning_rate": record.learning_rate,
        "examples_per_sec": record.examples_per_sec,
    }
