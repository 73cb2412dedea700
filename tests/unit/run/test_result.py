"""What the closing table of a run says of its accuracy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import sst2_ray
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.run import train
from sst2_ray.run.prepare import check, run_description
from sst2_ray.run.result import stored_result
from sst2_ray.storage import Storage
from tests.support.models import sbert_folder
from tests.support.reviews import reviews, write_glue_folder

RESULT = sst2_ray.TrainResult(
    name="first", status="succeeded", eval_split="hold-out of reviews.csv", best_dev_accuracy=0.8333333, best_dev_f1=0.8,
    best_dev_loss=0.4, best_dev_macro_f1=0.8, best_dev_mcc=0.6, majority_share=0.5, best_num_answered=2, best_epoch=2.0,
    last_dev_accuracy=0.8, num_dev_rows=30, examples_per_sec=212.0, seconds=50.0, startup_seconds=3.3,
    peak_memory_gib=1.43, world_size=1, model_label="sbert-minilm", model_dir="m", run_dir="r", results_dir="t",
)  # fmt: skip


@pytest.mark.parametrize(("last", "chosen"), [(0.8, True), (0.8333333, False)])
def test_the_accuracy_has_an_interval_and_says_what_was_chosen_on_its_rows(last: float, chosen: bool) -> None:
    result = dataclasses.replace(RESULT, last_dev_accuracy=last)
    words = dict(result.rows())["interval"]
    # 25 of 30: Wilson's interval by hand.
    assert words.startswith(
        "66.44 to 92.66 with 95 % confidence, for new sentences but not for new seeds (Wilson's, of this run alone)"
    )
    assert ("the epoch was chosen on these rows" in words) == chosen


def test_a_stored_result_of_another_version_is_read_as_far_as_it_is_known() -> None:
    values = json.loads(json.dumps(dataclasses.asdict(RESULT)))
    del values["goodput"], values["time_words"]
    assert stored_result({**values, "of_a_later_version": 1}, "--name first") == RESULT
    del values["model_dir"], values["seconds"]
    with pytest.raises(InputError, match=r"^--name first: its result.json lacks seconds, model_dir; choose another"):
        stored_result(values, "--name first")


def test_a_run_that_another_version_has_finished_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sbert_folder(tmp_path / "model")
    write_glue_folder(tmp_path / "data", reviews(64), reviews(16, topic="play"))
    config = TrainConfig(
        model=str(tmp_path / "model"), data=str(tmp_path / "data"), storage_path=str(tmp_path / "runs"), batch_size=8, name="first"
    )  # fmt: skip
    run = Storage.open(config.storage_path).child("first")
    run.write_json("config.json", run_description(check(config)))
    run.write_json("result.json", {**dataclasses.asdict(RESULT), "of_a_later_version": 1})
    assert train.train(config) == RESULT
    assert "first is finished already" in capsys.readouterr().out


def test_the_speed_of_an_attempt_without_a_step_is_not_zero() -> None:
    assert dict(RESULT.rows())["speed"].startswith("212 examples/s, 50 s in all, first step after 3.3 s")
    ended = dataclasses.replace(RESULT, examples_per_sec=None, startup_seconds=None)
    assert dict(ended.rows())["speed"] == "no step was left to do, 50 s in all"
