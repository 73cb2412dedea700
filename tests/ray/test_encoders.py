"""Encoders of other families through the whole command: plan, training, export, and the same answers in plain tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sst2_ray.modeling.sources import resolve_model
from sst2_ray.predict.predictor import Predictor
from sst2_ray.run.model_size import model_size
from tests.support.families import family_folder
from tests.support.models import run_without_package
from tests.support.runs import Runs

pytestmark = pytest.mark.usefixtures("two_cpus")

TEXTS = ["a gripping , funny film", "it never comes to life", "uneasy"]
PIPELINE = """
import json
from transformers import pipeline
classify = pipeline("text-classification", model=".", device="cpu", dtype="float32", top_k=None)
rows = [{r["label"]: r["score"] for r in row} for row in classify(json.load(open("texts.json")), truncation=True)]
print(json.dumps([[row["negative"], row["positive"]] for row in rows]))
"""


@pytest.mark.parametrize("family", ["distilbert", "squeezebert", "bert"])
def test_a_family_goes_through_the_whole_command(runs: Runs, family: str) -> None:
    # BERT's folder comes from a task with several labels a text, whose sigmoids must not survive.
    changes = {"num_labels": 3, "problem_type": "multi_label_classification"} if family == "bert" else {}
    folder = str(family_folder(family, runs.folder / family, **changes))
    assert model_size(resolve_model(runs.config("plan", model=folder)), 300).inner == 64
    result = runs.train(family, model=folder, max_length=40, num_workers=1)
    (row,) = [row for row in runs.rows("trials", family) if row["status"] == "succeeded"]
    assert row["model_kind"] == "encoder"
    export = Path(result.model_dir)
    ours = torch.from_numpy(Predictor(export).logits(TEXTS)).softmax(1)
    (export / "texts.json").write_text(json.dumps(TEXTS))
    theirs = torch.tensor(json.loads(run_without_package(PIPELINE, export)))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    assert torch.equal(theirs.argmax(1), ours.argmax(1))
