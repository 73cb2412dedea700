from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sst2_ray.cluster.doctor.command import DoctorConfig, examine_file
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.cluster.findings import Finding
from tests.support.cluster_files import REPOSITORY

Examine = Callable[[dict[str, Any]], list[Finding]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a token and a cluster key, and the repository as working folder, as a user would have."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ssh").mkdir()
    for name in (".ray/auth_token", ".ssh/sst2-ray"):
        (home / name).write_text("0123456789abcdef" * 4)
        (home / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):  # the commands set them for their process
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    # No credentials of whoever runs the tests, and no second of waiting for the address where EC2 hands them out.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Google's library may be installed here: without it no test asks Google.
    monkeypatch.setitem(sys.modules, "googleapiclient", None)
    monkeypatch.chdir(REPOSITORY)
    return home


@pytest.fixture
def examine(home: Path, tmp_path: Path) -> Examine:  # noqa: ARG001
    """Doctor's findings about a document, without those about what this machine has installed."""

    def run(document: dict[str, Any]) -> list[Finding]:
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        findings = examine_file(load_cluster_file(path), DoctorConfig(offline=True))
        return [finding for finding in findings if finding.where != "laptop"]

    return run
