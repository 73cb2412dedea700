"""Tests of the Ray that a run finds itself on: another version's, one that another start has, one of a thread or an event loop."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sst2_ray.run.local_ray import secure_token
from tests.support.environments import REPOSITORY, SmallRuns, in_container, missing_for_containers, small_runs
from tests.support.heads import Head, started_head
from tests.support.waiting import waited

OTHER_VERSION = """
import json, sys
import ray
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
ray.init(address=sys.argv[1], log_to_driver=False)
said = json.loads(_internal_kv_get(b"CLUSTER_METADATA", namespace=KV_NAMESPACE_CLUSTER))
said[sys.argv[2]] = sys.argv[3]
_internal_kv_put(b"CLUSTER_METADATA", json.dumps(said).encode(), True, namespace=KV_NAMESPACE_CLUSTER)
"""
"""A real head whose metadata say that another version started it."""

EVERYWHERE = """
import asyncio, sys, threading
import sst2_ray
from sst2_ray import TrainConfig

def run(name):
    folder = sys.argv[1]
    config = TrainConfig(model=f"{folder}/model", data=f"{folder}/data", batch_size=16, epochs=1,
                         storage_path=f"{folder}/runs", name=name)
    print(name, sst2_ray.train(config, quiet=True).status, flush=True)

async def in_a_loop():
    run("in-a-loop")

asyncio.run(in_a_loop())
thread = threading.Thread(target=run, args=("in-a-thread",))
thread.start()
thread.join()
"""


def call(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, timeout=200)


def test_a_run_joins_the_cluster_that_is_named_with_this_user_s_token(small: SmallRuns) -> None:
    secure_token()  # as an earlier local run would have left it
    with started_head("--include-dashboard=false", RAY_AUTH_MODE="token") as head:
        done = waited(lambda: _once_it_answers(small, head), "the head", 60)
        small.succeeded("joined", done)
        assert list(head.folder.glob("session_*"))


def test_a_cluster_without_a_token_is_joined_without_this_user_s(
    small: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # Ray sets it in a process that has started one
    secure_token()
    with started_head("--include-dashboard=false", RAY_AUTH_MODE="disabled") as head:
        small.succeeded("tokenless", waited(lambda: _once_it_answers(small, head, "tokenless"), "the head", 60))
        done = small.run(small.words("refused"), RAY_ADDRESS=head.address, RAY_AUTH_MODE="token")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "was started without a token" in done.stderr


def _once_it_answers(small: SmallRuns, head: Head, name: str = "joined") -> subprocess.CompletedProcess[str] | None:
    done = small.run(small.words(name), RAY_ADDRESS=head.address)
    begins = "no Ray head answers" in done.stderr or "did not answer within" in done.stderr
    return None if begins else done


@pytest.mark.slow
@pytest.mark.parametrize(("key", "version"), [("ray_version", "2.9.3"), ("python_version", "3.9.1")])
def test_a_cluster_of_another_version_is_named_before_anything_starts(small: SmallRuns, key: str, version: str) -> None:
    with started_head("--include-dashboard=false") as head:
        waited(lambda: call(OTHER_VERSION, head.address, key, version).returncode == 0, "the head", 90)
        done = small.run(small.words("mismatched"), RAY_ADDRESS=head.address)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert version in done.stderr and "cannot be joined" in done.stderr
    assert not (small.folder / "runs" / "mismatched").exists()


def test_runs_in_an_event_loop_in_a_thread_and_twice_in_a_process(small: SmallRuns) -> None:
    done = call(EVERYWHERE, str(small.folder))
    assert done.stdout.splitlines() == ["in-a-loop succeeded", "in-a-thread succeeded"], done.stderr


@pytest.mark.slow
def test_two_starts_at_once_have_a_ray_each(small: SmallRuns) -> None:
    names = ("one", "two")
    with ThreadPoolExecutor(2) as pool:
        for name, done in zip(names, pool.map(lambda name: small.run(small.words(name)), names), strict=True):
            small.succeeded(name, done)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_for_containers()), reason=missing_for_containers() or "-")
def test_a_run_beside_another_user_s_ray_has_one_of_its_own() -> None:
    """Another user's head runs on this machine, with its sessions in the folder that this user's lie in as well."""
    with (
        tempfile.TemporaryDirectory(prefix="env-", dir="/tmp") as folder,  # of its own: its files are this user's
        tempfile.TemporaryDirectory(prefix="c-", dir="/tmp") as work,
        tempfile.TemporaryDirectory(prefix="s-", dir="/tmp", ignore_cleanup_errors=True) as shared,
    ):
        for path in (work, shared):
            Path(path).chmod(0o777)
        sessions = Path(shared, "ray")
        with started_head("--include-dashboard=false", f"--temp-dir={sessions}"):
            waited(lambda: list(sessions.glob("session_latest/sockets/raylet*")), "the head", 60)
            others = set(sessions.glob("session_2*"))
            small = small_runs(Path(folder))
            done = small.run(small.words("beside"), before=in_container(Path(work)), RAY_TMPDIR=shared)
            small.succeeded("beside", done)
            (own,) = set(sessions.glob("session_2*")) - others
            assert own.stat().st_uid != os.getuid()
