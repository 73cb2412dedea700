"""Models side by side: each in a process of its own, which labels, takes times on request and states its memory.

Processes share neither allocator nor thread pools, and the one that is not asked sleeps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.texts import Text
from sst2_ray.errors import RunFailedError

BATCHES = (1, 32, 256)
"""Sentences of a call whose rate is measured."""

ROUNDS = 5
_ROUND_S = 0.5
"""Time that one model is given in a round for one size of batch, at least a call."""
_WARM_CALLS = 3

Request = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way of computing a model's logits."""

    model_dir: str
    backend: str = "torch"
    variant: str | None = None
    precision: str = "auto"

    @property
    def name(self) -> str:
        """Describe it in a word or two: `onnx int8`, `torch fp32`."""
        return f"{self.backend} {self.variant or self.precision}".replace(" auto", " (as predict)")


class Measured:
    """A process with a loaded model."""

    def __init__(self, candidate: Candidate) -> None:
        """Start it and wait until the model is loaded. Raises RunFailedError with its last line where it ends instead."""
        self.candidate = candidate
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `close`
        # Start-up time and memory are those of `sst2-ray predict`: the same imports.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sst2_ray.predict.measuring", json.dumps(vars(candidate))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self.load_s = float(cast("float", self._answer()["load_s"]))

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Compute logits [texts, classes]."""
        return np.array(self._ask({"logits": list(texts)})["logits"], dtype=np.float32)

    def seconds(self, calls: Sequence[Sequence[Text]]) -> float:
        """Take the time of labelling, one call after the other."""
        return float(cast("float", self._ask({"time": [list(texts) for texts in calls]})["seconds"]))

    def peak_bytes(self) -> int:
        """Return the most memory that the process has held so far."""
        return int(cast("int", self._ask({"memory": True})["bytes"]))

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()

    def _ask(self, request: Request) -> Request:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _answer says why
        return self._answer()

    def _answer(self) -> Request:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._said.seek(0)
            last = (self._said.read().strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
            raise RunFailedError(f"{self.candidate.name}: ended while it was measured ({last[:200]})")
        return cast("Request", json.loads(line))


def rates(
    models: Sequence[Measured], texts: Sequence[Text], *, batches: Sequence[int] = BATCHES
) -> list[dict[int, float]]:
    """Measure sentences a second of each model at each size of batch, tokenization included.

    Medians of ROUNDS rounds, in each of which every model has its turn with the same sentences.
    """
    found: list[dict[int, list[float]]] = [{batch: [] for batch in batches} for _ in models]
    for batch in batches:
        calls = [_calls(model, texts, batch) for model in models]
        for number in range(ROUNDS):
            for model, num_calls, rate in zip(models, calls, found, strict=True):
                sentences = [_slice(texts, (number * num_calls + i) * batch, batch) for i in range(num_calls)]
                rate[batch].append(batch * num_calls / model.seconds(sentences))
    return [{batch: float(np.median(values)) for batch, values in rate.items()} for rate in found]


def _calls(model: Measured, texts: Sequence[Text], batch: int) -> int:
    """Warm a model up and return the calls of a round."""
    model.seconds([_slice(texts, 0, batch)])
    each = model.seconds([_slice(texts, i * batch, batch) for i in range(_WARM_CALLS)]) / _WARM_CALLS
    return max(1, min(200, int(_ROUND_S / each)))


def _slice(texts: Sequence[Text], start: int, num: int) -> list[Text]:
    return [texts[(start + i) % len(texts)] for i in range(num)]


def _serve(candidate: Candidate) -> None:
    """Answer requests from standard input, one JSON object a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints

    def answer(value: Request) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    from sst2_ray.predict.predictor import Predictor

    start = time.perf_counter()
    predictor = Predictor(
        candidate.model_dir, backend=candidate.backend, variant=candidate.variant, precision=candidate.precision
    )
    answer({"load_s": time.perf_counter() - start})
    for line in sys.stdin:
        request = json.loads(line)
        if "logits" in request:
            answer({"logits": predictor.logits(request["logits"]).tolist()})
        elif "time" in request:
            start = time.perf_counter()
            for texts in request["time"]:
                predictor.logits(texts)
            answer({"seconds": time.perf_counter() - start})
        else:
            status = Path("/proc/self/status").read_text()
            answer({"bytes": int(status.partition("VmHWM:")[2].split()[0]) * 1024})


if __name__ == "__main__":
    _serve(Candidate(**json.loads(sys.argv[1])))
