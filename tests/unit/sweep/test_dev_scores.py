"""Dev of a sweep that chooses on a held-out part of train: scored once, and stated with all that the export holds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.sources import ModelInfo
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.planning.placement import Placement
from sst2_ray.storage import Storage
from sst2_ray.sweep import closing
from sst2_ray.sweep.dev_scores import _state_on_card, score_chosen
from sst2_ray.training.dev_records import restated
from sst2_ray.training.metrics import Metrics
from tests.support.records import epoch, trial


def test_a_regression_that_was_scored_is_not_scored_again(tmp_path: Path) -> None:
    """It has no accuracy that could tell; a second time the last epoch's model would be gone."""
    scores = {"chosen_by": "spearman", "best_score": 0.8, "selection_score": 0.81, "best_dev_spearman": 0.8}
    table = ResultsTable(str(tmp_path))
    table.write("trials", [trial("t", experiment="s", seed=0, configuration_id="c", export_path="model", **scores)])
    table.write("epochs", [epoch(100, experiment="s", split="selection", dev_spearman=0.81)])
    now = closing.standing(table, SweepConfig(base=TrainConfig(name="s", data="glue/stsb")))
    assert now.ranking is not None
    assert now.ranking.on_selection
    placement = cast(Placement, SimpleNamespace(cpus_per_worker=1, use_gpu=False))
    assert score_chosen(now, table, Storage.open(str(tmp_path)), shared={}, placement=placement) == 0


def test_the_card_still_states_the_calibration_that_the_head_holds(tmp_path: Path) -> None:
    config = TrainConfig(calibrate_head=True, selection_fraction=0.1)
    info = ModelInfo(
        kind="sbert", source="random", revision=None, random_weights=True, label="x", attention="sdpa", origin="o",
        trained_on=(), labels=("negative", "positive"),
    )  # fmt: skip
    splits = SimpleNamespace(source="reviews", eval_split="dev of reviews")
    inputs = SimpleNamespace(splits=splits, resolved=SimpleNamespace(info=info), corpora=())
    run, record = Storage.open(str(tmp_path)), trial(config_json=json.dumps(config.to_dict()))
    stated = {"temperature": 1.7, "threshold": 0.44, "num_rows": 87, "before": None, "after": None}
    logits = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    calibration = restated(stated, logits, (logits[:, 1] > logits[:, 0]).astype(np.int16))
    dev = Metrics(loss=0.4, num_rows=200, accuracy=1.0, f1=1.0)
    _state_on_card(run, record, cast(Any, SimpleNamespace(inputs=inputs)), info, dev, calibration)
    found = run.read_json("model/sst2_ray.json")["calibration"]
    assert (found["temperature"], found["threshold"], found["num_rows"]) == (1.7, pytest.approx(0.44), 87)
    assert found["before"] is not None
    assert "The head holds a temperature of 1.700" in run.read_bytes("model/README.md").decode()
    assert restated(None, logits, np.zeros(200, np.int16)) is None
