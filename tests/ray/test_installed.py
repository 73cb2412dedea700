"""The package as people install it: from a wheel, in a folder with spaces, in a prefix of its own, by pipx, under uv."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environments import REPOSITORY, SmallRuns, copy_of_clone, wheel_of

UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(tmp_path_factory.mktemp("wheel"))


def install(wheel: Path, prefix: Path) -> Path:
    """Install the wheel, and give the prefix this environment's other packages; returns the command."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "--python", prefix / "bin/python", "install", "--no-deps", wheel], check=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return prefix / "bin/sst2-ray"


def trains_from_an_empty_folder(small: SmallRuns, name: str, command: Path, **environment: str) -> None:
    _, *flags = small.words(name)
    empty = small.folder / f"an empty folder for {name}"
    empty.mkdir()
    done = small.run([str(command), *flags], before=["env", "-C", str(empty)], PYTHONPATH="", **environment)
    small.succeeded(name, done)
    assert not list(empty.iterdir())


def test_a_wheel_in_a_folder_with_spaces_trains_from_an_empty_folder(
    small: SmallRuns, wheel: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "my environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    trains_from_an_empty_folder(small, "wheel", install(wheel, prefix))


def test_a_script_beside_a_clone_named_as_the_package_imports_the_package(tmp_path: Path) -> None:
    prefix, clone, script = tmp_path / "environment", copy_of_clone(tmp_path / "sst2_ray"), tmp_path / "script.py"
    script.write_text("import sst2_ray; print(sst2_ray.__file__)")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", prefix / "bin/python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-build-isolation", "-e", clone], check=True)
    said = subprocess.run([prefix / "bin/python", script], capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()) == clone / "sst2_ray/__init__.py"


def test_a_prefix_of_its_own_trains_as_conda_s_do(small: SmallRuns, wheel: Path, tmp_path: Path) -> None:
    """Make a whole Python in a folder, not a virtual environment; its standard library is linked."""
    prefix, version = tmp_path / "envs/sst2", f"python{sys.version_info.major}.{sys.version_info.minor}"
    library, base = prefix / "lib" / version, Path(sys.base_prefix)
    (library / "site-packages").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "conda-meta").mkdir()
    for entry in (base / "lib" / version).iterdir():
        if entry.name != "site-packages":
            (library / entry.name).symlink_to(entry)
    for shared in (base / "lib").glob("libpython*"):
        (prefix / "lib" / shared.name).symlink_to(shared)
    shutil.copy(os.path.realpath(sys.executable), prefix / "bin" / version)
    (prefix / "bin/python").symlink_to(version)
    asked = [prefix / "bin/python", "-c", "import sys; print(sys.prefix, sys.base_prefix)"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(prefix)] * 2
    conda = {"CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": "sst2", "VIRTUAL_ENV": ""}
    trains_from_an_empty_folder(small, "conda", install(wheel, prefix), **conda)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pipx_installs_a_command_that_trains(small: SmallRuns, wheel: Path, tmp_path: Path) -> None:
    """Install everything anew: pipx asks each package that the wheel needs for its metadata."""
    folders = {"PIPX_HOME": f"{tmp_path}/pipx", "PIPX_BIN_DIR": f"{tmp_path}/bin", "PIPX_MAN_DIR": f"{tmp_path}/man"}
    pins = f"--pip-args=-c {REPOSITORY}/constraints.txt"
    words = [sys.executable, "-m", "pipx", "install", pins, str(wheel)]
    done = subprocess.run(words, env={**os.environ, **folders}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trains_from_an_empty_folder(small, "pipx", tmp_path / "bin/sst2-ray")


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
