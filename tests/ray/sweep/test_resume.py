"""Kill -9 of a sweep's driver, then --resume: the table is that of a sweep that nobody disturbed."""

from __future__ import annotations

import random

import pytest

from tests.support.sweeps import Sweeps, differences, killed


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
