"""Trackers over real HTTP and real processes: what they are told, and that none of them ever holds a run up."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from sst2_ray.errors import InputError
from sst2_ray.network import free_port
from sst2_ray.records import EpochRecord
from sst2_ray.run.environment import reach_loopback_directly
from sst2_ray.run.tracking import trackers
from sst2_ray.run.tracking.trackers import Trackers, check_trackers
from sst2_ray.storage import Storage


class Mlflow:
    """An MLflow server as far as runs go: what it was told, by method."""

    def __init__(self, port: int = 0) -> None:
        told: dict[str, list[dict]] = {}
        self.told = told
        self.refuses_metrics = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, code: int, body: dict) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})

            def do_POST(self) -> None:
                method = self.path.removeprefix("/api/2.0/mlflow/")
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if server.refuses_metrics and "metrics" in body:
                    self.answer(400, {"error_code": "INVALID_PARAMETER_VALUE"})
                    return
                told.setdefault(method, []).append(body)
                self.answer(
                    200, {"experiment_id": "7", "run": {"info": {"run_id": f"id-{len(told.get('runs/create', ()))}"}}}
                )

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def metrics(self) -> list[dict]:
        return [body for body in self.told.get("runs/log-batch", ()) if "metrics" in body]


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    server = Mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    yield server
    server.stop()


def evaluation(step: int, accuracy: float = 0.9) -> EpochRecord:
    return EpochRecord(
        experiment="e",
        trial_id="t",
        attempt=0,
        split="dev",
        global_step=step,
        epoch=1.0,
        dev_accuracy=accuracy,
        dev_loss=0.3,
    )


def track(
    folder: Path, *names: str, steps: tuple[int, ...] = (10, 20), give_up_s: float = 10.0, num_workers: int = 1
) -> tuple[list[str], float]:
    """Track one run; returns the lines that the user saw and the seconds of the whole."""
    lines: list[str] = []
    begin = time.monotonic()
    with Trackers(names, Storage.open(str(folder)), "sweep", lines.append, give_up_s=give_up_s) as tracked:
        tracked.start("trial", {"learning_rate": 8e-5, "num_workers": num_workers})
        for step in steps:
            tracked.log("trial", evaluation(step))
        tracked.end("trial", "succeeded")
    return lines, time.monotonic() - begin


def test_an_mlflow_server_is_told_settings_metrics_and_the_end(mlflow: Mlflow, tmp_path: Path) -> None:
    lines, _ = track(tmp_path, "mlflow")
    assert lines == []
    assert mlflow.told["experiments/create"] == [{"name": "sweep"}]
    assert mlflow.told["runs/create"][0]["run_name"] == "trial"
    assert {"key": "learning_rate", "value": "8e-05"} in mlflow.told["runs/log-batch"][0]["params"]
    assert [m["value"] for body in mlflow.metrics for m in body["metrics"] if m["key"] == "accuracy"] == [0.9, 0.9]
    assert [m["step"] for body in mlflow.metrics for m in body["metrics"] if m["key"] == "loss"] == [10, 20]
    assert mlflow.told["runs/update"][-1]["status"] == "FINISHED"


def test_a_server_on_this_machine_is_not_asked_for_through_a_proxy(
    mlflow: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9" if name.lower() == "http_proxy" else "")
    reach_loopback_directly()
    assert track(tmp_path, "mlflow")[0] == []
    assert mlflow.told["runs/update"][-1]["status"] == "FINISHED"


def test_a_server_that_refuses_connections_is_said_once_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    lines, seconds = track(tmp_path, "mlflow", give_up_s=4.0)
    assert seconds < 8
    assert len(lines) == 2
    assert "mlflow: " in lines[0] and "the run goes on" in lines[0]
    assert "given up; 4 events were not sent" in lines[1]


def test_a_server_that_accepts_and_says_nothing_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        lines, seconds = track(tmp_path, "mlflow", give_up_s=2.0)
    assert seconds < 6
    assert "given up; 4 events were not sent" in lines[-1]


def test_a_server_that_comes_back_is_told_everything_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    lines: list[str] = []
    with Trackers(("mlflow",), Storage.open(str(tmp_path)), "sweep", lines.append) as tracked:
        tracked.start("trial", {})
        tracked.log("trial", evaluation(10))
        deadline = time.monotonic() + 20
        while not lines and time.monotonic() < deadline:
            time.sleep(0.1)
        server = Mlflow(port)
        tracked.log("trial", evaluation(20))
        tracked.end("trial", "succeeded")
    server.stop()
    assert [body["metrics"][0]["step"] for body in server.metrics] == [10, 20]
    assert "the run goes on" in lines[0]
    assert lines[1:] == ["mlflow: answers again"]


def test_the_next_session_sends_what_the_last_could_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    track(tmp_path, "mlflow", steps=(10,), give_up_s=2.0)
    server = Mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    lines, _ = track(tmp_path, "mlflow", steps=(20,))
    server.stop()
    assert lines == []
    assert [body["metrics"][0]["step"] for body in server.metrics] == [10, 20]
    assert len(server.told["runs/create"]) == 1


def test_an_event_that_is_refused_does_not_stop_the_others(mlflow: Mlflow, tmp_path: Path) -> None:
    mlflow.refuses_metrics = True
    lines, _ = track(tmp_path, "mlflow")
    assert len(lines) == 1
    assert "refuses an event" in lines[0]
    assert mlflow.told["runs/update"][-1]["status"] == "FINISHED"


def test_json_lines_hold_every_event(tmp_path: Path) -> None:
    track(tmp_path, "jsonl")
    events = [json.loads(line) for line in (tmp_path / "trackers" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "evaluation", "evaluation", "end"]
    assert events[1]["metrics"]["accuracy"] == 0.9


def test_a_metric_that_is_not_a_number_is_left_out(tmp_path: Path) -> None:
    with Trackers(("jsonl",), Storage.open(str(tmp_path)), "sweep", print) as tracked:
        tracked.log("trial", evaluation(10, float("nan")))
    [event] = [json.loads(line) for line in (tmp_path / "trackers" / "events.jsonl").read_text().splitlines()]
    assert "accuracy" not in event["metrics"]


def test_a_run_that_was_not_ended_has_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Trackers(("jsonl",), Storage.open(str(tmp_path)), "e", print) as tracked:
        tracked.start("trial", {})
        raise ZeroDivisionError
    *_, last = [json.loads(line) for line in (tmp_path / "trackers" / "events.jsonl").read_text().splitlines()]
    assert (last["event"], last["run"], last["status"]) == ("end", "trial", "failed")


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "trackers").write_text("a file where the folder would be")
    lines, _ = track(tmp_path, "jsonl")
    assert "the run goes on without them" in lines[0]


def test_tensorboard_has_a_folder_a_run(tmp_path: Path) -> None:
    lines, _ = track(tmp_path, "tensorboard")
    assert lines == []
    assert list((tmp_path / "tensorboard" / "trial").glob("events.out.tfevents*"))


def test_a_tracker_without_its_package_is_refused_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package")
    with pytest.raises(InputError, match="no_such_package is not installed"):
        check_trackers(("wandb",), Storage.open(str(tmp_path)))
    check_trackers(("tensorboard", "jsonl"), Storage.open(str(tmp_path)))


def test_mlflow_on_an_object_store_needs_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(trackers.PACKAGES, "mlflow", "json")
    remote = dataclasses.replace(
        Storage.open(str(tmp_path)), filesystem=pafs.SubTreeFileSystem("/", pafs.LocalFileSystem())
    )
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        check_trackers(("mlflow",), remote)


def test_what_is_tracked_reaches_an_object_store_at_the_end(tmp_path: Path) -> None:
    remote = dataclasses.replace(
        Storage.open(str(tmp_path)), filesystem=pafs.SubTreeFileSystem("/", pafs.LocalFileSystem())
    )
    (tmp_path / "tensorboard" / "trial").mkdir(parents=True)  # an object store has no folders
    with Trackers(("jsonl", "tensorboard"), remote, "sweep", print) as tracked:
        tracked.log("trial", evaluation(10))
    assert "accuracy" in (tmp_path / "trackers" / "events.jsonl").read_text()
    assert list((tmp_path / "tensorboard" / "trial").glob("events.out.tfevents*"))
    with Trackers(("jsonl",), remote, "sweep", print) as tracked:
        tracked.log("trial", evaluation(20))
    events = [json.loads(line) for line in (tmp_path / "trackers" / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "evaluation"] == [10, 20]


# ---- MLflow's own package

STUB = '''
"""MLflow's client, as far as runs go: a file for each run, in which a setting is never changed."""
import json, os, types, uuid
from pathlib import Path

class MlflowException(Exception):
    def __init__(self, message, code):
        super().__init__(message)
        self._code = code
    def get_http_status_code(self):
        return self._code

class MlflowClient:
    def __init__(self, uri):
        self._folder = Path(os.environ["STUB_FOLDER"])
    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id="1")
    def create_run(self, experiment_id, run_name):
        run_id = uuid.uuid4().hex
        self._write(run_id, {"name": run_name, "params": {}, "steps": []})
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))
    def log_param(self, run_id, key, value):
        kept = self._read(run_id)
        if kept["params"].setdefault(key, str(value)) != str(value):
            raise MlflowException(f"Changing param values is not allowed. Param {key!r} was logged already.\\n\\nThe cause", 400)
        self._write(run_id, kept)
    def log_metric(self, run_id, key, value, timestamp, step):
        if step in json.loads(os.environ.get("STUB_AWAY", "[]")):
            os.environ["STUB_AWAY"] = "[]"
            raise MlflowException("database is locked", 500)
        kept = self._read(run_id)
        self._write(run_id, {**kept, "steps": sorted({*kept["steps"], step})})
    def update_run(self, run_id, status):
        self._write(run_id, {**self._read(run_id), "status": status})
    def set_terminated(self, run_id, status):
        self.update_run(run_id, status)
    def _read(self, run_id):
        return json.loads((self._folder / run_id).read_text())
    def _write(self, run_id, values):
        (self._folder / run_id).write_text(json.dumps(values))
'''


def test_a_setting_that_changed_before_a_run_goes_on_keeps_nothing_from_mlflows_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "mlflow.py").write_text(STUB)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STUB_FOLDER", str(tmp_path / "packages"))
    monkeypatch.setenv("STUB_AWAY", "[10]")
    said = [track(tmp_path / "run", "mlflow", steps=(step,), num_workers=n)[0] for step, n in ((10, 1), (20, 2))]
    assert [line.split(";")[0] for line in said[0]] == [
        "mlflow: MlflowException: database is locked",
        "mlflow: answers again",
    ]
    assert [line.split(";")[0] for line in said[1]] == [
        "mlflow: refuses an event (Changing param values is not allowed. Param 'num_workers' was logged already.)"
    ]
    (kept,) = (json.loads(file.read_text()) for file in (tmp_path / "packages").iterdir() if file.suffix == "")
    assert kept == {
        "name": "trial",
        "params": {"learning_rate": "8e-05", "num_workers": "1"},
        "steps": [10, 20],
        "status": "FINISHED",
    }
