"""Logits through ONNX Runtime and OpenVINO.

A single batch gets all threads. Of several, each gets one thread: threads that share every operation wait for each other at
its end (benchmarks/NOTES.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sst2_ray.background import MOST_THREADS, share_out
from sst2_ray.data.batching import MicroBatch, collate, plan_evaluation
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.errors import InputError
from sst2_ray.predict.formats.files import INPUTS, Backend, Variant

Int64 = NDArray[np.int64]

BATCH_TOKENS = {Backend.ONNX: 1024, Backend.OPENVINO: 1024}
"""Padded tokens of a batch (benchmarks.export measures others)."""


class Graph(Protocol):
    """Compute float32 logits [rows, classes] from the arrays of INPUTS, int64 [rows, width] each."""

    def __call__(self, *arrays: Int64) -> NDArray[np.float32]: ...


class OnnxModel:
    """A model in ONNX Runtime, on the CPU."""

    def __init__(self, file: Path, threads_a_lane: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_a_lane
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _damaged(file, error) from None

    def lane(self) -> Graph:
        """Return what one thread calls."""
        return self._run

    def _run(self, *arrays: Int64) -> NDArray[np.float32]:
        (logits,) = self._session.run(["logits"], dict(zip(INPUTS, arrays, strict=False)))
        return logits.astype(np.float32, copy=False)


class OpenVinoModel:
    """A model in OpenVINO, on the CPU."""

    def __init__(self, file: Path, num_lanes: int, threads_a_lane: int, *, exact: bool) -> None:
        """Compile a model. `exact`: compute in fp32 on chips with bf16 as well."""
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": num_lanes * threads_a_lane,
            "NUM_STREAMS": num_lanes,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if exact:
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            self._model = openvino.Core().compile_model(str(file), "CPU", settings)
            # The first array that it shares with numpy sets something up: two threads at once would wait for each other forever.
            _ = openvino.Tensor(np.zeros(1, dtype=np.int64)).data
        except Exception as error:
            raise _damaged(file, error) from None

    def lane(self) -> Graph:
        """Return what one thread calls."""
        request = self._model.create_infer_request()

        def run(*arrays: Int64) -> NDArray[np.float32]:
            found = request.infer(dict(zip(INPUTS, arrays, strict=False)))
            return np.array(found["logits"], dtype=np.float32)

        return run


def _damaged(file: Path, error: Exception) -> InputError:
    line = " ".join(str(error).split())[:200]
    return InputError(f"--model-dir {file.parent}: {file.name} cannot be loaded ({line}); export the model again")


def usable_threads() -> int:
    """Count the threads that a library may use: OMP_NUM_THREADS, else the cores that this process may run on."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ConvertedModel:
    """A model file in the library of its format, loaded once for single batches and once for many."""

    def __init__(self, backend: Backend, variant: Variant, file: Path) -> None:
        """Load it for single batches; see `lanes` for many. Raises InputError."""
        self._backend, self._variant, self._file = backend, variant, file
        self._num_threads = usable_threads()
        self._lanes = {1: [self._open(1).lane()]}

    def lanes(self, num_batches: int) -> list[Graph]:
        """Return what computes so many batches at once, a graph a thread."""
        num_lanes = min(MOST_THREADS, self._num_threads) if num_batches > 1 else 1
        if num_lanes not in self._lanes:
            model = self._open(num_lanes)
            self._lanes[num_lanes] = [model.lane() for _ in range(num_lanes)]
        return self._lanes[num_lanes]

    def _open(self, num_lanes: int) -> OnnxModel | OpenVinoModel:
        threads_a_lane = self._num_threads // num_lanes
        if self._backend is Backend.ONNX:
            return OnnxModel(self._file, threads_a_lane)
        return OpenVinoModel(self._file, num_lanes, threads_a_lane, exact=self._variant is Variant.FP32)


def compute_logits(
    model: ConvertedModel, tokens: TokenArrays, *, pad_id: int, max_tokens: int, num_classes: int
) -> NDArray[np.float32]:
    """Compute float32 [rows, classes] in batches of like length, the longest rows first."""
    table = np.zeros((len(tokens), num_classes), dtype=np.float32)
    batches = plan_evaluation(tokens, rank=0, world_size=1, max_tokens=max_tokens)
    free = model.lanes(len(batches))[:]

    def lane(taken: Iterator[MicroBatch]) -> None:
        graph = free.pop()
        for batch in taken:
            table[batch.rows] = graph(*collate(tokens, batch, pad_id=pad_id))

    share_out(batches, lane, len(free))
    return table
