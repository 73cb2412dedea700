"""cluster/node/setup.sh on a machine of stand-ins: an environment that is complete, a uv that only answers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.cluster_files import REPOSITORY

PYTHON = """case "$*" in *missing.py*) exit %d ;; *) echo Python 3.11 Ray 2.60 ;; esac"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def set_up(home: Path, *requirements: str, missing: int = 0) -> subprocess.CompletedProcess[str]:
    script(home / "bin/uv", f'[ "$1" = --version ] && echo uv 0.9.5; echo "$@" >> {home}/uv')
    script(home / ".sst2-ray/venv/bin/python", PYTHON % missing)
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").touch()
    return subprocess.run(
        ["bash", str(REPOSITORY / "cluster/node/setup.sh"), *requirements],
        env={"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_set_up_installs_nothing_where_everything_is_there(tmp_path: Path) -> None:
    done = set_up(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        done.stdout == "setup: everything is installed\nsetup: Python 3.11 Ray 2.60\n"
        and not (tmp_path / "uv").exists()
    )


def test_set_up_installs_the_lock_with_its_hashes_and_further_packages_at_their_pins(tmp_path: Path) -> None:
    done = set_up(tmp_path, "boto3>=1.28", missing=1)
    assert done.returncode == 1 and "packages are still missing" in done.stderr
    lock, further = [line for line in (tmp_path / "uv").read_text().splitlines() if "install" in line]
    assert "--require-hashes -r" in lock and lock.endswith("cluster/node/requirements.lock")
    assert further.endswith("cluster/node/clouds.lock boto3>=1.28")


def test_the_session_folder_lies_in_a_folder_that_nobody_else_can_enter(tmp_path: Path) -> None:
    assert set_up(tmp_path).returncode == 0
    ask = 'echo "$RAY_TMPDIR"; stat -c "%a %u" "$RAY_TMPDIR"'

    def shell(**more: str) -> list[str]:
        settings = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **more}
        words = ["bash", "-c", f". ~/.sst2-ray/env; {ask}"]
        return subprocess.run(words, env=settings, capture_output=True, text=True, check=True).stdout.split()

    script(tmp_path / "bin/id", f"echo t{os.getpid()}")
    folder = Path(f"/tmp/sst2-ray-t{os.getpid()}")
    try:
        assert shell() == [str(folder), "700", str(os.getuid())]
        folder.chmod(0o777)  # somebody else's, or opened by somebody
        assert shell() == [f"{tmp_path}/.sst2-ray/tmp", "700", str(os.getuid())]
    finally:
        folder.rmdir()
