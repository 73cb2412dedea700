"""Doctor's job on a cluster: what it is asked to check travels with its files, not in what everybody reads of a job."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.cluster.doctor import cluster_probe, running
from sst2_ray.cluster.doctor.probe import MARK
from sst2_ray.errors import RunFailedError

SECRET = "hidden" + "Word"
URI = f"s3://KEY:{SECRET}@bucket/runs"


class Client:
    """A job server that takes a job, keeping a copy of its files, and loses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job: dict[str, Any] = {}

    def submit_job(self, **job: Any) -> None:
        shutil.copytree(job["runtime_env"]["working_dir"], self.folder)
        self.job = job


def follow(_: object) -> None:
    raise RunFailedError("lost")


def test_credentials_reach_the_probe_and_are_no_part_of_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(tmp_path / "job")
    monkeypatch.setattr(running, "connect", lambda _: client)
    monkeypatch.setattr(running.Follower, "follow", follow)
    options = {"storage_path": URI, "model": "sbert", "data": URI, "rehearse": False}
    running.check_cluster("http://127.0.0.1:8265", lambda: None, options)
    assert SECRET not in json.dumps({**client.job, "runtime_env": {**client.job["runtime_env"], "working_dir": ""}})
    monkeypatch.chdir(client.folder)
    words = shlex.split(client.job["entrypoint"])
    assert words[:3] == ["python", "-m", "sst2_ray.cluster.doctor.cluster_probe"]
    files = [Path(word) for word in words[3:]]
    assert [file.stat().st_mode & 0o077 for file in files] == [0]
    assert cluster_probe.read_options(files[0]).raw == options
    assert not files[0].exists()
    capsys.readouterr()


@pytest.mark.parametrize("kind", ["data", "model"])
def test_findings_about_data_and_models_repeat_no_secret(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    cluster_probe._tell(cluster_probe.check_source("node", kind, URI))
    printed = capsys.readouterr().out
    assert printed.startswith(MARK) and f"--{kind} s3://bucket/runs" in printed
    assert SECRET not in printed
