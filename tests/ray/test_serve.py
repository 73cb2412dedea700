"""The real server: its answers are those of predict, what it cannot answer it says, and nothing accepted is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from sst2_ray.network import free_port
from sst2_ray.predict.command import main as predict
from sst2_ray.predict.predictor import Predictor
from sst2_ray.serving.protocol import TOKEN_VARIABLE
from tests.support import models
from tests.support.folders import labelled_rows, review_folder
from tests.support.heads import MARKER, pids_of
from tests.support.waiting import waited

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-tests"


@dataclass(frozen=True)
class Server:
    """A server with two replicas of a toy model on loopback, which asks for a token."""

    port: int
    export: Path
    process: subprocess.Popen[bytes]
    log: Path
    marker: str

    def ask(
        self, method: str, path: str, body: bytes | None = None, token: str = TOKEN
    ) -> tuple[int, dict[str, object]]:
        """Status and JSON of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def label(self, texts: list[str | None]) -> tuple[int, dict[str, object]]:
        return self.ask("POST", "/predict", json.dumps({"texts": texts}).encode())

    def replicas(self) -> list[int]:
        """Processes that hold the model."""
        found = []
        for pid in pids_of(self.marker):
            with contextlib.suppress(OSError):
                if b"ServeReplica:sst2:Model" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            return self.ask("GET", "/ready")[0] == 200
        return False


@contextlib.contextmanager
def served(folder: Path, export: Path, *more: str) -> Iterator[Server]:
    """A server of its own, of which nothing is left afterwards."""
    port, log = free_port(), folder / "log"
    env = {
        **os.environ, MARKER: str(folder), "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}', TOKEN_VARIABLE: TOKEN,
    }  # fmt: skip
    words = ["serve", str(export), "--port", str(port), "--precision", "fp32", *more]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "sst2_ray", *words], cwd=REPOSITORY, env=env, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    started = Server(port, export, process, log, str(folder))
    try:
        waited(started.is_ready, "a ready server", 120)
        yield started
    finally:
        process.kill()
        process.wait()
        for pid in pids_of(str(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    export = models.export_of(models.sbert_folder(folder / "sbert"), folder / "export", max_length=64)
    with served(folder, export, "--num-replicas", "2") as started:
        yield started


@pytest.fixture(scope="module")
def rows(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """Rows as predict writes them, some without a text."""
    folder = tmp_path_factory.mktemp("rows")
    review_folder(folder / "in", files=1, rows=200)
    words = ["--input", str(folder / "in"), "--out", str(folder / "out.parquet"), "--precision", "fp32"]
    predict(["--model-dir", str(server.export), *words])
    table = labelled_rows(folder / "out.parquet").drop_columns(["id", "label"])
    return list(table.to_pylist())


def assert_same(answer: dict[str, object], rows: list[dict[str, object]]) -> None:
    """The same rows; probabilities hang on what a text was computed beside, in the last digits."""
    predictions = answer["predictions"]
    assert isinstance(predictions, list) and len(predictions) == len(rows)
    for found, row in zip(predictions, rows, strict=True):
        close = None if row["probability"] is None else pytest.approx(row["probability"], abs=1e-5)
        assert found == {**row, "probability": close}


def test_answers_are_the_rows_of_predict(server: Server, rows: list[dict[str, object]]) -> None:
    status, answer = server.label([str(row["text"]) for row in rows])
    assert status == 200
    assert_same(answer, rows)
    assert server.label(["a gripping film", None])[1]["predictions"][1] == {  # type: ignore[index]
        "text": None, "predicted": None, "predicted_label": None, "probability": None,
    }  # fmt: skip
    assert server.label([]) == (200, {"predictions": []})


def test_health_and_readiness_are_told_without_a_token(server: Server) -> None:
    assert server.ask("GET", "/health", token="")[1] == {"status": "ok"}
    status, facts = server.ask("GET", "/ready", token="")
    assert (status, facts["labels"], facts["max_length"]) == (200, ["negative", "positive"], 64)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("POST", "/predict", b'{"texts": [', 400, "the body is not JSON"),
        ("POST", "/predict", b'{"text": "fine"}', 422, "no list `texts`"),
        ("POST", "/predict", b'{"texts": [7]}', 422, "texts[0] is of type int"),
        ("POST", "/predict", json.dumps({"texts": ["x" * 10_000_000]}).encode(), 413, "10,000,000 characters: at most 100,000"),
        ("POST", "/predict", b" " * 17 * 2**20, 413, "the body has more than 16,777,216 bytes"),
        ("POST", "/predict", json.dumps({"texts": ["fine"] * 10_000}).encode(), 413, "10,000 texts: at most 1,024"),
        ("GET", "/predict", None, 405, "use POST"),
        ("GET", "/", None, 404, "no such path"),
    ],
    ids=["half", "key", "number", "10MB", "17MB", "10000", "GET", "path"],
)  # fmt: skip
def test_what_cannot_be_answered_is_told_in_one_line(
    server: Server, method: str, path: str, body: bytes | None, status: int, told: str
) -> None:
    found, answer = server.ask(method, path, body)
    assert (found, told in str(answer["error"])) == (status, True), answer


def test_a_request_without_the_token_is_refused(server: Server) -> None:
    for token in ("", "another"):
        status, answer = server.ask("POST", "/predict", b'{"texts": ["fine"]}', token)
        assert (status, "a token is needed" in str(answer["error"])) == (401, True)
    assert TOKEN not in server.log.read_text()


def test_a_replica_that_is_killed_under_load_loses_no_request(server: Server, rows: list[dict[str, object]]) -> None:
    before = server.replicas()
    assert len(before) == 2

    def client(number: int) -> list[tuple[int, dict[str, object]]]:
        return [server.label([str(row["text"]) for row in rows[number : number + 40]]) for _ in range(12)]

    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(client, number) for number in range(8)]
        waited(lambda: any(answer.running() for answer in answers), "load", 10)
        os.kill(before[0], signal.SIGKILL)
        found = [answer.result() for answer in answers]
    for number, of_client in enumerate(found):
        for status, answer in of_client:
            assert status == 200, answer
            assert_same(answer, rows[number : number + 40])
    waited(lambda: len(server.replicas()) == 2 and before[0] not in server.replicas(), "a new replica", 60)


def test_sigterm_ends_the_server_and_leaves_no_process(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    waited(lambda: not pids_of(server.marker), "the end of all processes", 20)


@pytest.mark.slow
def test_a_model_of_pairs_is_served(tmp_path: Path) -> None:
    export = models.pair_export(tmp_path / "pairs", ("premise", "hypothesis"))
    pairs = [("a gripping film", "it never comes to life"), ("warm", "no movement"), ("uneasy", "funny , engaging")]
    expected = Predictor(export, precision="fp32").predict(pairs)
    with served(tmp_path, export) as server:
        example = json.dumps(["a man plays a guitar", "a person makes music"])
        waited(lambda: example in server.log.read_text(), "the example of a request", 30)  # it follows the first answer
        body = json.dumps({"texts": [*pairs, None]}).encode()
        status, answer = server.ask("POST", "/predict", body)
        assert status == 200, answer
        *rows, blank = answer["predictions"]  # type: ignore[misc]
        assert blank["text"] is blank["text_pair"] is blank["predicted"] is None
        assert [(row["text"], row["text_pair"]) for row in rows] == pairs
        assert [row["predicted_label"] for row in rows] == [one.label for one in expected]
        assert [row["probability"] for row in rows] == pytest.approx([one.probability for one in expected], abs=1e-5)
        status, answer = server.label(["a gripping film"])
        assert (status, "the model reads pairs" in str(answer["error"])) == (422, True)
