"""The lock that nodes install from, resolved by the uv that cluster/node/setup.sh uses; the package index has to be in reach."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster_files import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NODE = REPOSITORY / "cluster/node"
UV = re.search(r"^UV_VERSION=(\S+)", (NODE / "setup.sh").read_text(), re.MULTILINE)[1]  # type: ignore[index]
SYSTEM_PYTHON = "/usr/bin/python3.11"


def test_the_lock_resolves_for_a_node_with_every_hash(tmp_path: Path) -> None:
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"{SYSTEM_PYTHON} is missing: the lock is for that version of Python")
    for name in ("uv", "node"):
        subprocess.run([SYSTEM_PYTHON, "-m", "venv", str(tmp_path / name)], check=True)
    made = subprocess.run(
        [str(tmp_path / "uv/bin/python"), "-m", "pip", "-q", "install", f"uv=={UV}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"the package index has no uv {UV}: {made.stderr[-200:]}")
    lock = NODE / "requirements.lock"
    words = [
        "pip",
        "install",
        "--dry-run",
        "--require-hashes",
        "--python",
        str(tmp_path / "node/bin/python"),
        "-r",
        str(lock),
    ]
    done = subprocess.run([str(tmp_path / "uv/bin/uv"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    chosen = set(re.findall(r"^ \+ ([\w.-]+==\S+)", done.stderr, re.MULTILINE))
    assert chosen == set(re.findall(r"^([\w.-]+==[^\s\\]+)", lock.read_text(), re.MULTILINE))
