"""The live table and the summary line of a running sweep."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.run.messages import Progress, TrialOverview
from sst2_ray.sweep.display import SweepDisplay, SweepProgress
from sst2_ray.sweep.queue import Outcome, TrialQueue
from sst2_ray.training.names import Phase
from tests.support.records import epoch

SWEEP = SweepConfig(models=("sentence-transformers/all-mpnet-base-v2",), learning_rates=(1.25e-4, 8e-5), num_seeds=2)


def screen(width: int) -> str:
    """Render two trials that ended and one that trains, with a price, as a terminal of that width shows them."""
    out = Console(file=io.StringIO(), width=width, height=40, force_terminal=True, color_system=None)
    queue = TrialQueue(SWEEP)
    display = SweepDisplay(out, "around-the-paper", queue)
    first, second, third = (queue.take() for _ in range(3))
    progress = Progress(phase=Phase.TRAINING, global_step=1200, total_steps=16838, epoch=1.25, examples_per_sec=2104.0)
    evaluation = epoch(1200, dev_accuracy=0.9472)
    status = SweepProgress(
        overview={third.trial_id: TrialOverview(progress=progress, evaluation=evaluation)},
        elapsed={spec.trial_id: 754.0 for spec in (first, second, third)},
        used_s=1508.0,
        left_s=3000.0,
        cost_usd=1.25,
        predicted_usd=3.75,
        budget_usd=5.0,
    )
    display.update(status, lambda seconds: seconds / 3600)
    queue.close(first.trial_id, Outcome(status="succeeded", score=0.9453))
    queue.close(second.trial_id, Outcome(status="failed", score=None, failure_class="out_of_memory"))
    out.print(display._table(status))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_live_table_shows_settings_whole_at_every_width(width: int) -> None:
    text = screen(width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("1.25e-4", "8e-5", "94.53", "94.72", "out_of_memory", "step 1,200/16,838"):
        assert word in text
    assert "…" not in text


def test_the_best_so_far_is_the_first_of_a_ranking_of_what_has_ended() -> None:
    queue = TrialQueue(SWEEP)
    display = SweepDisplay(Console(file=io.StringIO()), "around-the-paper", queue)
    assert display.best_so_far() == ""
    specs = [queue.take() for _ in range(4)]
    for spec, score in zip(specs, (0.94, 0.95, 0.90), strict=False):
        queue.close(spec.trial_id, Outcome(status="succeeded", score=score))
    assert display.best_so_far() == f"{specs[1].configuration_name} 95.00 % (1 seed)"
    queue.close(specs[3].trial_id, Outcome(status="failed", score=None, failure_class="non_finite"))
    assert display.best_so_far() == f"{specs[0].configuration_name} 92.00 % (2 seeds)"


def test_a_wide_terminal_shows_speed_and_cost() -> None:
    assert all(word in screen(160) for word in ("examples/s", "2,104", "cost", "$0.21"))
