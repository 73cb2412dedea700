"""cluster/node/setup.sh on a machine of stand-ins: an environment that is complete, a uv and an nvidia-smi that only answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster_files import REPOSITORY

NO_DRIVER = 'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9'
NO_DEVICE = "echo 'No devices were found'; exit 6"
# missing.py finds nothing missing, flash_attn cannot be imported.
PYTHON = """case "$*" in *missing.py*) ;; *flash_attn*) exit 1 ;; *) echo Python 3.11 Ray 2.60 ;; esac"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("nvidia_smi", "installs_flash_attention"),
    [
        (NO_DRIVER, False),
        (NO_DEVICE, False),
        ("echo '[N/A]'", False),
        ("echo 7.5", False),
        ("echo 8.9; echo 8.9", True),
        ("echo 10.0", True),
    ],
)
def test_set_up_succeeds_whatever_nvidia_smi_says(
    tmp_path: Path, nvidia_smi: str, installs_flash_attention: bool
) -> None:
    script(tmp_path / "bin/nvidia-smi", nvidia_smi)
    script(tmp_path / "bin/uv", f'echo "$@" >> {tmp_path}/uv')
    script(tmp_path / ".sst2-ray/venv/bin/python", PYTHON)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").touch()
    done = subprocess.run(
        ["bash", str(REPOSITORY / "cluster/node/setup.sh")],
        env={"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("setup: Python 3.11 Ray 2.60\n")
    installed = (tmp_path / "uv").read_text() if (tmp_path / "uv").exists() else ""
    assert ("flash_attn" in installed) == installs_flash_attention
