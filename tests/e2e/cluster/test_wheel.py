"""The wheel is whole: from an empty folder its commands find the cluster files that it brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hosts import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package from a wheel, in a folder with a space in its name; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    target, source = folder / "site packages", folder / "source"
    # A copy: what an earlier build has left in build/ would be put into the wheel.
    shutil.copytree(
        REPOSITORY, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs")
    )
    build = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", *build, str(source)], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    install = ["pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, cwd=folder)
    return target


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    settings = {**kept, "HOME": str(folder / "home"), "PYTHONPATH": str(installed), "AWS_EC2_METADATA_DISABLED": "true"}
    (folder / "home").mkdir(exist_ok=True)
    (folder / "empty").mkdir(exist_ok=True)
    code = "from sst2_ray.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder / "empty", env=settings, capture_output=True, text=True, check=False
    )  # fmt: skip


@pytest.mark.parametrize("name", ["ray_cluster.yaml", "cluster/gcp.yaml", "cluster/azure.yaml", "cluster/onprem.yaml"])
def test_doctor_finds_the_shipped_file_and_what_it_mounts(installed: Path, tmp_path: Path, name: str) -> None:
    done = run(installed, tmp_path, "doctor", name, "--offline", "--verbose")
    assert "nodes get Ray" in done.stdout and "does not exist here" not in done.stdout, done.stdout + done.stderr


def test_submit_states_the_cost_of_the_shipped_file(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/a.py").write_text("print(1)")
    words = ["ray_cluster.yaml", "--working-dir", str(tmp_path / "work"), "--dry-run", "--", "python", "a.py"]
    done = run(installed, tmp_path, "submit", *words)
    assert done.returncode == 0 and "an hour: $0.19 idle, " in done.stderr, done.stderr


def test_ray_is_given_files_that_exist(installed: Path, tmp_path: Path) -> None:
    code = (
        "import yaml; from sst2_ray.cluster.file import load_cluster_file; from pathlib import Path\n"
        "path = load_cluster_file('ray_cluster.yaml').for_ray(); mounts = yaml.safe_load(path.read_text())['file_mounts']\n"
        "assert path.stat().st_mode & 0o077 == 0\n"
        "print(*(name for name, local in mounts.items() if not local.startswith('~') and not Path(local).exists()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr
