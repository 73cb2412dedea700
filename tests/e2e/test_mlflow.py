"""Trackers against a real MLflow server: what it was told, also where it dies in the middle of a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.network import free_port
from sst2_ray.records import EpochRecord
from sst2_ray.run.tracking.trackers import Trackers
from sst2_ray.storage import Storage
from tests.support.waiting import waited

MLFLOW = os.environ.get("SST2_RAY_MLFLOW") or shutil.which("mlflow") or ""
"""The server's command; it may lie in an environment of its own."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(not MLFLOW, reason="pip install mlflow, here or elsewhere with SST2_RAY_MLFLOW=its command"),
]


def call(address: str, method: str, body: dict[str, object] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/{method}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(call(address, "experiments/search", {"max_results": 1}))
    return False


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """Run a server on loopback; at the end it is killed, as where its machine dies."""
    words = [MLFLOW, "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination",
             str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(words, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        waited(lambda: answers(address), "the server", 240)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def evaluation(step: int) -> EpochRecord:
    return EpochRecord(
        experiment="e", trial_id="t", attempt=0, split="dev", global_step=step, epoch=1.0, dev_accuracy=step / 100, dev_loss=0.3
    )  # fmt: skip


def test_a_server_that_dies_in_the_middle_is_said_once_and_told_everything_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, lines = free_port(), list[str]()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with contextlib.ExitStack() as stack:
        tracked = Trackers(["mlflow"], Storage.open(str(tmp_path / "run")), "sweep", lines.append)
        with server(tmp_path, port):
            stack.enter_context(tracked)
            tracked.start("trial", {"learning_rate": 8e-5})
            tracked.log("trial", evaluation(10))
            events = tmp_path / "run/trackers/events.jsonl"
            state = tmp_path / "run/trackers/mlflow.json"
            waited(
                lambda: state.exists() and json.loads(state.read_text())["position"] == events.stat().st_size,
                "the first evaluation",
                30,
            )
        tracked.log("trial", evaluation(20))
        waited(lambda: lines, "the line about the server", 30)
        with server(tmp_path, port) as address:
            waited(lambda: len(lines) > 1, "the line that it is back", 60)
            tracked.log("trial", evaluation(30))
            tracked.end("trial", "succeeded")
            stack.close()
            experiment = call(address, "experiments/get-by-name?experiment_name=sweep")["experiment"]["experiment_id"]
            (run,) = call(address, "runs/search", {"experiment_ids": [experiment]})["runs"]
            told = call(address, f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=accuracy")["metrics"]
    assert [line.split(";")[0].split(":")[0] for line in lines] == ["mlflow", "mlflow"], lines
    assert "answers again" in lines[-1]
    assert run["info"]["status"] == "FINISHED" and run["info"]["run_name"] == "trial"
    assert {"key": "learning_rate", "value": "8e-05"} in run["data"]["params"]
    assert [(entry["step"], entry["value"]) for entry in sorted(told, key=lambda entry: int(entry["step"]))] == [
        (10, 0.1), (20, 0.2), (30, 0.3),
    ]  # fmt: skip
