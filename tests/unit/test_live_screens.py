"""The screens of a run and a sweep at work, from the plan to the closing table, at 80 and 120 columns, kept as text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import sst2_ray
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.display import RunDisplay
from sst2_ray.run.messages import Progress, TrialOverview
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.planning.summary import describe
from sst2_ray.run.prepare import check
from sst2_ray.run.result import result_rows
from sst2_ray.run.tokenizing import prepare
from sst2_ray.sweep import closing
from sst2_ray.sweep.display import SweepDisplay, SweepProgress
from sst2_ray.sweep.plan import trials_table
from sst2_ray.sweep.queue import Outcome, TrialQueue
from sst2_ray.terminal import show_plan
from sst2_ray.training.names import Phase
from tests.support.records import epoch
from tests.support.reviews import reviews, write_glue_folder
from tests.support.screens import ESCAPE, check_screen, screen
from tests.support.synthetic_results import MINI, MODERNBERT, write_study

SCREENS = Path(__file__).parent / "screens"
WIDTHS = (80, 120)
MODELS = ("sbert-minilm", "modernbert-mini", "sentence-transformers/all-mpnet-base-v2")
TRAINING = Progress(
    phase=Phase.TRAINING, global_step=12_000, total_steps=168_380, epoch=1.25, train_loss=0.3531, examples_per_sec=2104.0,
    seconds_left=8130.0,
)  # fmt: skip

pytestmark = pytest.mark.parametrize("columns", WIDTHS)


def terminal(columns: int) -> Console:
    return Console(file=io.StringIO(), width=columns, height=50, force_terminal=True, color_system=None)


def check_text(out: Console, name: str, *, until: str | None = None) -> str:
    """Compare what stands on a terminal, up to the line that begins with `until`, with the screen that was looked at.

    Returns all of it.
    """
    assert isinstance(out.file, io.StringIO)
    shown = ESCAPE.sub("", out.file.getvalue())
    text = "\n".join(line.rstrip() for line in shown.split("\n")).strip() + "\n"
    assert max(map(len, text.splitlines())) <= out.width
    assert "…" not in text
    kept = text if until is None else text.partition(f"\n{until}")[0] + "\n"
    check_screen(kept, SCREENS / f"{name}-{out.width}.txt")
    return text


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("plan")
    write_glue_folder(folder / "reviews", reviews(480), reviews(64, topic="play"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = TrainConfig(model="modernbert-mini", data="reviews", name="first", storage_path="s3://bucket/runs")
        inputs = prepare(check(config))
    return describe(inputs, Placement(num_workers=2, cpus_per_worker=4, use_gpu=False))


def test_plan_of_a_run(columns: int, plan: list[tuple[str, str]]) -> None:
    out = terminal(columns)
    show_plan(out, plan)
    check_text(out, "plan")


def test_configurations_of_a_sweep(columns: int) -> None:
    out = terminal(columns)
    out.print(trials_table(SweepConfig(models=MODELS, learning_rates=(8e-5, 1.25e-4), weight_decays=(1e-6, 0.01))))
    check_text(out, "configurations")


def test_run_at_work(columns: int) -> None:
    out = terminal(columns)
    display = RunDisplay(out)
    display.progress(TRAINING)
    out.print(display._bar.get_renderable())
    text = check_text(out, "live-run")
    assert all(
        word in text for word in ("epoch 1.25", "12,000/168,380", "loss 0.353", "2,104 examples/s", "2 h 16 min left")
    )


def test_closing_table_of_a_run(columns: int) -> None:
    out = terminal(columns)
    values = {
        "name": "sbert-minilm-rotten-tomatoes-3f9a1c2b4d5e", "status": "succeeded", "eval_split": "hold-out of rotten-tomatoes",
        "best_dev_accuracy": 0.8986, "best_dev_f1": 0.9012, "best_dev_loss": 0.2831, "best_dev_macro_f1": 0.8981,
        "best_dev_mcc": 0.7962, "majority_share": 0.5, "best_num_answered": 2, "best_epoch": 2.0, "last_dev_accuracy": 0.8914,
        "examples_per_sec": 212.0, "seconds": 5031.0, "startup_seconds": 3.3, "peak_memory_gib": 1.43, "world_size": 2,
        "model_label": "sbert-minilm", "model_dir": "runs/sbert-minilm-rotten-tomatoes-3f9a1c2b4d5e/model",
        "run_dir": "runs/sbert-minilm-rotten-tomatoes-3f9a1c2b4d5e", "results_dir": "runs/results",
    }  # fmt: skip
    show_plan(out, result_rows(sst2_ray.TrainResult(**values)))
    check_text(out, "closing-run")


def test_sweep_at_work(columns: int) -> None:
    out = terminal(columns)
    queue = TrialQueue(SweepConfig(models=MODELS, learning_rates=(1.25e-4, 8e-5), num_seeds=3))
    display = SweepDisplay(out, "around-the-paper", queue)
    begun = [queue.take() for _ in range(6)]
    status = SweepProgress(
        overview={
            begun[-1].trial_id: TrialOverview(progress=TRAINING, evaluation=epoch(1200, dev_accuracy=0.9472)),
        },
        elapsed={spec.trial_id: 754.0 for spec in begun},
        used_s=4524.0,
        left_s=9000.0,
        cost_usd=1.25,
        predicted_usd=3.75,
        budget_usd=5.0,
    )
    display.update(status, lambda seconds: seconds / 3600)
    for spec, score in zip(begun[:3], (0.9453, 0.9011, 0.8986), strict=True):
        queue.close(spec.trial_id, Outcome(status="succeeded", score=score))
    queue.close(begun[3].trial_id, Outcome(status="failed", score=None, failure_class="out_of_memory"))
    out.print(display._table(status))
    out.print(display.summary(status))
    text = check_text(out, "live-sweep")
    assert all(
        word in text for word in (*MODELS[:2], "1.25e-4", "8e-5", "94.53", "out_of_memory", "step 12,000/168,380")
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ResultsTable:
    options = {"learning_rates": (8e-5, 1.2e-4), "batch_sizes": (16, 32), "num_seeds": 2, "price_per_hour": 3.06}
    return write_study(str(tmp_path_factory.mktemp("closing") / "runs"), models=(MODERNBERT, MINI), **options)


def test_results_of_a_sweep(columns: int, study: ResultsTable) -> None:
    text = screen(["results"], columns=columns, folder=Path(study.location).parents[1])
    check_screen(text, SCREENS / f"results-{columns}.txt")
    assert max(map(len, text.splitlines())) <= columns
    assert all(word in text for word in (MODERNBERT.name, MINI.name, "8e-5", "1.2e-4", "dev acc.", "95 % interval"))
    assert "…" not in text


def test_closing_table_of_a_sweep(columns: int, study: ResultsTable) -> None:
    out = terminal(columns)
    config = SweepConfig(models=(MODERNBERT.name, MINI.name), base=TrainConfig(name="synthetic-sweep"))
    closing.show(out, closing.standing(study, config))
    text = check_text(out, "closing-sweep", until="The best of")  # the verdict's words have tests of their own
    assert all(word in text for word in (MODERNBERT.name, MINI.name, "8e-5", "1.2e-4", "dev acc.", "95 % interval"))
