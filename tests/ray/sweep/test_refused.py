"""Tests that what no machine can hold is refused at once: Ray is not even started."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.sweeps import Sweeps


def test_what_can_never_be_placed_is_refused_before_anything_starts(sweeps: Sweeps) -> None:
    impossible = ("--num-workers", "2", "--cpus-per-worker", "999")
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as sessions:
        done = sweeps.run("impossible", *impossible, env={"RAY_TMPDIR": sessions})
        assert not list(Path(sessions).iterdir())  # Ray's sessions would lie there
    assert done.returncode == 3
    assert "2 workers of 999 CPUs are asked for, room for 0" in done.stderr
    assert not (sweeps.storage / "impossible").exists()
