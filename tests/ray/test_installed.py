"""The package as people install it: from a wheel, in a folder with spaces, under uv."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environments import SmallRuns, small_runs, wheel_of

UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


@pytest.fixture(scope="module")
def small() -> Iterator[SmallRuns]:
    with tempfile.TemporaryDirectory(prefix="env-", dir="/tmp") as folder:
        yield small_runs(Path(folder))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment in a folder with spaces: the wheel, and this environment's other packages."""
    made = tmp_path_factory.mktemp("installed")
    wheel = wheel_of(made)
    prefix = made / "my environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "--python", prefix / "bin/python", "install", "--no-deps", wheel], check=True)
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return prefix


def test_a_wheel_in_a_folder_with_spaces_trains_from_an_empty_folder(small: SmallRuns, prefix: Path) -> None:
    _, *flags = small.words("wheel")
    empty = small.folder / "an empty folder"
    empty.mkdir()
    done = small.run([str(prefix / "bin/sst2-ray"), *flags], before=["env", "-C", str(empty)], PYTHONPATH="")
    small.succeeded("wheel", done)
    assert not list(empty.iterdir())


@pytest.mark.skipif(not Path(UV).exists(), reason="pip install uv")
def test_a_run_under_uv_trains(small: SmallRuns) -> None:
    """Start from a folder with a project of its own, which Ray's hook would ship to the workers."""
    project = small.folder / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "theirs"\nversion = "0"\nrequires-python = ">=3.11"\n')
    words = [UV, "run", "--offline", "--no-sync", "--active", *small.words("uv")]
    environment = {"VIRTUAL_ENV": sys.prefix, "UV_CACHE_DIR": str(small.folder / "uv"), "HOME": os.environ["HOME"]}
    done = small.run(words, before=["env", "-C", str(project)], **environment)
    small.succeeded("uv", done)
