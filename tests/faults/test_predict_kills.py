"""A prediction on a cluster that is killed at random moments, and started again, writes the rows of one process."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import models
from tests.support.faults import REPOSITORY
from tests.support.folders import counted_rows, labelled_rows, review_folder
from tests.support.heads import MARKER, pids_of

FILES, ROWS = 40, 500
CLI = (sys.executable, "-m", "sst2_ray", "predict")


def kill(marker: str) -> None:
    """Kill the command, Ray and its workers at once, as a power cut does."""
    for pid in pids_of(marker):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def labelled_by_one_process(folder: Path) -> tuple[list[str], Path, dict[str, str]]:
    """Label a folder of reviews into one.parquet; return the command that has two workers do it, its output and environment."""
    export = models.export_of(models.sbert_folder(folder / "sbert"), folder / "export")
    reviews, output = review_folder(folder / "in", files=FILES, rows=ROWS), folder / "out"
    words = [*CLI, "--model-dir", str(export), "--input", str(reviews), "--precision", "fp32"]
    env = {**os.environ, MARKER: str(folder), "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}
    alone = {**env, "OMP_NUM_THREADS": "1"}  # as a worker of one core
    subprocess.run([*words, "--out", str(folder / "one.parquet")], cwd=REPOSITORY, env=alone, check=True)
    return [*words, "--out", str(output), "--num-workers", "2"], output, env


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_five_times_it_writes_the_rows_of_one_process(tmp_path: Path) -> None:
    command, output, env = labelled_by_one_process(tmp_path)
    draw, seen = random.Random(7), []
    for _ in range(5):
        with (tmp_path / "log").open("ab") as log:
            streams = {"stdout": log, "stderr": log}
            process = subprocess.Popen(command, cwd=REPOSITORY, env=env, start_new_session=True, **streams)
        deadline, before = time.monotonic() + 120, counted_rows(output)
        while process.poll() is None and counted_rows(output) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1.5))
        kill(str(tmp_path))
        process.wait(30)
        seen.append(counted_rows(output))
    assert 0 < seen[0] < FILES * ROWS, (tmp_path / "log").read_text()
    assert seen == sorted(seen)
    subprocess.run(command, cwd=REPOSITORY, env=env, check=True)
    assert labelled_rows(output).equals(labelled_rows(tmp_path / "one.parquet"))
    assert (output / "_SUCCESS").is_file()
    kill(str(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lost_worker_is_replaced_and_no_row_is_lost(tmp_path: Path) -> None:
    command, output, env = labelled_by_one_process(tmp_path)
    process = subprocess.Popen(command, cwd=REPOSITORY, env=env)
    deadline = time.monotonic() + 120
    while counted_rows(output) == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [
        pid for pid in pids_of(str(tmp_path)) if b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait(180) == 0
    assert labelled_rows(output).equals(labelled_rows(tmp_path / "one.parquet"))
