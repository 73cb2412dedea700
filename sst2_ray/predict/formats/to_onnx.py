"""Writing of ONNX files: torch's tracing exporter, fp16, and int8 by ONNX Runtime's own quantization.

The tracing exporter (`dynamo=False`) needs no further package and writes every kind of model here in seconds; the newer one
needs onnxscript and gives the same graph in four to ten times as long.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sst2_ray.data.texts import Text
from sst2_ray.errors import InputError
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.predict.formats.files import Backend, Variant, file_name
from sst2_ray.predict.formats.loaded import Export, LeftOut

OPSET = 17
_EXAMPLE = ("a sentence to trace the graph with", "another one , which is a little longer than that")
_PAIRS = (("a text of a pair", "and the other one"), ("a longer text of another pair", "which ends here"))
_SAMPLE_TOKENS = 2048
"""Padded tokens of a batch whose activations are measured."""
_WITH_WEIGHTS = ["MatMul", "Gemm"]
"""Operators that are quantized where one side is a weight."""


class Padded(nn.Module):
    """The graph that is converted: padded ids, mask and, of pairs, types [rows, width] to logits [rows, classes] in fp32."""

    def __init__(self, classifier: SentenceClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Compute the logits."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.classifier.padded_logits(input_ids, attention_mask, types).float()


def trace(export: Export, file: Path) -> None:
    """Write the fp32 graph to `file`, for any number of rows and any width. Needs nothing but torch.

    Raises:
        InputError: The exporter cannot do this model.
    """
    example = next(export.batches(_PAIRS if export.classifier.info.text_columns else _EXAMPLE, max_tokens=4096))
    inputs = tuple(torch.from_numpy(example[name]) for name in export.inputs)
    axes = {name: {0: "rows", 1: "width"} for name in export.inputs}
    try:
        with torch.inference_mode():
            torch.onnx.export(
                Padded(export.classifier).eval(),
                inputs,
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(export.inputs),
                output_names=["logits"],
                dynamic_axes={**axes, "logits": {0: "rows"}},
            )
    except Exception as error:
        family, line = export.classifier.backbone.config.model_type, " ".join(str(error).split())[:200]
        raise InputError(
            f"--model-dir {export.folder}: torch's exporter cannot write a {family} model ({line})"
        ) from None


def write_onnx(export: Export, folder: Path, variants: Sequence[Variant], sample: Sequence[Text]) -> LeftOut:
    """Write the ONNX files of `variants`; returns what could not be made. `sample`: sentences of train."""
    files = {variant: folder / file_name(Backend.ONNX, variant) for variant in variants}
    trace(export, files[Variant.FP32])
    if len(files) == 1:
        return {}
    if importlib.util.find_spec("onnx") is None:
        reason = "onnx is not installed; pip install 'sst2-ray[onnx]'"
        return {variant: reason for variant in variants if variant is not Variant.FP32}
    if Variant.FP16 in files:
        _write_fp16(files[Variant.FP32], files[Variant.FP16])
    if Variant.INT8 in files:
        _write_int8(files[Variant.FP32], files[Variant.INT8])
    if Variant.INT8_STATIC in files:
        _write_int8_static(
            files[Variant.FP32], files[Variant.INT8_STATIC], export.batches(sample, max_tokens=_SAMPLE_TOKENS)
        )
    return {}


def _write_fp16(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(target))


def _write_int8(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(target),
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=[*_WITH_WEIGHTS, "Gather"],  # Gather: the embeddings, half of a small model
        extra_options={"MatMulConstBOnly": True},
    )


def _write_int8_static(source: Path, target: Path, batches: Iterable[dict[str, Any]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """The sample, a batch at a time."""

        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next batch."""
            return next(self._batches, None)

    quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=_WITH_WEIGHTS,
        extra_options={"MatMulConstBOnly": True},
    )
