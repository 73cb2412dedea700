"""Tool x kind of export in fresh environments that hold one tool each: predict's labels and probabilities, or an error.

The environments are made with pip, the versions those of this environment: transformers with torch, sentence-transformers,
ONNX Runtime with tokenizers, OpenVINO with tokenizers. Each is made once, and one process in it runs all kinds.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

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
SBERTS = {"sbert-minilm", "sbert"}
HEADS = {"modernbert-mini", "roberta", "pairs"}


@dataclass(frozen=True)
class Tool:
    """A way to load an export: what pip installs for it, the code that sets `found`, and the kinds that it loads."""

    packages: tuple[str, ...]
    code: str
    loads: set[str]
    folder: str = "."


_PIPELINE = """
from transformers import pipeline
classify = pipeline("text-classification", model=".", device="cpu", dtype="float32", top_k=None)
given = [t if isinstance(t, str) else {"text": t[0], "text_pair": t[1]} for t in texts]
rows = [{r["label"]: r["score"] for r in row} for row in classify(given, truncation=True, batch_size=32)]
found = [[row[label] for label in labels] for row in rows]
"""
_AUTO = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(".", dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(".")
assert [model.config.id2label[i] for i in range(len(labels))] == labels
found = []
for start in range(0, len(texts), 32):
    some = texts[start : start + 32]
    columns = [some] if isinstance(some[0], str) else [list(column) for column in zip(*some)]
    with torch.inference_mode():
        logits = model(**tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")).logits
    found += logits.softmax(1).tolist()
"""
_SENTENCE_TRANSFORMER = """
import torch
from sentence_transformers import SentenceTransformer
logits = torch.tensor(SentenceTransformer(".", device="cpu").encode(texts))
assert logits.size(1) == len(labels), f"gives embeddings {list(logits.shape)}, not classes"
found = logits.softmax(1).tolist()
"""
_CROSS_ENCODER = """
import torch
from sentence_transformers import CrossEncoder
logits = torch.tensor(CrossEncoder(".", device="cpu").predict(texts))
found = logits.softmax(1).tolist()
"""
_INPUTS = """
import numpy as np
from tokenizers import Tokenizer
facts = json.load(open("sst2_ray.json"))
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(facts["max_length"])
tokenizer.enable_padding(pad_id=facts["format"]["pad_id"])
fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
def batches():
    for start in range(0, len(texts), 32):
        encoded = tokenizer.encode_batch(texts[start : start + 32])
        yield {n: np.array([getattr(e, fields[n]) for e in encoded], dtype=np.int64) for n in facts["format"]["inputs"]}
def shares(logits):
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).tolist()
"""
_ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
found = [row for inputs in batches() for row in shares(session.run(["logits"], inputs)[0])]
"""
_OPENVINO = """
import openvino
model = openvino.Core().compile_model("openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found = [row for inputs in batches() for row in shares(model(inputs)["logits"])]
"""
TOOLS = {
    "pipeline": Tool(("transformers", "torch"), _PIPELINE, HEADS),
    "AutoModelForSequenceClassification": Tool(("transformers", "torch"), _AUTO, HEADS),
    "SentenceTransformer": Tool(("sentence-transformers", "torch"), _SENTENCE_TRANSFORMER, SBERTS),
    "CrossEncoder": Tool(("sentence-transformers", "torch"), _CROSS_ENCODER, {"pairs"}),
    "onnxruntime": Tool(("onnxruntime", "tokenizers", "numpy"), _INPUTS + _ONNX, set(KINDS), "onnx"),
    "openvino": Tool(("openvino", "tokenizers", "numpy"), _INPUTS + _OPENVINO, set(KINDS), "openvino"),
}

RUN = """
import json, os, sys
code, answers = sys.stdin.read(), {}
for case, (folder, file) in json.load(open(sys.argv[1])).items():
    os.chdir(folder)
    labels = json.load(open("sst2_ray.json"))["labels"]
    texts = [t if isinstance(t, str) else tuple(t) for t in json.load(open(file))]
    space = {"json": json, "texts": texts, "labels": labels}
    try:
        exec(code, space)
        answers[case] = space["found"]
    except Exception as error:
        answers[case] = f"{type(error).__name__}: {error}"
json.dump(answers, open(sys.argv[2], "w"))
"""

Answer = NDArray[np.float64] | str
"""Probabilities [sentences, classes], or an error."""


@dataclass(frozen=True)
class Case:
    """An export with all formats, the texts that it labels, and predict's probabilities for them."""

    folder: Path
    texts: Path
    expected: NDArray[np.float64]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Every kind with two and with five classes."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("openvino", reason="needs the extra openvino")
    data = os.environ.get("SST2_RAY_DATA")
    if not data:
        pytest.skip("SST2_RAY_DATA is not set: needs SST-2 in GLUE's layout")
    if packaged_sbert_folder() is None:
        pytest.skip("needs the packaged SBERT of the demo extra")
    sentences = [line.split("\t")[0] for line in Path(data, "dev.tsv").read_text().splitlines()[1:]]
    top = tmp_path_factory.mktemp("exports")
    made = {}
    for kind in KINDS:
        texts = texts_of(kind, sentences)
        file = top / f"{kind}.json"
        file.write_text(json.dumps(texts))
        for num_classes in NAMES:
            folder = export_of(kind, num_classes, top / f"{kind}-{num_classes}", sentences)
            for backend in (Backend.ONNX, Backend.OPENVINO):
                convert(Export.load(folder), backend, [Variant.FP32], [])
            expected = probabilities(Predictor(folder, precision="fp32").logits(texts))
            made[f"{kind}-{num_classes}"] = Case(folder, file, expected)
    return made


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
def environments() -> dict[tuple[str, ...], str]:
    """The Python of each environment that was made, by its packages."""
    return {}


@pytest.fixture(scope="module", params=TOOLS)
def answers(
    request: pytest.FixtureRequest,
    cases: dict[str, Case],
    environments: dict[tuple[str, ...], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Tool, dict[str, Answer]]:
    """A tool, and what it answers for every case."""
    tool, scratch = TOOLS[request.param], tmp_path_factory.mktemp("tool")
    if tool.packages not in environments:
        environments[tool.packages] = environment(tool.packages, tmp_path_factory.mktemp("environment"))
    given = {name: (str(case.folder / tool.folder), str(case.texts)) for name, case in cases.items()}
    (scratch / "cases.json").write_text(json.dumps(given))
    done = subprocess.run(
        [environments[tool.packages], "-c", RUN, str(scratch / "cases.json"), str(scratch / "answers.json")],
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "HOME": str(scratch)},
        input=tool.code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((scratch / "answers.json").read_text())
    return tool, {name: value if isinstance(value, str) else np.array(value) for name, value in found.items()}


def environment(packages: tuple[str, ...], folder: Path) -> str:
    """Make a fresh environment that holds these packages and what they require; returns its Python."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    # The local part of a version (+cpu) is the build's: the index decides.
    wanted = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in packages]
    done = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install {', '.join(wanted)} here: {done.stderr.strip().splitlines()[-1]}")
    found = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "sst2" not in found
    return python


@pytest.mark.parametrize("num_classes", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_alone_gives_predict_s_answers_or_an_error(
    answers: tuple[Tool, dict[str, Answer]], cases: dict[str, Case], kind: str, num_classes: int
) -> None:
    tool, found = answers
    answer, expected = found[f"{kind}-{num_classes}"], cases[f"{kind}-{num_classes}"].expected
    assert isinstance(answer, str) == (kind not in tool.loads), answer
    if isinstance(answer, str):
        return
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    clear = first - second > 2e-4  # weights of random numbers leave some sentences undecided
    assert np.array_equal(answer.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])
    assert clear.mean() > 0.9
