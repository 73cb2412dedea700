"""The card of a converted model: code that runs in its folder with its library alone."""

from __future__ import annotations

from sst2_ray.modeling.sources.folders import JsonObject
from sst2_ray.predict.formats.files import Backend, Variant, file_name

_CODE = """
import json

import numpy as np
import LIBRARY
from tokenizers import Tokenizer

facts = json.load(open("sst2_ray.json"))
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(facts["max_length"])
tokenizer.enable_padding(pad_id=facts["format"]["pad_id"])
LOAD

texts = TEXTS
encoded = tokenizer.encode_batch(texts)
fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
names = facts["format"]["inputs"]
inputs = {name: np.array([getattr(e, fields[name]) for e in encoded], dtype=np.int64) for name in names}
RUN
raised = np.exp(logits - logits.max(axis=1, keepdims=True))
for probabilities in raised / raised.sum(axis=1, keepdims=True):
    best = int(probabilities.argmax())
    print(facts["labels"][best], round(float(probabilities[best]), 4))
"""

_LOAD = {
    Backend.ONNX: 'session = onnxruntime.InferenceSession("FILE", providers=["CPUExecutionProvider"])',
    Backend.OPENVINO: 'model = openvino.Core().compile_model("FILE", "CPU"SETTINGS)',
}
_RUN = {
    Backend.ONNX: '(logits,) = session.run(["logits"], inputs)',
    Backend.OPENVINO: 'logits = model(inputs)["logits"]',
}
_TEXTS = '["a gripping , funny film", "it never comes to life"]'
_PAIRS = '[("a man plays a guitar", "a person makes music")]'


def format_card(backend: Backend, variant: Variant, meta: JsonObject) -> str:
    """Return the README.md of a format's folder; its code uses the file of `variant`."""
    code = (
        _CODE.strip().replace("LIBRARY", backend.module).replace("LOAD", _LOAD[backend]).replace("RUN", _RUN[backend])
    )
    code = code.replace("FILE", file_name(backend, variant)).replace(
        "SETTINGS", ', {"INFERENCE_PRECISION_HINT": "f32"}' if variant is Variant.FP32 else ""
    )
    code = code.replace("TEXTS", _PAIRS if meta.get("text_columns") else _TEXTS)
    inputs = ", ".join(f"`{name}`" for name in meta["format"]["inputs"])
    return (
        f"# {meta['label']}: {backend.library}\n\nPooling and head are inside: the graph takes {inputs} [rows, width] and "
        f"gives `logits` [rows, classes]. With {backend.library}, numpy and tokenizers alone:\n\n"
        f"```python\n{code}\n```\n"
    )
