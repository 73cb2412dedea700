"""Test of a node from nothing: cluster/node/setup.sh and the image's lines in a home of their own, then a training step.

The installed packages are those of the lock, with torch's CPU build in place of CUDA's. Two things come from this machine, since
they are downloaded from elsewhere than the package index: Python itself, and the image's base. The environment of the tests is
hidden meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import models
from tests.support.cluster_files import REPOSITORY
from tests.support.hosts import missing_for_hosts
from tests.support.reviews import reviews, write_glue_folder

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

NODE = REPOSITORY / "cluster/node"
UV = re.search(r"^UV_VERSION=(\S+)", (NODE / "setup.sh").read_text(), re.MULTILINE)[1]  # type: ignore[index]
SYSTEM_PYTHON = "/usr/bin/python3.11"


def pip(*words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-m", "pip", "-q", *words], capture_output=True, text=True, check=False)


def cpu_lock(lock: str, folder: Path) -> str:
    """Return the lock with torch's CPU build, whose wheel is fetched for its hash, and without CUDA's libraries."""
    version = re.search(r"^torch==(\S+)", lock, re.MULTILINE)[1]  # type: ignore[index]
    wheels = pip("download", "--no-deps", "-d", str(folder), f"torch=={version}+cpu")
    if wheels.returncode != 0:
        pytest.skip(f"the package index has no torch {version}+cpu: {wheels.stderr[-200:]}")
    (wheel,) = folder.glob("torch-*.whl")
    pins = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)
    kept = [pin for pin in pins if not re.match(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==", pin)]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return "".join(kept) + f"torch=={version}+cpu --hash=sha256:{digest}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home with what `ray up` copies, the interpreter that uv would download, and uv itself from the package index."""
    if reason := missing_for_hosts():
        pytest.skip(reason)
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"{SYSTEM_PYTHON} is missing: uv would download a Python from elsewhere than the package index")
    home = tmp_path / "home"
    shutil.copytree(NODE, home / ".sst2-ray/node")
    shutil.copytree(
        REPOSITORY / "sst2_ray", home / ".sst2-ray/src/sst2_ray", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", home / ".sst2-ray")
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("0" * 64)
    lock = home / ".sst2-ray/node/requirements.lock"
    (home / "wheels").mkdir()
    lock.write_text(cpu_lock(lock.read_text(), home / "wheels"))
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", str(home / ".sst2-ray/venv")], check=True)
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", str(home / "uv")], check=True)
    made = pip("install", f"uv=={UV}", python=str(home / "uv/bin/python"))
    if made.returncode != 0:
        pytest.skip(f"the package index has no uv {UV}: {made.stderr[-200:]}")
    (home / ".sst2-ray/bin").mkdir()
    (home / ".sst2-ray/bin/uv").symlink_to(home / "uv/bin/uv")
    return home


def on_the_node(home: Path, script: str, log: Path) -> float:
    """Run a script as a login of the node would, the tests' environment hidden; return its seconds."""
    hidden = f"mount -t tmpfs tmpfs {sys.prefix} && exec bash -c '. ~/.bashrc 2>/dev/null; {script}'"
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_")) or name.endswith("_proxy")
    }
    index = pip("config", "get", "global.index-url").stdout.strip()
    settings = {
        **kept, "HOME": str(home), "USER": "root", "PATH": f"{home}/.sst2-ray/bin:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8",
        "UV_FIND_LINKS": str(home / "wheels"), **({"UV_DEFAULT_INDEX": index} if index else {}),
    }  # fmt: skip
    begin = time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", hidden],
            env=settings, cwd=home, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-3000:]
    return time.monotonic() - begin


def test_a_node_is_set_up_from_nothing_and_takes_a_training_step(home: Path, tmp_path: Path) -> None:
    node = "~/.sst2-ray/node"
    first = on_the_node(home, f"bash {node}/setup.sh", tmp_path / "setup.log")
    assert re.search(r"setup: Python 3\.11\.\d+ Ray ", (tmp_path / "setup.log").read_text())
    again = on_the_node(home, f"bash {node}/setup.sh", tmp_path / "again.log")
    assert "setup: everything is installed" in (tmp_path / "again.log").read_text()

    data = write_glue_folder(home / "data", reviews(64), reviews(16, topic="play"))
    model = models.modernbert_folder(home / "model")
    words = f"--model {model} --data {data} --batch-size 16 --epochs 1 --max-length 64 --storage-path {home}/runs --name first"
    # The RUN lines of the image: the project without its dependencies, then what the image is for.
    image = f'python -c "import torch, ray, deepspeed" && uv pip install -q --python ~/.sst2-ray/venv/bin/python --no-deps {home}/project'
    project = home / "project"
    project.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, project)
    for name in ("sst2_ray", "jobs"):
        shutil.copytree(REPOSITORY / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    train = f"{image} && cd /tmp && python -m sst2_ray train {words}"
    step = on_the_node(home, train, tmp_path / "train.log")
    assert "first: succeeded" in (tmp_path / "train.log").read_text()
    print(
        f"set-up from nothing {first:.0f} s, again {again:.1f} s, image's last lines and a run of 4 steps {step:.0f} s"
    )
