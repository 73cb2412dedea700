"""Logits through ONNX Runtime and OpenVINO."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.batching import collate, plan_evaluation
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.errors import InputError
from sst2_ray.predict.formats.files import INPUTS, Backend, Variant

Int64 = NDArray[np.int64]

BATCH_TOKENS = {Backend.ONNX: 1024, Backend.OPENVINO: 1024}
"""Padded tokens of a batch (benchmarks.export measures others)."""


class Graph(Protocol):
    """A model that computes logits from the arrays of INPUTS, [rows, width] each."""

    def __call__(self, *arrays: Int64) -> NDArray[np.float32]:
        """Compute float32 [rows, classes]."""


class OnnxGraph:
    """A model in ONNX Runtime, on the CPU."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _damaged(file, error) from None

    def __call__(self, *arrays: Int64) -> NDArray[np.float32]:
        (logits,) = self._session.run(["logits"], dict(zip(INPUTS, arrays, strict=False)))
        return logits.astype(np.float32, copy=False)


class OpenVinoGraph:
    """A model in OpenVINO, on the CPU."""

    def __init__(self, file: Path, threads: int, *, exact: bool) -> None:
        """Compile a model. `exact`: compute in fp32 on chips with bf16 as well."""
        import openvino

        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if exact:
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            self._request = openvino.Core().compile_model(str(file), "CPU", settings).create_infer_request()
        except Exception as error:
            raise _damaged(file, error) from None

    def __call__(self, *arrays: Int64) -> NDArray[np.float32]:
        found = self._request.infer(dict(zip(INPUTS, arrays, strict=False)))
        return np.array(found["logits"], dtype=np.float32)


def _damaged(file: Path, error: Exception) -> InputError:
    line = " ".join(str(error).split())[:200]
    return InputError(f"--model-dir {file.parent}: {file.name} cannot be loaded ({line}); export the model again")


def usable_threads() -> int:
    """Count the threads that a library may use: OMP_NUM_THREADS, else the cores that this process may run on."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_graph(backend: Backend, variant: Variant, file: Path, threads: int) -> Graph:
    """Load a model file into the library of its format."""
    if backend is Backend.ONNX:
        return OnnxGraph(file, threads)
    return OpenVinoGraph(file, threads, exact=variant is Variant.FP32)


def compute_logits(
    graph: Graph, tokens: TokenArrays, *, pad_id: int, max_tokens: int, num_classes: int
) -> NDArray[np.float32]:
    """Compute float32 [rows, classes] in batches of like length, the longest rows first."""
    table = np.zeros((len(tokens), num_classes), dtype=np.float32)
    for batch in plan_evaluation(tokens, rank=0, world_size=1, max_tokens=max_tokens):
        table[batch.rows] = graph(*collate(tokens, batch, pad_id=pad_id))
    return table
