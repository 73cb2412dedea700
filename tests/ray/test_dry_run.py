"""`--dry-run` of every job that has one prints a plan, starts nothing and writes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.models import sbert_folder
from tests.support.reviews import reviews, write_glue_folder

ROOT = Path(__file__).resolve().parents[2]
COMMON = ("--data", "data", "--storage-path", "runs", "--batch-size", "16")
JOBS = {
    "train": ("--model", "./model", *COMMON, "--name", "planned", "--dry-run"),
    "sweep": ("--models", "./model", "--data", "data", "--storage-path", "runs", "--batch-sizes", "16", "--name", "planned",
              "--dry-run"),
}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_a_dry_run_starts_and_writes_nothing(tmp_path: Path, job: str) -> None:
    sbert_folder(tmp_path / "model")
    write_glue_folder(tmp_path / "data", reviews(64), reviews(16, topic="play"))
    before = sorted(tmp_path.rglob("*"))
    # Its path is short: Ray's sockets below it must have names that the kernel takes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as sessions:
        done = subprocess.run(
            [sys.executable, str(ROOT / f"jobs/{job}.py"), *JOBS[job]],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": sessions},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not list(Path(sessions).iterdir())  # a Ray that was started would have left its session's folder there
    assert done.returncode == 0, done.stderr
    assert "planned" in done.stdout
    assert "nothing was started, nothing was written" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before
