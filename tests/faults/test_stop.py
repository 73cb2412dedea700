"""A run that is asked to stop: its workers write a checkpoint and leave, and the same command goes on from there."""

from __future__ import annotations

import subprocess

import pytest

from sst2_ray.run.progress_file import StoredProgress
from sst2_ray.run.stop import STOP_FILE, STOP_WITHIN_S
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.fault_injection import Fault
from tests.support.faults import REPOSITORY, STEPS, TinyRun, slowed
from tests.support.waiting import waited

START_S = 120


def ask_to_stop(run: TinyRun) -> None:
    """Do what `sst2-ray stop` does."""
    Storage.open(str(run.run_folder)).write_json(STOP_FILE, {"by": "a test"})


def test_a_stopped_run_has_saved_the_step_it_was_at_and_goes_on_to_the_same_weights(undisturbed, tmp_path):
    """No checkpoint is due before the evaluation at step 60: the one that it goes on from was written on request."""
    run, mark = TinyRun(undisturbed.folder, "stopped", checkpoint_every_steps=STEPS), tmp_path / "mark"
    faults = [*slowed(1, by_s=0.4), Fault(kind="tell", attempt=0, rank=0, step=10, path=str(mark))]
    with run.running(faults) as process:
        waited(mark.exists, "step 10", START_S)
        now = waited(lambda: progress_of(run, 10), "its progress on storage", START_S)
        assert now.progress.total_steps == STEPS and now.progress.saved_step is None
        assert "left" in now.words()
        ask_to_stop(run)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 5, output
    (row,) = run.attempts()
    assert (row["status"], row["failure_class"]) == ("stopped", "user_stop")
    saved = row["last_global_step"]
    assert 10 < saved < STEPS // 2, output
    assert f"step {saved} is saved" in (run.run_folder / "logs/driver.log").read_text().splitlines()[-1]
    assert ckpt.committed_steps(Storage.open(str(run.run_folder)))[-1] == saved
    assert f"goes on at step {saved} (attempt 1)" in dry_run(run)
    again = run.run()
    assert again.code == 0, again.output
    assert f"goes on at step {saved} (attempt 1)" in again.output
    assert f"going on from the checkpoint at step {saved}" in run.log(1, 0)
    assert run.digest() == undisturbed.digest()
    assert run.curve() == undisturbed.curve()
    _, last = run.attempts()
    assert (last["first_global_step"], last["last_global_step"], last["num_lost_steps"]) == (saved, STEPS, 0)
    assert 0 < last["goodput"] < 1
    assert "in steps that counted" in again.output and "1 restart" in again.output
    assert StoredProgress.read(Storage.open(str(run.run_folder))) is None


def progress_of(run: TinyRun, step: int) -> StoredProgress | None:
    """Return the progress of the run when it has come so far, else None."""
    found = StoredProgress.read(Storage.open(str(run.run_folder)))
    return found if found and found.progress.global_step >= step and found.progress.total_steps else None


def dry_run(run: TinyRun) -> str:
    words = [*run.command, "--dry-run"]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
def test_a_worker_that_hangs_keeps_no_run_that_is_asked_to_stop(undisturbed, tmp_path):
    run, mark = TinyRun(undisturbed.folder, "stopped-hung"), tmp_path / "mark"
    with run.running([Fault(kind="hang", attempt=0, rank=1, step=33, path=str(mark))]) as process:
        waited(mark.exists, "step 33", START_S)
        ask_to_stop(run)
        output, _ = process.communicate(timeout=STOP_WITHIN_S + 30)
    assert process.returncode == 5, output
    (row,) = run.attempts()
    assert (row["status"], row["failure_class"], row["last_global_step"]) == ("stopped", "user_stop", 30)
