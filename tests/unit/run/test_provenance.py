from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray.records import TrialRecord
from sst2_ray.run import provenance
from sst2_ray.version import COMMIT_VARIABLE, __version__, git_state


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(tmp_path, "init", "-q")
    (tmp_path / "module.py").write_text("x = 1\n")
    git(tmp_path, "add", "module.py")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_what_is_collected_are_fields_of_a_trial() -> None:
    assert set(provenance.collect_provenance()) <= set(TrialRecord.__dataclass_fields__)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from sst2_ray.run.provenance import collect_provenance; collect_provenance(); "
        "print([m for m in ('torch', 'ray', 'transformers', 'deepspeed') if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_versions_come_from_the_installed_metadata() -> None:
    versions = json.loads(provenance.collect_provenance(cuda_version="12.8")["versions_json"])
    assert versions["sst2-ray"] == __version__
    assert versions["cuda"] == "12.8"
    assert versions["pyarrow"]


def test_the_gpu_is_the_chip_where_there_is_one() -> None:
    assert provenance.collect_provenance(gpu_name="NVIDIA L4")["chip"] == "NVIDIA L4"
    assert provenance.collect_provenance(gpu_name="NVIDIA L4")["device"] == "cuda"
    assert provenance.collect_provenance()["chip"] == provenance.cpu_name()


def test_a_clean_checkout_and_a_dirty_one(checkout: Path) -> None:
    commit, dirty = git_state(checkout / "module.py")
    assert commit is not None
    assert len(commit) == 40
    assert dirty is False
    (checkout / "module.py").write_text("x = 2\n")
    assert git_state(checkout / "module.py") == (commit, True)


def test_a_package_inside_another_projects_checkout_has_no_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    (checkout / "site-packages").mkdir()
    (checkout / "site-packages" / "ours.py").write_text("")
    assert git_state(checkout / "site-packages" / "ours.py") == (None, None)


@pytest.mark.parametrize(("given", "expected"), [("abc", ("abc", False)), ("abc-dirty", ("abc", True))])
def test_uploaded_code_is_told_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: tuple[str, bool]
) -> None:
    monkeypatch.setenv(COMMIT_VARIABLE, given)
    assert git_state(tmp_path / "module.py") == expected
