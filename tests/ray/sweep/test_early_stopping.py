"""ASHA and median stopping end to end: who is stopped, who is not, and that a kill in the middle changes no decision."""

from __future__ import annotations

import pytest

from tests.support import models
from tests.support.reviews import reviews, write_glue_folder
from tests.support.sweeps import Sweeps, differences, killed, toy_flags

pytestmark = pytest.mark.slow

LEARNS, TOO_SMALL = ("1e-3", "1.5e-3", "2e-3"), "1e-7"


def words(scheduler: str) -> tuple[str, ...]:
    """Return flags for one trial after the other, the smallest learning rate last: decisions do not depend on the machine's speed."""
    rates = ("--learning-rates", *LEARNS, TOO_SMALL, "--num-seeds", "1", "--max-concurrent", "1")
    return (*rates, "--epochs", "3", "--batch-sizes", "8", "--scheduler", scheduler)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    """Make sweeps of sentences enough to learn from: 512, and 64 of dev."""
    folder = tmp_path_factory.mktemp("stopping")
    model = models.modernbert_folder(folder / "toy")
    data = write_glue_folder(folder / "data", reviews(512), reviews(64, topic="show"))
    return Sweeps(folder / "runs", toy_flags(str(model), str(data), folder / "runs"))


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_what_is_far_behind_is_stopped_and_a_kill_changes_no_decision(sweeps: Sweeps, scheduler: str) -> None:
    done = sweeps.run(scheduler, *words(scheduler))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {str(row["learning_rate"]): row for row in sweeps.rows(scheduler).values()}
    assert {row["status"] for row in rows.values()} == {"succeeded", "early_stopped"}
    assert rows["1e-07"]["status"] == "early_stopped"
    assert len(sweeps.curves(scheduler)[rows["1e-07"]["trial_id"]]) == 1
    assert rows["0.001"]["status"] == "succeeded"
    assert "1 early stopped" in done.stdout or "2 early stopped" in done.stdout

    killed(sweeps, f"{scheduler}-killed", after_rows=1, delay_s=2.0, words=words(scheduler))
    again = sweeps.resume(f"{scheduler}-killed")
    assert again.returncode == 0, again.stdout + again.stderr
    assert differences(sweeps, f"{scheduler}-killed", scheduler) == []
    before = sweeps.rows(f"{scheduler}-killed")
    once_more = sweeps.resume(f"{scheduler}-killed")  # who was decided on is not asked again
    assert once_more.returncode == 0, once_more.stdout + once_more.stderr
    assert sweeps.rows(f"{scheduler}-killed") == before
