"""The rows of lost attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.attempt_log import AttemptLog, with_checkpoint
from sst2_ray.run.messages import Progress
from sst2_ray.run.progress_file import StoredProgress
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint.steps import step_folder
from sst2_ray.training.names import Phase
from tests.support.records import at, trial


@pytest.mark.parametrize(
    ("saved", "heard", "counted"),
    [
        ((10, 20), 17, 20),  # killed before it told the driver of step 20
        ((10, 20), 23, 23),
        ((), 7, 7),
        ((10,), None, None),  # it has told of no step: the checkpoint is an earlier attempt's
    ],
)
def test_a_lost_attempt_has_come_as_far_as_its_newest_checkpoint(
    tmp_path: Path, saved: tuple[int, ...], heard: int | None, counted: int | None
) -> None:
    run = Storage.open(str(tmp_path)).child("run")
    for step in saved:
        run.write_json(f"{step_folder(step)}/manifest.json", {})
    row = trial(last_global_step=heard)
    assert with_checkpoint(row, run).last_global_step == counted


def test_storage_that_cannot_be_reached_leaves_what_was_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def out_of_reach(*_: object) -> list[str]:
        raise OSError("unreachable")

    monkeypatch.setattr(Storage, "list", out_of_reach)
    run = Storage.open(str(tmp_path)).child("run")
    assert with_checkpoint(trial(last_global_step=7), run).last_global_step == 7


def test_a_trial_that_ended_before_its_first_attempt_is_a_row(tmp_path: Path) -> None:
    table = ResultsTable(str(tmp_path))
    attempts = AttemptLog(table, table.storage.child("run"), trial(status="running"), show=print)
    assert attempts.close_orphans() == 0
    assert not table.records("trials")
    attempts.add_lost("its driver ended before its first attempt")
    (row,) = table.records("trials")
    assert (row.status, row.failure_class, row.attempt) == ("lost", "worker_lost", 0)
    assert row.failure_message == "its driver ended before its first attempt"
    assert attempts.close_orphans() == 1  # the next one is a second attempt


def test_an_attempt_whose_driver_was_killed_costs_what_it_is_known_to_have_taken(tmp_path: Path) -> None:
    table = ResultsTable(str(tmp_path))
    run = table.storage.child("run")
    row = trial(status="running", price_per_hour=12.0)
    attempts = AttemptLog(table, run, row, show=print, cost_share=0.5)
    attempts.begin(0)
    last = StoredProgress(written_at=at(30).isoformat(), attempt=0, progress=Progress(phase=Phase.TRAINING))
    run.write_json("progress.json", last.to_dict())
    run.write_json("attempts/0.json", {"status": "running", "started_at": at(0).isoformat()})
    assert AttemptLog(table, run, row, show=print, cost_share=0.5).close_orphans() == 1
    (lost,) = table.records("trials")
    assert (lost.status, lost.seconds, lost.cost_usd) == ("lost", 1800.0, 3.0)
