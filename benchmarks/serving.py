"""Requests from many clients at once: are all answers right, how long do they take, and how does the rate compare with predict's?

    python -m benchmarks.serving [--requests 1000] [--clients 32] [--texts 1 8] [--model-dir DIR] [--json FILE]

`sst2-ray serve` with one replica on all cores answers `--requests` requests of `--texts` sentences each, which `--clients`
threads of this process send over connections that stay open. The sentences are those of SST2_RAY_DATA's train split, else of
the packaged movie reviews; what is right says `predict`, which labels the same sentences, on the same cores, before and
after. Passes (exit code 0) where every request was answered and every label is predict's.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.predict_cluster import trained
from benchmarks.shared import REPOSITORY, data_name, finish, parser_of, provenance
from sst2_ray.config.train import TrainConfig
from sst2_ray.network import free_port
from sst2_ray.run.prepare import check

PERCENTILES = (50, 90, 99)


def main() -> int:
    if sys.argv[1:2] == ["--label"]:
        label_alone(*sys.argv[2:])
        return 0
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--texts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--model-dir", help="an export, or the folder of a run; by default one is trained")
    parser.add_argument("--train-steps", type=int, default=20)
    arguments = parser.parse_args()
    found = provenance()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model_dir or trained(Path(scratch), arguments.train_steps)
        sentences = check(TrainConfig(data=data_name(), batch_size=1)).splits.train.texts
        most = max(arguments.texts) * arguments.requests
        texts = [sentences[i % len(sentences)] for i in range(most)]
        right, before = alone(model, texts, Path(scratch))
        runs = []
        with Served(model) as served:
            for size in arguments.texts:
                requests = [
                    (texts[i : i + size], right[i : i + size]) for i in range(0, size * arguments.requests, size)
                ]
                runs.append({"texts": size, **load(served.port, requests, arguments.clients)})
                print(line(runs[-1]), flush=True)
        _, after = alone(model, texts, Path(scratch))
    figures = {"runs": runs, "predict_sentences_per_sec": [before, after], "clients": arguments.clients, **found}
    finish(figures, table(runs, before, after), arguments.json)
    return 0 if all(run["wrong"] == run["failed"] == 0 for run in runs) else 1


def alone(model: str, texts: list[str], scratch: Path) -> tuple[list[dict[str, Any]], float]:
    """The predictions of these sentences and their rate without a server, in a process of its own."""
    given, made = scratch / "texts.json", scratch / "right.json"
    given.write_text(json.dumps(texts))
    command = [sys.executable, "-m", "benchmarks.serving", "--label", model, str(given), str(made)]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    values = json.loads(made.read_text())
    return values["predictions"], values["rate"]


def label_alone(model: str, given: str, made: str) -> None:
    """Label the texts as `predict` does, without reading and writing files."""
    from sst2_ray.predict.predictor import Predictor
    from sst2_ray.predict.shapes import added_columns

    texts = json.loads(Path(given).read_text())
    predictor = Predictor(model)
    predictor.logits(texts[:1024])
    start = time.perf_counter()
    logits = predictor.logits(texts)
    rate = len(texts) / (time.perf_counter() - start)
    columns = {name: values.tolist() for name, values in added_columns(logits, predictor.classes).items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    Path(made).write_text(json.dumps({"predictions": rows, "rate": rate}))


class Served:
    """A server of its own for a while."""

    def __init__(self, model: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "sst2_ray", "serve", model, f"--port={self.port}"]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=self._log, stderr=self._log, env={**os.environ}
        )

    def __enter__(self) -> Served:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                time.sleep(0.2)
        self._log.seek(0)
        raise SystemExit(f"the server did not start:\n{self._log.read()[-3000:]}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()


def load(port: int, requests: list[tuple[list[str], list[dict[str, Any]]]], clients: int) -> dict[str, Any]:
    """Send all requests from so many threads; a failed or a wrong answer is counted."""
    work: queue.SimpleQueue[tuple[list[str], list[dict[str, Any]]]] = queue.SimpleQueue()
    for request in requests:
        work.put(request)
    seconds: list[float] = []
    failed, wrong, apart = [0], [0], [0.0]
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            try:
                texts, right = work.get_nowait()
            except queue.Empty:
                return
            start = time.perf_counter()
            connection.request("POST", "/predict", json.dumps({"texts": texts}))
            answer = connection.getresponse()
            body = json.loads(answer.read())
            took = time.perf_counter() - start
            with lock:
                seconds.append(took)
                failed[0] += answer.status != 200
                for given, expected in zip(body.get("predictions", []), right, strict=False):
                    wrong[0] += given["predicted"] != expected["predicted"]
                    apart[0] = max(apart[0], abs(given["probability"] - expected["probability"]))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - start
    num_texts = sum(len(texts) for texts, _ in requests)
    return {
        "requests": len(requests),
        "answered": len(seconds),
        "failed": failed[0] + len(requests) - len(seconds),
        "wrong": wrong[0],
        "most_probability_apart": apart[0],
        "seconds": total,
        "sentences_per_sec": num_texts / total,
        "latency_ms": {p: float(np.percentile(seconds, p)) * 1e3 for p in PERCENTILES},
    }


def line(run: dict[str, Any]) -> str:
    latency = ", ".join(f"p{p} {ms:.0f} ms" for p, ms in run["latency_ms"].items())
    return (
        f"{run['requests']:,} requests of {run['texts']}: {run['sentences_per_sec']:,.0f} sentences/s, {latency}, "
        f"{run['failed']} failed, {run['wrong']} wrong labels"
    )


def table(runs: list[dict[str, Any]], before: float, after: float) -> str:
    """Markdown. The clients compute on the same cores."""
    lines = [
        "| sentences a request | sentences/s | p50, ms | p90, ms | p99, ms | failed | wrong labels | probability apart, at most |",
        f"|{'---|' * 8}",
    ]
    for run in runs:
        latency = " | ".join(f"{ms:.0f}" for ms in run["latency_ms"].values())
        lines.append(
            f"| {run['texts']} | {run['sentences_per_sec']:,.0f} | {latency} | {run['failed']} | {run['wrong']} "
            f"| {run['most_probability_apart']:.1e} |"
        )
    lines += [
        "",
        f"predict's own rate on the same sentences: {before:,.0f} before and {after:,.0f} after, sentences/s.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
