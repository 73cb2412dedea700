"""A notebook: a real IPython kernel trains, is interrupted, goes on, and leaves nothing running when it ends."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from sst2_ray.training.fault_injection import VARIABLE
from tests.support.faults import REPOSITORY, TinyRun, pause_at
from tests.support.heads import MARKER, pids_of
from tests.support.waiting import waited

CELL = """
import sst2_ray
from sst2_ray import TrainConfig
sst2_ray.train(TrainConfig(**{flags}))
"""


@dataclass
class Notebook:
    """A kernel, its client, and what the cell that runs has shown."""

    manager: KernelManager
    client: BlockingKernelClient
    shown: list[dict[str, Any]] = field(default_factory=list)

    def start(self, code: str) -> str:
        """Begin a cell and return the id of its request."""
        self.shown.clear()
        return self.client.execute(code)

    def end(self, request: str, timeout_s: float = 150) -> dict[str, Any]:
        """Wait for the end of a cell and return the kernel's reply."""
        while (message := self.client.get_iopub_msg(timeout=timeout_s))["parent_header"].get("msg_id") != request or (
            message["content"].get("execution_state") != "idle"
        ):
            self.shown.append(message)
        return self.client.get_shell_msg(timeout=10)["content"]

    @property
    def text(self) -> str:
        """Return what the cell printed."""
        return "".join(m["content"]["text"] for m in self.shown if m["msg_type"] == "stream")

    @property
    def result(self) -> dict[str, str]:
        """Return the value of the cell's last line, by MIME type."""
        (found,) = [m["content"]["data"] for m in self.shown if m["msg_type"] == "execute_result"]
        return found


@contextlib.contextmanager
def notebook(folder: Path, **env: str) -> Iterator[Notebook]:
    values = {
        **os.environ,
        MARKER: str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}',
        **env,
    }
    manager, client = start_new_kernel(env=values, cwd=str(folder))
    try:
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        with contextlib.suppress(RuntimeError):
            manager.shutdown_kernel(now=True)


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
        for line in ("starting Ray ...", "starting the workers ...", "stopping: writing a checkpoint (again: at once)"):
            assert book.text.count(line) == 1, book.text

        reply = book.end(book.start(cell_of(run)))
        assert reply["status"] == "ok", reply
        assert f"goes on at step {saved} (attempt 1)" in book.text
        assert "succeeded" in book.result["text/html"] and "succeeded" in book.result["text/plain"]
        assert not [m for m in book.shown if m["msg_type"] == "display_data"]
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
