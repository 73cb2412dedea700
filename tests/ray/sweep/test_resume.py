"""Kill -9 of a sweep's driver, then --resume: the table is that of a sweep that nobody disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.sweeps import ROOT, Sweeps, differences, killed, toy_flags


@pytest.mark.usefixtures("grid")
def test_a_killed_sweep_resumes_to_the_same_table(sweeps: Sweeps) -> None:
    delay_s = random.SystemRandom().uniform(0, 3)
    print("killed", delay_s, "s after the first trial had ended")
    killed(sweeps, "killed", after_rows=1, delay_s=delay_s)
    before = {trial_id: row for trial_id, row in sweeps.rows("killed").items() if row["status"] == "succeeded"}
    done = sweeps.resume("killed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(sweeps, "killed", "grid") == []
    after = sweeps.rows("killed")
    for trial_id, row in before.items():  # finished trials were not run again
        assert (after[trial_id]["attempt"], after[trial_id]["ended_at"]) == (row["attempt"], row["ended_at"])


def test_a_sweep_interrupted_in_its_first_seconds_is_resumed_in_a_folder_of_odd_characters(
    toy: tuple[str, str], tmp_path: Path
) -> None:
    model, data = toy
    odd = Sweeps(tmp_path / "50% of it? #1", toy_flags(model, data, tmp_path / "50% of it? #1"))
    process = subprocess.Popen(
        odd.command("early", "--learning-rates", "1e-4", "--num-seeds", "1"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(3)  # nothing has begun
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 5, said
    done = odd.resume("early")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["status"] for row in odd.rows("early").values()} == {"succeeded"}
