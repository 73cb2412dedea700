"""Tool x kind of export in fresh environments that hold one tool each: predict's labels and probabilities, or an error.

The environments are made with pip (transformers with torch alone, sentence-transformers alone, ONNX Runtime with tokenizers
alone), the versions those of this environment. docs/export.md shows LOADS as a table.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.export.folder import export_model
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer
from sst2_ray.predict.predictor import Predictor
from sst2_ray.training.metrics import probabilities
from tests.support.families import family_folder
from tests.support.hub_server import packaged_sbert_folder
from tests.support.models import card_facts, spread_head
from tests.unit.modeling.export.test_tools import TOOLS

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

NAMES = {2: ("negative", "positive"), 5: ("awful", "bad", "fair", "good", "great")}
KINDS = ("sbert-minilm", "sbert", "modernbert-mini", "roberta")
PACKAGES = {
    "transformers": ("transformers", "torch"),
    "sentence-transformers": ("sentence-transformers", "torch"),
    "onnxruntime": ("onnxruntime", "tokenizers", "numpy"),
}
LOADS = {
    "transformers": {"modernbert-mini", "roberta"},
    "sentence-transformers": {"sbert-minilm", "sbert"},
    "onnxruntime": {"sbert-minilm", "sbert", "modernbert-mini", "roberta"},
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
    encoded = tokenizer.encode_batch(texts[start : start + 32])
    ids = np.array([e.ids for e in encoded], dtype=np.int64)
    mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
    (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    found += (raised / raised.sum(axis=1, keepdims=True)).tolist()
"""
CODES = {
    "transformers": TOOLS["AutoModelForSequenceClassification"],
    "sentence-transformers": TOOLS["SentenceTransformer"],
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


def export_of(kind: str, num_classes: int, out: Path, texts: list[str]) -> Path:
    """An export of a kind: pretrained where the weights are packaged, else from random numbers."""
    if kind == "roberta":
        config = TrainConfig(model=str(family_folder("roberta", out.with_name(f"{out.name}-source"))))
    elif kind == "sbert-minilm":
        config = TrainConfig(model=kind)
    else:
        config = TrainConfig(model=kind, random_weights=True, tokenizer=str(packaged_sbert_folder()))
    resolved = resolve_model(config)
    resolved = dataclasses.replace(resolved, info=dataclasses.replace(resolved.info, labels=NAMES[num_classes]))
    loaded = load_tokenizer(resolved, lambda: texts)
    classifier = build_classifier(resolved, loaded, seed=0).eval()
    spread_head(classifier, loaded, texts[:64])
    export_model(classifier, loaded, out, card_facts(classifier, config))
    return out


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> dict[tuple[str, int], Path]:
    """Exports of all kinds, each with its ONNX folder."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    if packaged_sbert_folder() is None:
        pytest.skip("needs the packaged SBERT of the demo extra")
    top = tmp_path_factory.mktemp("exports")
    made = {}
    for kind in KINDS:
        for num_classes in NAMES:
            folder = export_of(kind, num_classes, top / f"{kind}-{num_classes}", sentences)
            done = subprocess.run(
                [sys.executable, "-m", "sst2_ray", "export", str(folder)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            made[kind, num_classes] = folder
    return made


@pytest.mark.parametrize("num_classes", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_alone_gives_predict_s_answers_or_an_error(
    tool: tuple[str, str],
    exports: dict[tuple[str, int], Path],
    sentences: list[str],
    tmp_path: Path,
    kind: str,
    num_classes: int,
) -> None:
    name, python = tool
    folder = exports[kind, num_classes]
    (tmp_path / "texts.json").write_text(json.dumps(sentences))
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
        expected = probabilities(Predictor(folder, precision="fp32").logits(sentences))
        np.testing.assert_allclose(np.array(answer), expected, atol=1e-4)
        assert np.array_equal(np.array(answer).argmax(axis=1), expected.argmax(axis=1))
        assert len(set(expected.argmax(axis=1))) > 1
