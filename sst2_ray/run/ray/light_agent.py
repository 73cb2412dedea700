"""Script that a raylet of this process's own starts in place of Ray's dashboard agent, which nothing of a run asks for.

Ray's imports all of the dashboard, a second of a core, and a node is not there before its agent has told its ports. This one
tells with the standard library alone that it has none, and ends with the raylet, which ends with it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
"""Names of the files, in the session's folder, that the raylet reads an agent's ports from."""

_NONE = "-1"
"""Port of a service that is not in use, as Ray's own agent says it."""

_LOOK_S = 0.5


def main(words: list[str]) -> None:
    """Write the ports, then wait. `words`: Ray's script for agents and its arguments."""
    own = {name: value for name, _, value in (word.partition("=") for word in words)}
    folder, node, raylet = (
        own.get("--session-dir"),
        own.get("--node-id"),
        int(os.environ.get("RAY_RAYLET_PID", os.getppid())),
    )
    if not folder or not node:  # another Ray than the one that is known here
        os.execv(sys.executable, [sys.executable, "-u", *words])
    for name in _PORTS:
        path = Path(folder, f"{name}_{node}")
        path.with_suffix(".new").write_text(_NONE)
        path.with_suffix(".new").rename(path)
    with contextlib.suppress(KeyboardInterrupt):
        while os.getppid() == raylet:
            time.sleep(_LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1:])
