"""A notebook: a real IPython kernel trains, is interrupted, goes on, and leaves nothing running when it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sst2_ray.training.fault_injection import VARIABLE
from tests.support.faults import TinyRun, pause_at
from tests.support.heads import pids_of
from tests.support.notebooks import notebook
from tests.support.waiting import waited

CELL = """
import sst2_ray
from sst2_ray import TrainConfig
sst2_ray.train(TrainConfig(**{flags}))
"""


def cell_of(run: TinyRun) -> str:
    return CELL.format(
        flags={key: value if isinstance(value, int | float) else str(value) for key, value in run.flags.items()}
    )


def slow_run(folder: Path, name: str) -> tuple[TinyRun, Path, dict[str, str]]:
    """A run, the file that appears after its fifth step, from which on it is slow, and the variable that has it so."""
    run, mark = TinyRun(folder, name, num_workers=1, checkpoint_every_steps=1000), folder / f"{name} at work"
    return run, mark, {VARIABLE: json.dumps([fault.__dict__ for fault in pause_at(5, mark)])}


def test_a_notebook_trains_is_interrupted_goes_on_and_leaves_nothing(tmp_path: Path) -> None:
    run, mark, env = slow_run(tmp_path, "notebook")
    with notebook(tmp_path, **env) as book:
        request = book.start(cell_of(run))
        waited(mark.exists, "the fifth step", 150)
        book.manager.interrupt_kernel()
        reply = book.end(request)
        assert reply["ename"] == "StoppedError", reply
        (row,) = run.attempts()
        assert (row["status"], row["failure_class"]) == ("stopped", "user_stop")
        saved = row["last_global_step"]
        assert f"step {saved} is saved, and the same command goes on there" in reply["evalue"]
        assert book.text.count("stopping: writing a checkpoint (interrupt again to stop at once)") == 1, book.text
        assert {"starting Ray ...", "starting the workers ..."} <= set(book.drawn)
        assert any("<progress" in one for one in book.drawn)
        assert book.drawn[-1] == ""

        reply = book.end(book.start(cell_of(run)))
        assert reply["status"] == "ok", reply
        assert f"goes on at step {saved} (attempt 1)" in book.text
        assert "succeeded" in book.result["text/html"] and "succeeded" in book.result["text/plain"]
        assert len([m for m in book.shown if m["msg_type"] == "display_data"]) <= 2  # each redrawn in its place
        assert "epoch 2" in (run.run_folder / "logs" / "driver.log").read_text()

        book.manager.shutdown_kernel()
        waited(lambda: not pids_of(str(tmp_path)), "the end of all processes", 20)
    assert [row["status"] for row in run.attempts()] == ["stopped", "succeeded"]


@pytest.mark.slow
def test_a_kernel_that_is_killed_at_work_leaves_nothing_running(tmp_path: Path) -> None:
    run, mark, env = slow_run(tmp_path, "killed")
    with notebook(tmp_path, **env) as book:
        book.start(cell_of(run))
        waited(mark.exists, "the fifth step", 150)
        book.manager.shutdown_kernel(now=True)
        waited(lambda: not pids_of(str(tmp_path)), "the end of all processes", 30)
