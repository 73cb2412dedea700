"""What the closing table of a run says of its accuracy."""

from __future__ import annotations

from typing import Any

import pytest

import sst2_ray


def finished(**values: Any) -> sst2_ray.TrainResult:
    """The result of a run whose best model was right on 25 of 30 rows."""
    known = {
        "name": "first", "status": "succeeded", "eval_split": "hold-out of reviews.csv", "best_dev_accuracy": 0.8333333,
        "best_dev_f1": 0.8, "best_dev_loss": 0.4, "best_dev_macro_f1": 0.8, "best_dev_mcc": 0.6, "majority_share": 0.5,
        "best_num_answered": 2, "best_epoch": 2.0, "last_dev_accuracy": 0.8, "num_dev_rows": 30, "examples_per_sec": 212.0,
        "seconds": 50.0, "startup_seconds": 3.3, "peak_memory_gib": 1.43, "world_size": 1, "model_label": "sbert-minilm",
        "model_dir": "m", "run_dir": "r", "results_dir": "t",
    }  # fmt: skip
    return sst2_ray.TrainResult(**{**known, **values})


@pytest.mark.parametrize(("last", "chosen"), [(0.8, True), (0.8333333, False)])
def test_the_accuracy_has_an_interval_and_says_what_was_chosen_on_its_rows(last: float, chosen: bool) -> None:
    words = dict(finished(last_dev_accuracy=last).rows())["interval"]
    # 25 of 30: Wilson's interval by hand.
    assert words.startswith("66.44 to 92.66 with 95 % confidence, for new sentences but not for new seeds")
    assert ("the epoch was chosen on these rows" in words) == chosen


def test_the_speed_of_an_attempt_without_a_step_is_not_zero() -> None:
    assert dict(finished().rows())["speed"].startswith("212 examples/s, 50 s in all, first step after 3.3 s")
    ended = finished(examples_per_sec=None, startup_seconds=None)
    assert dict(ended.rows())["speed"] == "no step was left to do, 50 s in all"
