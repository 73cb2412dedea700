"""The services that trackers speak to, each behind the same interface. Runs in the process of a tracker only."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sst2_ray.errors import first_line
from sst2_ray.records import Status

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter
    from wandb import Run

REQUEST_S = 10.0
"""Time-out of a request."""

_REFUSALS = (400, 404, 409, 413, 422)
"""HTTP codes of an event that would be refused again."""

Value = float | int | str | None


class RefusedError(Exception):
    """The service refuses an event: sending it again is no use."""


class Tracker(Protocol):
    """A tracker. Any of the methods may raise: it is called again with the same event."""

    def start(self, run: str, params: Mapping[str, Value]) -> None:
        """Begin a run, or go on with one."""

    def log(self, run: str, step: int, metrics: Mapping[str, float], at: float) -> None:
        """Take the metrics of an evaluation at an optimizer step; `at`: seconds since the epoch."""

    def end(self, run: str, *, succeeded: bool) -> None:
        """End a run."""


class TensorBoard:
    """Event files below the folder `tensorboard`, a folder a run."""

    def __init__(self, folder: Path, experiment: str, runs: dict[str, str]) -> None:  # noqa: ARG002
        # tensorboardX imports torch if it can, for features that are not used here: seconds of start-up.
        sys.modules["torch"] = None  # type: ignore[assignment]
        self._make_writer = importlib.import_module("tensorboardX").SummaryWriter
        self._writers: dict[str, SummaryWriter] = {}
        self._folder = folder / "tensorboard"

    def start(self, run: str, params: Mapping[str, Value]) -> None:
        """Write the settings as text."""
        writer = self._writer_of(run)
        writer.add_text("config", "\n".join(f"    {name} = {value}" for name, value in params.items()))
        writer.flush()

    def log(self, run: str, step: int, metrics: Mapping[str, float], at: float) -> None:
        """Write a scalar a metric."""
        writer = self._writer_of(run)
        for name, value in metrics.items():
            writer.add_scalar(name, value, step, walltime=at)
        writer.flush()

    def end(self, run: str, *, succeeded: bool) -> None:  # noqa: ARG002
        """Close the run's file."""
        self._writer_of(run).close()
        del self._writers[run]

    def _writer_of(self, run: str) -> SummaryWriter:
        if run not in self._writers:
            self._writers[run] = self._make_writer(str(self._folder / run))
        return self._writers[run]


class MlflowServer:
    """An MLflow server over HTTP (REST API 2.0), without MLflow's package and its patience of minutes."""

    def __init__(self, folder: Path, experiment: str, runs: dict[str, str]) -> None:  # noqa: ARG002
        self._address = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
        self._experiment, self._runs = experiment, runs
        self._experiment_id: str | None = None

    def start(self, run: str, params: Mapping[str, Value]) -> None:
        """Create the run, with its settings, or set it to running again."""
        if run in self._runs:
            self._call("runs/update", {"run_id": self._runs[run], "status": "RUNNING"})
        else:
            self._runs[run] = self._create(run)
        given = [{"key": name, "value": str(value)[:6000]} for name, value in params.items()]
        self._call("runs/log-batch", {"run_id": self._runs[run], "params": given[:100]})

    def _create(self, run: str) -> str:
        tags = [{"key": "mlflow.runName", "value": run}]
        body = {"experiment_id": self._find_experiment(), "start_time": _ms(time.time()), "run_name": run, "tags": tags}
        return self._call("runs/create", body)["run"]["info"]["run_id"]

    def log(self, run: str, step: int, metrics: Mapping[str, float], at: float) -> None:
        """Send all metrics of an evaluation at once."""
        sent = [{"key": k, "value": v, "timestamp": _ms(at), "step": step} for k, v in metrics.items()]
        self._call("runs/log-batch", {"run_id": self._runs[run], "metrics": sent})

    def end(self, run: str, *, succeeded: bool) -> None:
        """Set the run's status."""
        status = "FINISHED" if succeeded else "FAILED"
        self._call("runs/update", {"run_id": self._runs[run], "status": status, "end_time": _ms(time.time())})

    def _find_experiment(self) -> str:
        if self._experiment_id is None:
            try:
                name = urllib.parse.quote(self._experiment)
                found = self._call(f"experiments/get-by-name?experiment_name={name}", None)
                self._experiment_id = str(found["experiment"]["experiment_id"])
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                self._experiment_id = str(self._call("experiments/create", {"name": self._experiment})["experiment_id"])
        return self._experiment_id

    def _call(self, method: str, body: dict[str, object] | None) -> dict[str, dict[str, dict[str, str]]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._address}/api/2.0/mlflow/{method}", data, {"Content-Type": "application/json"}
        )
        user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
        if user:
            secret = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
            request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
        elif token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=REQUEST_S) as answer:  # nosec B310: the user's own address
            found: dict[str, dict[str, dict[str, str]]] = json.loads(answer.read() or b"{}")
        return found


class MlflowStore:
    """MLflow through its own package: a file below the run's folder, or whatever MLFLOW_TRACKING_URI names."""

    def __init__(self, folder: Path, experiment: str, runs: dict[str, str]) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(REQUEST_S)))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client = importlib.import_module("mlflow").MlflowClient(uri)
        self._experiment, self._runs = experiment, runs

    def start(self, run: str, params: Mapping[str, Value]) -> None:
        """Create the run, with its settings, or set it to running again."""
        if run in self._runs:
            self._client.update_run(self._runs[run], status="RUNNING")
        else:
            found = self._client.get_experiment_by_name(self._experiment)
            experiment_id = found.experiment_id if found else self._client.create_experiment(self._experiment)
            self._runs[run] = self._client.create_run(experiment_id, run_name=run).info.run_id
        for name, value in params.items():
            self._client.log_param(self._runs[run], name, value)

    def log(self, run: str, step: int, metrics: Mapping[str, float], at: float) -> None:
        """Write the metrics of an evaluation."""
        for name, value in metrics.items():
            self._client.log_metric(self._runs[run], name, value, timestamp=_ms(at), step=step)

    def end(self, run: str, *, succeeded: bool) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._runs[run], "FINISHED" if succeeded else "FAILED")


class WeightsAndBiases:
    """Weights & Biases: the project sst2-ray, grouped by experiment."""

    def __init__(self, folder: Path, experiment: str, runs: dict[str, str]) -> None:  # noqa: ARG002
        self._wandb = importlib.import_module("wandb")
        self._folder, self._experiment = folder, experiment
        self._open: dict[str, Run] = {}

    def start(self, run: str, params: Mapping[str, Value]) -> None:
        """Open the run; the same name goes on with it."""
        self._open[run] = self._wandb.init(
            project="sst2-ray",
            group=self._experiment,
            name=run,
            id=hashlib.sha256(f"{self._experiment}/{run}".encode()).hexdigest()[:16],
            resume="allow",
            reinit="create_new",
            dir=str(self._folder),
            config=dict(params),
            settings=self._wandb.Settings(console="off", silent=True, init_timeout=REQUEST_S),
        )

    def log(self, run: str, step: int, metrics: Mapping[str, float], at: float) -> None:  # noqa: ARG002
        """Send the metrics of an evaluation."""
        if run not in self._open:
            self.start(run, {})
        self._open[run].log(dict(metrics), step=step)

    def end(self, run: str, *, succeeded: bool) -> None:
        """Close the run."""
        opened = self._open.pop(run, None)
        if opened is not None:
            opened.finish(exit_code=0 if succeeded else 1)


def make_tracker(name: str, folder: Path, experiment: str, runs: dict[str, str]) -> Tracker:
    """Make the tracker of that name; importing its package may take seconds."""
    if name == "tensorboard":
        return TensorBoard(folder, experiment, runs)
    if name == "wandb":
        return WeightsAndBiases(folder, experiment, runs)
    over_http = os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://"))
    return (MlflowServer if over_http else MlflowStore)(folder, experiment, runs)


def send(tracker: Tracker, line: bytes) -> None:
    """Pass one line of the events file on. Raises RefusedError where that can never succeed."""
    event = json.loads(line)
    try:
        if event["event"] == "start":
            tracker.start(event["run"], event["params"])
        elif event["event"] == "evaluation":
            tracker.log(event["run"], event["step"], event["metrics"], event["at"])
        else:
            tracker.end(event["run"], succeeded=event["status"] in (Status.SUCCEEDED, Status.EARLY_STOPPED))
    except urllib.error.HTTPError as error:
        if error.code in _REFUSALS:
            raise RefusedError(f"refuses an event ({error}: {error.read(200).decode(errors='replace')})") from None
        raise
    except Exception as error:
        # MLflow's package has an exception of its own, whose code is the one that its server would answer with. A setting
        # that was changed since the run began is such a refusal.
        code_of = getattr(error, "get_http_status_code", None)
        if code_of is not None and code_of() in _REFUSALS:
            raise RefusedError(f"refuses an event ({first_line(error)[:200]})") from None
        raise


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
