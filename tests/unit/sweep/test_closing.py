"""What a sweep says at its end."""

from __future__ import annotations

from pathlib import Path

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.sweep import closing
from sst2_ray.terminal import text_console
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
