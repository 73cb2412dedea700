"""`--calibrate-probabilities`: fitted on the held-out part of train, in the exported head, stated on the card and in the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sst2_ray
from sst2_ray.predict.predictor import Predictor
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics.temperature import uncalibrated
from sst2_ray.training.metrics import positive_probability
from tests.support.models import sbert_folder
from tests.support.reviews import reviews, write_glue_folder


def test_every_tool_gets_the_calibrated_head_and_the_table_says_how_to_undo_it(tmp_path: Path) -> None:
    write_glue_folder(tmp_path / "data", reviews(160), reviews(40, topic="play"))
    config = {
        "model": str(sbert_folder(tmp_path / "sbert")), "data": str(tmp_path / "data"), "storage_path": str(tmp_path / "runs"),
        "epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "selection_fraction": 0.25, "precision": "fp32", "num_workers": 1,
    }  # fmt: skip
    plain = sst2_ray.train(sst2_ray.TrainConfig(**config, name="plain"))
    found = sst2_ray.train(sst2_ray.TrainConfig(**config, name="calibrated", calibrate_probabilities=True))
    (row,) = ResultsTable(config["storage_path"]).read("trials", experiment="calibrated", attempts="latest").to_pylist()
    facts = json.loads((Path(found.model_dir) / "sst2_ray.json").read_text())["calibration"]
    assert (facts["temperature"], facts["threshold"]) == (row["temperature"], row["decision_threshold"])
    assert facts["num_rows"] == 40
    assert "## Calibration" in (Path(found.model_dir) / "README.md").read_text()
    texts = [text for text, _ in reviews(40, topic="play")]
    calibrated, before = (
        positive_probability(Predictor(one.model_dir, precision="fp32").logits(texts)) for one in (found, plain)
    )
    undone = uncalibrated(calibrated, temperature=row["temperature"], threshold=row["decision_threshold"])
    np.testing.assert_allclose(undone, before, atol=1e-4)
    stored = ResultsTable(config["storage_path"]).read("predictions", experiment="calibrated").to_pylist()
    on_dev = sorted((one for one in stored if one["split"] == "dev"), key=lambda one: one["row_id"])
    assert [one["probability"] for one in on_dev] == pytest.approx(calibrated.tolist(), abs=1e-4)


def test_without_held_out_sentences_it_is_refused(tmp_path: Path) -> None:
    write_glue_folder(tmp_path / "data", reviews(64), reviews(16, topic="play"))
    config = sst2_ray.TrainConfig(data=str(tmp_path / "data"), batch_size=16, calibrate_probabilities=True)
    with pytest.raises(sst2_ray.errors.InputError, match="--selection-fraction"):
        sst2_ray.train(config)
