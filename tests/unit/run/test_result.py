"""What the closing table of a run says of its accuracy."""

from __future__ import annotations

import pytest

import sst2_ray


@pytest.mark.parametrize(("last", "chosen"), [(0.8, True), (0.8333333, False)])
def test_the_accuracy_has_an_interval_and_says_what_was_chosen_on_its_rows(last: float, chosen: bool) -> None:
    result = sst2_ray.TrainResult(
        name="first", status="succeeded", eval_split="hold-out of reviews.csv", best_dev_accuracy=0.8333333, best_dev_f1=0.8,
        best_dev_loss=0.4, best_dev_macro_f1=0.8, best_dev_mcc=0.6, majority_share=0.5, best_num_answered=2, best_epoch=2.0,
        last_dev_accuracy=last, num_dev_rows=30, examples_per_sec=212.0, seconds=50.0, startup_seconds=3.3,
        peak_memory_gib=1.43, world_size=1, model_label="sbert-minilm", model_dir="m", run_dir="r", results_dir="t",
    )  # fmt: skip
    words = dict(result.rows())["interval"]
    # 25 of 30: Wilson's interval by hand.
    assert words.startswith("66.44 to 92.66 with 95 % confidence, for new sentences but not for new seeds")
    assert ("the epoch was chosen on these rows" in words) == chosen
