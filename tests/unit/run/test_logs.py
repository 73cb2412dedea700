"""A run's logs: what the terminal shows with time and level, kept until the run is this driver's, uploaded now and then."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.run import logs
from sst2_ray.run.logs import DRIVER_LOG, LOGGER, LogFile, worker_log
from sst2_ray.run.session import RunSession
from sst2_ray.storage import Storage
from tests.support.object_store import BUCKET, object_store_here
from tests.support.waiting import waited

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_the_driver_s_log_holds_what_the_terminal_shows_from_the_beginning(tmp_path: Path) -> None:
    config = TrainConfig(storage_path=str(tmp_path), name="first")
    with RunSession(config, "first", quiet=True) as session:
        session.show_plan([("steps", "120 of 16 examples")], ["two sentences are [cut]"])
        assert not (tmp_path / "first").exists()
        with session.running():
            session.note("epoch 1  accuracy 0.9")
            LOGGER.warning("a remark of the package's own")
    lines = (tmp_path / "first" / DRIVER_LOG).read_text().splitlines()
    assert [re.sub(STAMP, "T", line) for line in lines] == [
        "T INFO driver: steps  120 of 16 examples",
        "T INFO driver: note: two sentences are [cut]",
        "T INFO driver: epoch 1  accuracy 0.9",
        "T WARNING driver: a remark of the package's own",
    ]
    assert not LOGGER.handlers


def test_a_session_that_runs_nothing_leaves_no_log(tmp_path: Path) -> None:
    with RunSession(TrainConfig(storage_path=str(tmp_path)), "planned", quiet=True) as session:
        session.note("dry run: nothing was started, nothing was written")
    assert not list(tmp_path.iterdir())


def test_a_worker_s_lines_carry_time_level_attempt_and_rank_beside_what_libraries_print(tmp_path: Path) -> None:
    with worker_log(Storage.open(str(tmp_path)), attempt=2, rank=1):
        os.write(1, b"a library's line\n")
        LOGGER.info("step %d of %d", 20, 120)
    LOGGER.info("after the attempt")
    chatter, line = (tmp_path / "logs" / "attempt-2-rank-1.log").read_text().splitlines()
    assert chatter == "a library's line"
    assert re.fullmatch(rf"{STAMP} INFO attempt 2 rank 1: step 20 of 120", line)


def test_a_worker_s_log_ends_with_what_ended_the_worker(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), worker_log(Storage.open(str(tmp_path)), attempt=0, rank=0):
        raise ZeroDivisionError("of the loop")
    lines = (tmp_path / "logs" / "attempt-0-rank-0.log").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", "ZeroDivisionError: of the loop")


def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "attempt-0-rank-0.log").symlink_to("/dev/full")
    with worker_log(Storage.open(str(tmp_path)), attempt=0, rank=0):
        LOGGER.info("lost")
    assert capsys.readouterr().err == ""


def test_on_an_object_store_the_log_is_uploaded_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "UPLOAD_EVERY_S", 0.05)
    with object_store_here():
        run = Storage.open(f"s3://{BUCKET}/runs/first")
        with LogFile(run, DRIVER_LOG) as file:
            file.path.write_text("so far\n")
            waited(lambda: run.exists(DRIVER_LOG) and run.read_bytes(DRIVER_LOG) == b"so far\n", "an upload", 10)
            monkeypatch.setattr(logs, "UPLOAD_EVERY_S", 1000.0)
            file.path.write_text("so far\nthe end\n")
        assert run.read_bytes(DRIVER_LOG) == b"so far\nthe end\n"
        assert not file.path.exists()
        with LogFile(run, DRIVER_LOG) as file, file.path.open("a") as log:  # the next session goes on with it
            log.write("again\n")
        assert run.read_bytes(DRIVER_LOG) == b"so far\nthe end\nagain\n"


def test_the_package_s_logger_is_left_to_a_program_that_runs_nothing() -> None:
    assert logging.getLogger("sst2_ray").handlers == []
