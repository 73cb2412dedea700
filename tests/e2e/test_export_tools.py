"""Tool x kind of export in fresh environments that hold one tool each: predict's labels and probabilities, or an error.

The environments are made with pip (ONNX Runtime with tokenizers alone), the versions those of this environment. The tools
that need torch are tested in this environment: tests/unit/modeling/export/test_tools.py.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.export.folder import export_model
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer
from sst2_ray.predict.formats.convert import Export, convert
from sst2_ray.predict.formats.files import Backend, Variant
from sst2_ray.predict.predictor import Predictor
from sst2_ray.training.metrics import probabilities
from tests.support.families import family_folder
from tests.support.hub_server import packaged_sbert_folder
from tests.support.models import add_sbert_modules, card_facts

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

NAMES = {2: ("negative", "positive"), 5: ("awful", "bad", "fair", "good", "great")}
KINDS = ("sbert-minilm", "sbert", "modernbert-mini", "roberta", "pairs")
"""sbert: on BERT's architecture; roberta and pairs (on BERT): with their families' own heads. All but sbert-minilm at toy size."""
PACKAGES = {
    "onnxruntime": ("onnxruntime", "tokenizers", "numpy"),
}
LOADS = {
    "onnxruntime": set(KINDS),
}
"""Kinds that a tool loads; it ends with an error for the others."""

_ONNX = """
import numpy as np, onnxruntime
from tokenizers import Tokenizer
facts = json.load(open("sst2_ray.json"))
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(facts["max_length"])
tokenizer.enable_padding(pad_id=facts["format"]["pad_id"])
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
found = []
for start in range(0, len(texts), 32):
    encoded = tokenizer.encode_batch([t if isinstance(t, str) else tuple(t) for t in texts[start : start + 32]])
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    names = facts["format"]["inputs"]
    inputs = {name: np.array([getattr(e, fields[name]) for e in encoded], dtype=np.int64) for name in names}
    (logits,) = session.run(["logits"], inputs)
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    found += (raised / raised.sum(axis=1, keepdims=True)).tolist()
"""
CODES = {
    "onnxruntime": _ONNX,
}

RUN = """
import json, sys
texts, labels = json.load(open(sys.argv[1])), json.load(open("sst2_ray.json"))["labels"]
try:
    import torch
except ImportError:
    pass
try:
    exec(sys.stdin.read())
    answer = found
except Exception as error:
    answer = f"{type(error).__name__}: {error}"
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """All dev sentences of SST-2."""
    folder = os.environ.get("SST2_RAY_DATA")
    if not folder:
        pytest.skip("SST2_RAY_DATA is not set: needs SST-2 in GLUE's layout")
    return [line.split("\t")[0] for line in (Path(folder) / "dev.tsv").read_text().splitlines()[1:]]


@pytest.fixture(scope="module", params=PACKAGES)
def tool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tool, and the Python of an environment that holds it and what it requires."""
    packages = PACKAGES[request.param]
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    # The local part of a version (+cpu) is the build's: the index decides.
    wanted = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in packages]
    done = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install {', '.join(wanted)} here: {done.stderr.strip().splitlines()[-1]}")
    return request.param, python


def texts_of(kind: str, sentences: list[str]) -> list[str] | list[tuple[str, str]]:
    """The dev sentences, or pairs of each with the one before it."""
    if kind != "pairs":
        return sentences
    return list(zip(sentences, [sentences[-1], *sentences[:-1]], strict=True))


def export_of(kind: str, num_classes: int, out: Path, sentences: list[str]) -> Path:
    """An export of a kind: pretrained where the weights are packaged, else from random numbers."""
    name = kind
    if kind in ("sbert", "roberta", "pairs"):
        source = family_folder("roberta" if kind == "roberta" else "bert", out.with_name(f"{out.name}-source"))
        if kind == "sbert":
            add_sbert_modules(source)
        name = str(source)
    config = TrainConfig(model=name)
    resolved = resolve_model(config)
    columns = ("premise", "hypothesis") if kind == "pairs" else ()
    info = dataclasses.replace(resolved.info, labels=NAMES[num_classes], text_columns=columns)
    resolved = dataclasses.replace(resolved, info=info)
    tokenizer = load_tokenizer(resolved, lambda: sentences)
    classifier = build_classifier(resolved, tokenizer, seed=0).eval()
    weight = classifier.head_weights["weight"]
    with torch.no_grad():  # no larger: it multiplies rounding as well
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    export_model(classifier, tokenizer, out, card_facts(classifier, config))
    return out


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Callable[[str, int], Path]:
    """Makes the export of a kind with its ONNX folder, once."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    if packaged_sbert_folder() is None:
        pytest.skip("needs the packaged SBERT of the demo extra")
    top = tmp_path_factory.mktemp("exports")
    made: dict[tuple[str, int], Path] = {}

    def make(kind: str, num_classes: int) -> Path:
        if (kind, num_classes) not in made:
            folder = export_of(kind, num_classes, top / f"{kind}-{num_classes}", sentences)
            convert(Export.load(folder), Backend.ONNX, [Variant.FP32], [])
            made[kind, num_classes] = folder
        return made[kind, num_classes]

    return make


@pytest.mark.parametrize("num_classes", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_alone_gives_predict_s_answers_or_an_error(
    tool: tuple[str, str],
    export: Callable[[str, int], Path],
    sentences: list[str],
    tmp_path: Path,
    kind: str,
    num_classes: int,
) -> None:
    name, python = tool
    folder, texts = export(kind, num_classes), texts_of(kind, sentences)
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [python, "-c", RUN, str(tmp_path / "texts.json")],
        cwd=folder / "onnx" if name == "onnxruntime" else folder,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
        input=CODES[name],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(answer, list) == (kind in LOADS[name]), answer
    if kind in LOADS[name]:
        expected = probabilities(Predictor(folder, precision="fp32").logits(texts))
        np.testing.assert_allclose(np.array(answer), expected, atol=1e-4)
        first, second = np.sort(expected, axis=1)[:, :-3:-1].T
        clear = first - second > 2e-4  # weights of random numbers leave some sentences undecided
        assert np.array_equal(np.array(answer).argmax(axis=1)[clear], expected.argmax(axis=1)[clear])
        assert clear.mean() > 0.9
