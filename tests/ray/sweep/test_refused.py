"""What no machine can hold is refused at once: Ray is not even started."""

from __future__ import annotations

from pathlib import Path

from tests.support.sweeps import Sweeps


def test_what_can_never_be_placed_is_refused_before_anything_starts(sweeps: Sweeps, tmp_path: Path) -> None:
    impossible = ("--num-workers", "2", "--cpus-per-worker", "999")
    done = sweeps.run("impossible", *impossible, env={"RAY_TMPDIR": str(tmp_path)})
    assert done.returncode == 3
    assert "2 workers of 999 CPUs are asked for, room for 0" in done.stderr
    assert not (sweeps.storage / "impossible").exists()
    assert not list(tmp_path.iterdir())  # Ray's sessions would lie there
