"""The kernel of a notebook, as a test drives it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from tests.support.faults import REPOSITORY
from tests.support.heads import MARKER


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
        # A kernel that was slow to start has been asked several times whether it is ready: those replies come first.
        while (reply := self.client.get_shell_msg(timeout=10))["parent_header"].get("msg_id") != request:
            pass
        return reply["content"]

    @property
    def text(self) -> str:
        """Return what the cell printed."""
        return "".join(m["content"]["text"] for m in self.shown if m["msg_type"] == "stream")

    @property
    def drawn(self) -> list[str]:
        """Return what the outputs that are redrawn in place showed, one after the other."""
        kinds = ("display_data", "update_display_data")
        return [m["content"]["data"].get("text/html", "") for m in self.shown if m["msg_type"] in kinds]

    @property
    def result(self) -> dict[str, str]:
        """Return the value of the cell's last line, by MIME type."""
        (found,) = [m["content"]["data"] for m in self.shown if m["msg_type"] == "execute_result"]
        return found


@contextlib.contextmanager
def notebook(folder: Path, **env: str) -> Iterator[Notebook]:
    """Start a kernel whose working directory is `folder`; its processes have the folder in their environment."""
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
