"""Writing of OpenVINO files from the traced graph: fp32, fp16, and int8 by NNCF."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sst2_ray.data.texts import Text
from sst2_ray.predict.formats.files import Backend, Variant, file_name
from sst2_ray.predict.formats.loaded import Export, LeftOut
from sst2_ray.predict.formats.to_onnx import trace

_SAMPLE_TOKENS = 2048
"""Padded tokens of a batch whose activations are measured."""


def write_openvino(export: Export, folder: Path, variants: Sequence[Variant], sample: Sequence[Text]) -> LeftOut:
    """Write the OpenVINO files of `variants`; returns what could not be made. `sample`: sentences of train."""
    import openvino

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        graph = Path(scratch) / "graph.onnx"
        trace(export, graph)
        left_out: LeftOut = {}
        for variant in variants:
            model = openvino.convert_model(str(graph))
            if variant in (Variant.INT8, Variant.INT8_STATIC):
                if importlib.util.find_spec("nncf") is None:
                    left_out[variant] = "nncf is not installed; pip install 'sst2-ray[openvino]'"
                    continue
                model = _in_int8(model, export, variant, sample)
            file = folder / file_name(Backend.OPENVINO, variant)
            openvino.save_model(model, str(file), compress_to_fp16=variant is not Variant.FP32)
    return left_out


def _in_int8(model: Any, export: Export, variant: Variant, sample: Sequence[Text]) -> Any:
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    if variant is Variant.INT8:
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    batches = list(export.batches(sample, max_tokens=_SAMPLE_TOKENS))
    return nncf.quantize(
        model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=max(1, len(batches))
    )
