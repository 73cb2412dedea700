"""What a sweep says at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.sweep import closing
from sst2_ray.sweep.result import result_of
from sst2_ray.terminal import text_console
from tests.support.records import trial
from tests.support.synthetic_results import MINI, MODERNBERT, write_study


def test_a_sweep_that_is_not_whole_says_how_many_trials_are_to_come_and_advises_nothing(tmp_path: Path) -> None:
    config = SweepConfig(models=(MODERNBERT.name, MINI.name), base=TrainConfig(name="synthetic-sweep"))
    study = write_study(str(tmp_path / "runs"), models=(MODERNBERT, MINI), learning_rates=(8e-5, 1.2e-4), num_seeds=2)
    now = closing.standing(study, config)
    for num_not_run in (0, 3):
        out = text_console(200)
        closing.show(out, now, num_not_run=num_not_run)
        text = out.file.getvalue()  # type: ignore[attr-defined]
        assert (", 3 not run yet." in text) == bool(num_not_run)
        assert ("next to try" in text) == (not num_not_run)


@pytest.mark.parametrize(
    ("chosen_by", "held_out", "said"),
    [
        ("accuracy", True, ", 90.00 % accuracy on the held-out part of train"),
        ("accuracy", False, ", 90.00 % dev accuracy at the best epoch"),
        ("f1", True, ", 40.00 % F1 on the held-out part of train"),
        ("mcc", True, ", 0.4000 MCC on the held-out part of train"),
        ("loss", True, ", 0.4000 loss on the held-out part of train"),
        ("spearman", False, ", 0.4000 Spearman correlation on dev at the best epoch"),
    ],
)
def test_a_result_shows_its_mean_in_the_metric_that_it_was_chosen_by(
    tmp_path: Path, chosen_by: str, held_out: bool, said: str
) -> None:
    table, config = ResultsTable(str(tmp_path)), SweepConfig(base=TrainConfig(name="e"))
    accuracy, score = ("selection_accuracy", "selection_score") if held_out else ("best_dev_accuracy", "best_score")
    scores = {accuracy: 0.9} if chosen_by == "accuracy" else {accuracy: 0.9, score: 0.4}
    table.write("trials", [trial(model="sbert", learning_rate=8e-5, batch_size=32, chosen_by=chosen_by, **scores)])
    result = result_of(closing.standing(table, config), config=config, ended_by=None, seconds=1.0, cost_usd=None)
    assert dict(result.rows())["best"] == f"sbert, lr 8e-5, batch 32{said}"
    assert (result.mean, result.chosen_by) == (0.9 if chosen_by == "accuracy" else 0.4, chosen_by)
