"""Tools x kinds of export, without this package: each tool gives the same labels and probabilities, or an error."""

from __future__ import annotations

import json

import pytest
import torch

from sst2_ray.modeling.export.folder import load_export
from tests.support.families import family_folder
from tests.support.models import SENTENCES, add_sbert_modules, encode, export_of, run_without_package

RUN = """
import json, torch
texts, labels = json.load(open("texts.json")), json.load(open("sst2_ray.json"))["labels"]
answers = {}
for tool, code in json.load(open("tools.json")).items():
    try:
        exec(code)
        answers[tool] = found
    except Exception as error:
        answers[tool] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""
TOOLS = {
    "pipeline": """
from transformers import pipeline
classify = pipeline("text-classification", model=".", device="cpu", dtype="float32", top_k=None)
found = [{r["label"]: r["score"] for r in row} for row in classify(texts, truncation=True)]
found = [[row[label] for label in labels] for row in found]
""",
    "AutoModelForSequenceClassification": """
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(".", dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(".")
with torch.inference_mode():
    logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
assert [model.config.id2label[i] for i in range(len(labels))] == labels
found = logits.softmax(1).tolist()
""",
    "SentenceTransformer": """
from sentence_transformers import SentenceTransformer
logits = torch.tensor(SentenceTransformer(".", device="cpu").encode(texts))
assert logits.size(1) == len(labels), "these are embeddings"
found = logits.softmax(1).tolist()
""",
    "CrossEncoder": """
from sentence_transformers import CrossEncoder
logits = torch.tensor(CrossEncoder(".", device="cpu").predict(texts))
assert logits.shape == (len(texts), len(labels))
found = logits.softmax(1).tolist()
""",
}
LOADS = {
    "modernbert": {"pipeline", "AutoModelForSequenceClassification"},
    "bert": {"pipeline", "AutoModelForSequenceClassification"},
    "roberta": {"pipeline", "AutoModelForSequenceClassification"},
    "sbert on bert": {"SentenceTransformer"},
    "sbert on roberta": {"SentenceTransformer"},
}
"""Tools that load a kind; the others end with an error."""


@pytest.mark.parametrize("kind", sorted(LOADS))
def test_every_tool_gives_the_same_answers_or_an_error(kind, tmp_path):
    folder = family_folder(kind.removeprefix("sbert on "), tmp_path / "model")
    if kind.startswith("sbert"):
        add_sbert_modules(folder)
    export = export_of(folder, tmp_path / "export", max_length=40)
    model, tokenizer, _ = load_export(export)
    with torch.inference_mode():
        expected = model(*encode(tokenizer, max_length=40)).softmax(1)
    (export / "texts.json").write_text(json.dumps(SENTENCES))
    (export / "tools.json").write_text(json.dumps(TOOLS))
    answers = json.loads(run_without_package(RUN, export))
    for tool, found in answers.items():
        assert isinstance(found, list) == (tool in LOADS[kind]), (tool, found)
        if tool in LOADS[kind]:
            # The spread head multiplies the rounding of padded and unpadded sums as well.
            torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-3, atol=1e-3)
            assert torch.equal(torch.tensor(found).argmax(1), expected.argmax(1))
