"""A regression from its first step to its export, its predictions and the results table."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.labels import VALUE
from sst2_ray.errors import InputError
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer, tokenizer_to_json
from sst2_ray.predict.export import main as convert
from sst2_ray.predict.predictor import Predictor, is_regression
from sst2_ray.predict.scoring import ValueScores
from sst2_ray.predict.shapes import added_columns, predictions_of
from sst2_ray.results.analysis.findings import studies
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.serving.app import Model, ServeSettings
from sst2_ray.storage import Storage
from sst2_ray.training.attempt import Attempt
from sst2_ray.training.calibrate import NullReporter
from sst2_ray.training.outcome import Finished
from sst2_ray.training.task import Task
from tests.support.families import family_folder
from tests.support.records import trial
from tests.support.training import training_rows


class Told(NullReporter):
    """Keeps the records of an attempt."""

    def __init__(self) -> None:
        self.records: list = []
        self.predictions: list = []

    def evaluated(self, record, *, is_best):  # noqa: ARG002
        self.records.append(record)

    def write_predictions(self, records):
        self.predictions += records


def scored(num_rows: int):
    """Rows whose value, 0 to 5, can be told from their second token."""
    tokens = training_rows(num_rows)
    return dataclasses.replace(tokens, labels=(tokens.input_ids[tokens.offsets[:-1] + 1] % 6).astype(np.float32))


def run(folder: Path, storage: Path, **values) -> tuple[Finished, Told]:
    config = TrainConfig(
        model=str(folder), engine="torch", batch_size=8, epochs=3, precision="fp32", task="regression",
        learning_rate=1e-3, **values,
    )  # fmt: skip
    resolved = resolve_model(config)
    resolved = dataclasses.replace(resolved, info=dataclasses.replace(resolved.info, labels=VALUE.names))
    task = Task(
        config=config, experiment="e", trial_id="t", attempt=0, resolved=resolved,
        tokenizer_json=tokenizer_to_json(load_tokenizer(resolved)), micro_batch_tokens=None, source="", eval_split="dev",
        corpora=(), started_at=time.time(),
    )  # fmt: skip
    told = Told()
    tokens = {"train": scored(64), "dev": scored(24)}
    attempt = Attempt(
        task, tokens, Storage.open(str(storage)), told, texts=lambda: [str(row) for row in range(24)],
        device=torch.device("cpu"), rank=0, world_size=1,
    )  # fmt: skip
    end = attempt.run()
    assert isinstance(end, Finished)
    return end, told


@pytest.mark.parametrize("kind", ["sbert", "roberta"])
def test_a_regression_is_trained_on_squared_errors_and_judged_by_correlations(
    sbert_folder: Path, tmp_path: Path, kind: str
) -> None:
    folder = sbert_folder if kind == "sbert" else family_folder(kind, tmp_path / "model")
    end, told = run(folder, tmp_path / "run", max_length=64)
    assert told.records[-1].train_loss < told.records[0].train_loss
    assert (end.best.dev_accuracy, end.best.num_answered, told.records[0].train_accuracy) == (None, None, None)
    best = max(told.records, key=lambda r: (r.dev_spearman, -r.global_step))
    assert (end.best.global_step, end.best.score) == (best.global_step, best.dev_spearman)
    label, value = (np.array([getattr(p, f"{of}_value") for p in told.predictions]) for of in ("label", "predicted"))
    assert np.corrcoef(label, value)[0, 1] == pytest.approx(end.best.dev_pearson, abs=1e-5)
    assert float(((label - value) ** 2).mean()) == pytest.approx(end.best.dev_loss, rel=1e-4)
    assert {p.label for p in told.predictions} == {None}

    export = tmp_path / "run" / "model"
    assert is_regression(str(export))
    if kind != "sbert":
        config = json.loads((export / "config.json").read_text())
        assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "score"})
    assert "Pearson correlation" in (export / "README.md").read_text()
    predictor = Predictor(export)
    logits = predictor.logits(["one text", "another"])
    assert added_columns(logits, predictor.classes).keys() == {"predicted"}
    first = predictions_of(["one text", "another"], logits, predictor.classes)[0]
    assert first.value == pytest.approx(float(logits[0, 0]))


def test_an_export_of_a_regression_gives_its_values_in_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run(family_folder("roberta", tmp_path / "model"), tmp_path / "run", max_length=64)
    export = tmp_path / "run" / "model"
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(export).eval(),
        AutoTokenizer.from_pretrained(export),
    )
    texts = ["one text", "another , longer text"]
    with torch.no_grad():
        plain = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
    assert Predictor(export, precision="fp32").logits(texts)[:, 0] == pytest.approx(plain.numpy(), abs=1e-5)
    served = Model(ServeSettings(model_dir=str(export), precision="fp32"))
    assert asyncio.run(served.facts())["columns"] == ["predicted"]
    rows = asyncio.run(served.predict(texts))
    assert [row["predicted"] for row in rows] == pytest.approx(plain.tolist(), abs=1e-5)
    with pytest.raises(InputError, match="answers with values; only models of classes are converted"):
        convert([str(export), "--to", "onnx"])


def test_values_beside_a_file_are_scored_and_what_is_none_is_said() -> None:
    scores = ValueScores()
    scores.add(np.array([[1.0], [2.0], [4.0], [9.0], [9.0]], dtype=np.float32), ["1", "2.5", "4", None, "much"])
    assert scores.known == 3
    assert scores.unknown_notes == ["1 row whose label is no number not scored"]
    assert scores.lines()[0].startswith("Pearson 0.9")
    assert "squared error 0.0833" in scores.lines()[0]


def test_a_better_regression_wins_in_the_table(tmp_path: Path, sbert_folder: Path) -> None:
    _, told = run(sbert_folder, tmp_path / "run")
    table = ResultsTable(str(tmp_path / "table"))
    random = np.random.default_rng(0)
    for name, noise in (("good", 0.2), ("bad", 8.0)):
        for seed in range(3):
            run_id = f"{name}{seed}"
            values = {"seed": seed, "model": name, "eval_split": "dev of scores", "num_classes": 1}
            answers = [
                dataclasses.replace(p, trial_id=run_id, predicted_value=float(p.label_value + noise * random.normal()))
                for p in told.predictions
            ]
            truth, value = (np.array([getattr(p, f"{of}_value") for p in answers]) for of in ("label", "predicted"))
            score = float(np.corrcoef(truth, value)[0, 1])
            step = answers[0].global_step
            chosen = {"chosen_by": "pearson", "best_score": score, "best_dev_pearson": score, "best_global_step": step}
            table.write("trials", [trial(run_id, configuration_id=name, **values, **chosen)])
            table.write("predictions", answers)
    (study,) = studies(table, table.read("trials", attempts="latest"))
    assert study.main is not None and study.bests is not None
    assert [c.configuration_id for c in study.main.configurations] == ["good", "bad"]
    assert [c.configuration_id for c in study.bests.configurations] == ["good"]
    estimate = study.on_dev.estimate(study.main.best, "pearson")
    assert estimate is not None
    assert estimate.value == pytest.approx(study.main.score(study.main.best), abs=1e-6)
