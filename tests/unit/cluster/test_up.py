"""`sst2-ray up` on a cluster that runs already, and with a key pair that only one side has."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.job_submission import JobDetails, JobStatus, JobType

from sst2_ray.cluster import up, zones
from sst2_ray.cluster.clouds import CLOUDS, NoHeadError
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.errors import InfeasibleError, InputError, RunFailedError
from tests.support.cluster_files import FILES, rendered


@pytest.fixture
def started(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:  # noqa: ARG001
    """Ray's command lines, which are not run; doctor finds nothing."""
    lines: list[list[str]] = []
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(up, "_refuse_mistakes", lambda *_: None)
    monkeypatch.setattr(up, "wait_for_workers", lambda *_, **__: None)
    monkeypatch.setattr(zones, "run_ray", lambda arguments, _: lines.append(list(arguments)) or 0)
    return lines


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A head that runs with jobs of these states, or one that cannot be reached."""

    def runs(*states: str, reached: bool = True) -> None:
        jobs = [
            JobDetails(type=JobType.SUBMISSION, submission_id=f"job-{n}", status=JobStatus(state), entrypoint="x")
            for n, state in enumerate(states)
        ]

        @contextlib.contextmanager
        def tunnel(_: Any) -> Iterator[Any]:
            if not reached:
                raise InputError("ssh to ubuntu@203.0.113.9: timed out")
            yield SimpleNamespace(url="http://127.0.0.1:1")

        monkeypatch.setattr(CLOUDS["gcp"], "head", lambda _: "203.0.113.9", raising=False)
        monkeypatch.setattr(up, "Tunnel", tunnel)
        monkeypatch.setattr(up, "connect", lambda _: SimpleNamespace(list_jobs=lambda: jobs))

    return runs


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Questions, each answered with yes."""
    questions: list[str] = []
    monkeypatch.setattr(up, "_confirmed", lambda question: not questions.append(question))
    return questions


def test_up_on_a_cluster_with_jobs_is_refused_with_their_names(
    head: Callable[..., None], started: list[list[str]]
) -> None:
    head("RUNNING", "FAILED", "PENDING")
    with pytest.raises(InputError, match=r"203\.0\.113\.9.*end job-0, job-2; wait for the end, or pass --restart"):
        up.main([str(FILES["gcp"]), "--yes"])
    assert started == []


def test_restart_ends_the_jobs_after_a_question_that_names_them(
    head: Callable[..., None], started: list[list[str]], asked: list[str]
) -> None:
    head("RUNNING")
    assert up.main([str(FILES["gcp"]), "--restart"]) == 0
    assert len(started) == 1 and "jobs that this ends: job-0; restart Ray" in asked[0]


@pytest.mark.parametrize(("reached", "told"), [(True, "no job on it"), (False, "its jobs cannot be asked for (ssh to")])
def test_the_question_about_a_running_cluster_says_that_ray_is_restarted(
    head: Callable[..., None], started: list[list[str]], asked: list[str], reached: bool, told: str
) -> None:
    head("SUCCEEDED", reached=reached)
    assert up.main([str(FILES["gcp"])]) == 0
    assert len(started) == 1 and told in asked[0] and "the head may be replaced" in asked[0]


def test_a_cluster_that_does_not_run_is_started_with_a_plain_question(
    head: Callable[..., None], started: list[list[str]], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head(reached=False)

    def none(_: Any) -> str:
        raise NoHeadError("no running head")

    monkeypatch.setattr(CLOUDS["gcp"], "head", none)
    assert up.main([str(FILES["gcp"])]) == 0
    assert len(started) == 1 and asked == ["start cluster sst2 (gcp)?"]


def test_machines_of_ones_own_that_do_not_run_ray_are_started(
    head: Callable[..., None], started: list[list[str]], asked: list[str]
) -> None:
    head(reached=False)
    assert up.main([str(FILES["onprem"])]) == 0
    assert len(started) == 1 and asked[0].startswith("start cluster sst2-onprem (local)?")


def test_workers_that_the_file_names_are_found_by_what_the_head_calls_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text(
        'def init(**_): pass\ndef nodes(): return [{"NodeManagerAddress": "127.0.0.1", "Alive": True}, '
        '{"NodeManagerAddress": "127.0.0.2", "Alive": False}]\n'
    )
    (tmp_path / "python").symlink_to(sys.executable)
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path), "HOME": str(home)}

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", script], env=settings, capture_output=True, text=True, check=False)

    monkeypatch.setattr(CLOUDS["local"], "host", lambda *_: SimpleNamespace(run=run), raising=False)
    document = rendered("onprem")
    for names, missing in (
        (["localhost"], ""),
        (["localhost", "127.0.0.2", "no-such-host.invalid"], "127.0.0.2, no-such-host.invalid"),
    ):
        document["provider"].update(head_ip="gpu0.example.org", worker_ips=names)
        (tmp_path / "named.yaml").write_text(yaml.safe_dump(document))
        cluster = load_cluster_file(tmp_path / "named.yaml")
        with pytest.raises(InfeasibleError, match=f"^{missing} did not join") if missing else contextlib.nullcontext():
            up.wait_for_workers(cluster, timeout_s=1)


def test_where_jobs_cannot_be_asked_for_yes_alone_restarts_nothing(
    head: Callable[..., None], started: list[list[str]]
) -> None:
    head("RUNNING", reached=False)
    with pytest.raises(InputError, match=r"its jobs cannot be asked for .* pass --restart"):
        up.main([str(FILES["gcp"]), "--yes"])
    assert started == []
    assert up.main([str(FILES["gcp"]), "--yes", "--restart"]) == 0


@pytest.mark.parametrize("code", [None, 1])
def test_a_start_that_is_broken_off_says_how_what_runs_is_ended(
    head: Callable[..., None],
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int | None,
) -> None:
    def run_ray(*_: Any) -> int:
        if code is None:
            raise KeyboardInterrupt
        return code

    del started
    head()
    monkeypatch.setattr(zones, "run_ray", run_ray)
    with pytest.raises(KeyboardInterrupt if code is None else RunFailedError) as problem:
        up.main([str(FILES["gcp"]), "--yes"])
    told = capsys.readouterr().err if code is None else str(problem.value)
    assert f"`sst2-ray down {FILES['gcp']}` ends what was started" in told
    assert code is not None or "sst2 may run, and may not end by itself yet" in told
