"""A running trial's progress, as another process reads it from storage."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from sst2_ray.run import progress_file
from sst2_ray.run.messages import Heartbeat, Progress
from sst2_ray.run.progress_file import PROGRESS_FILE, ProgressFile, StoredProgress
from sst2_ray.storage import Storage
from sst2_ray.training.names import Phase
from tests.support.waiting import waited

TRAINING = Progress(
    phase=Phase.TRAINING, global_step=1200, total_steps=4200, epoch=0.5, train_loss=0.3531, examples_per_sec=892.4,
    seconds_left=130.0, saved_step=1100,
)  # fmt: skip


@pytest.fixture
def run(tmp_path) -> Storage:
    return Storage.open(str(tmp_path))


def read(run: Storage) -> StoredProgress:
    return waited(lambda: StoredProgress.read(run), PROGRESS_FILE, 10)


def test_what_is_written_is_read_and_said_in_one_line(run):
    ProgressFile(run, attempt=2).update(TRAINING, None)
    found = read(run)
    assert (found.attempt, found.progress) == (2, TRAINING)
    assert found.words() == "step 1,200/4,200, loss 0.353, 892 examples/s, 2 min left, step 1,100 saved"


def test_an_evaluation_between_two_steps_is_told(run):
    evaluates = Heartbeat(global_step=1200, phase=Phase.EVALUATION, still_s=0.0)
    ProgressFile(run, attempt=0).update(TRAINING, evaluates)
    assert read(run).words().startswith("step 1,200/4,200, scoring, loss")


def test_before_the_first_step_the_phase_is_told(run):
    ProgressFile(run, attempt=0).update(Progress(phase=Phase.MODEL), None)
    assert read(run).words() == "loading the model"


def test_it_is_written_every_few_seconds_and_gone_at_the_end(run, monkeypatch):
    monkeypatch.setattr(progress_file, "WRITE_EVERY_S", 60.0)
    file = ProgressFile(run, attempt=0)
    file.update(TRAINING, None)
    read(run)
    file.update(dataclasses.replace(TRAINING, global_step=1300), None)
    assert read(run).progress.global_step == 1200
    file.close()
    assert StoredProgress.read(run) is None


def test_a_driver_that_says_nothing_more_is_noticed(run):
    ProgressFile(run, attempt=0).update(TRAINING, None)
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    assert dataclasses.replace(read(run), written_at=earlier.isoformat()).words().endswith("heard 5 min ago")


def test_a_damaged_file_tells_nothing(run):
    for content in (b"{", b"[]", b"{}", b'{"written_at": "yesterday"}'):
        run.write_bytes(PROGRESS_FILE, content)
        assert StoredProgress.read(run) is None
