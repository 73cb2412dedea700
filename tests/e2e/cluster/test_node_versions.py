"""A machine with another Python or Ray is named by doctor before anything is started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.cluster.conftest import CLI, onprem_file
from tests.support.hosts import HostLab

pytestmark = pytest.mark.e2e

SYSTEM_PYTHON = "/usr/bin/python3"


def give_environment(lab: HostLab, index: int, script: str) -> None:
    """Make `script` the host's Python, in place of the environment that it shares with the others."""
    lab.run(
        index,
        f"cd ~/.sst2-ray; rm -rf venv; mkdir -p venv/bin; printf '%s\\n' '{script}' > venv/bin/python; chmod +x venv/bin/python",
    )
    for host in range(3):
        lab.run(host, "echo 'export PATH=$HOME/.sst2-ray/venv/bin:$PATH' > ~/.bashrc")


def site_packages() -> str:
    import ray

    return ray.__file__.rsplit("/ray/", 1)[0]


def test_a_worker_with_another_patch_of_python_is_named(lab: HostLab) -> None:
    version = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    mine = sys.version.split()[0]
    if not version or version == mine:
        pytest.skip(f"{SYSTEM_PYTHON} is {version or 'missing'}: a second Python beside {mine} is needed")
    give_environment(lab, 2, f'#!/bin/sh\nPYTHONPATH={site_packages()} exec {SYSTEM_PYTHON} "$@"')
    result = lab.laptop(*CLI, "doctor", str(onprem_file(lab)))
    assert result.returncode == 2
    assert f"{lab.address(2)}: Python {version}, the head has {mine}: Ray refuses the node" in result.stdout
    assert lab.address(1) not in "".join(line for line in result.stdout.splitlines() if line.startswith("ERROR"))


def test_a_worker_with_another_ray_is_named(lab: HostLab) -> None:
    lab.run(
        2,
        "mkdir -p ~/other/ray-2.59.0.dist-info; cd ~/other/ray-2.59.0.dist-info; printf 'Name: ray\nVersion: 2.59.0\n' > METADATA",
    )
    give_environment(lab, 2, f'#!/bin/sh\nPYTHONPATH=$HOME/other exec {sys.executable} "$@"')
    result = lab.laptop(*CLI, "doctor", str(onprem_file(lab)))
    assert result.returncode == 2
    assert f"{lab.address(2)}: Ray 2.59.0, the head has" in result.stdout


def test_up_starts_nothing_where_a_machine_does_not_fit(lab: HostLab) -> None:
    result = lab.laptop(*CLI, "up", str(onprem_file(lab)), "--yes")
    assert result.returncode == 2
    assert "nothing was started" in result.stderr
    assert "gcs_server" not in lab.run(0, "ps ax -o args").stdout
