"""Searches that draw, schedulers that stop, budgets that end: each in one small sweep."""

from __future__ import annotations

import json
import sys

import pytest

from sst2_ray.results.store.table import ResultsTable
from tests.support.sweeps import Sweeps, call

pytestmark = pytest.mark.slow


def test_asha_decides_on_the_first_seed_and_survivors_run_all(sweeps: Sweeps) -> None:
    rates = ("1e-6", "1e-5", "1e-4", "1e-3")
    words = ("--learning-rates", *rates, "--num-seeds", "2", "--scheduler", "asha", "--evaluations-per-epoch", "2")
    done = sweeps.run("asha", *words, "--max-concurrent", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = sweeps.rows("asha")
    first = {trial_id: row for trial_id, row in rows.items() if row["seed"] == 0}
    second = {trial_id.replace("seed1", "seed0") for trial_id, row in rows.items() if row["seed"] == 1}
    assert len(first) == 4
    assert len(second) == 2
    assert second <= {trial_id for trial_id, row in first.items() if row["status"] == "succeeded"}
    for trial_id, row in first.items():
        evaluations = sweeps.curves("asha")[trial_id]
        assert len(evaluations) == (2 if row["status"] == "succeeded" else 1)
        assert row["status"] in ("succeeded", "early_stopped")


def test_optuna_searches_and_is_held_to_its_budget(sweeps: Sweeps) -> None:
    words = ("--search", "optuna", "--num-samples", "30", "--learning-rates", "1e-5", "1e-3", "--num-seeds", "1")
    done = sweeps.run("optuna", *words, "--price-per-hour", "3.6", "--budget-usd", "0.04")
    assert done.returncode == 5, done.stdout + done.stderr
    result = json.loads((sweeps.storage / "optuna" / "result.json").read_text())
    assert result["ended_by"] == "budget"
    assert 1 <= result["counts"]["succeeded"] < 30
    assert "its budget: the next trial would go over (--budget-usd 0.04)" in done.stdout
    points = json.loads((sweeps.storage / "optuna" / "points.json").read_text())
    assert len(points) >= result["counts"]["succeeded"]
    # What ran is ranked, and its model can be had.
    best = ("best", str(sweeps.storage), "--experiment", "optuna", "--export", str(sweeps.storage / "winner"))
    exported = call([sys.executable, "-c", "from sst2_ray.cli import main; main()", *best])
    assert exported.returncode == 0, exported.stderr
    assert list((sweeps.storage / "winner").rglob("model.safetensors"))


def test_a_random_search_chooses_on_a_held_out_part_and_scores_dev_once(sweeps: Sweeps) -> None:
    words = ("--search", "random", "--num-samples", "2", "--learning-rates", "1e-5", "1e-3", "--num-seeds", "1")
    done = sweeps.run("random", *words, "--selection-fraction", "0.25")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = sweeps.rows("random").values()
    assert all(row["selection_accuracy"] is not None for row in rows)
    [scored] = [row for row in rows if row["best_dev_accuracy"] is not None]
    assert scored["selection_accuracy"] == max(row["selection_accuracy"] for row in rows)
    assert "which had no part in the choice" in done.stdout
    stored = ResultsTable(str(sweeps.storage)).read("predictions", columns=["trial_id", "split"], experiment="random")
    kept = {(row["trial_id"], row["split"]) for row in stored.to_pylist()}
    assert kept == {*((row["trial_id"], "selection") for row in rows), (scored["trial_id"], "dev")}


def test_a_dry_run_starts_and_writes_nothing(sweeps: Sweeps) -> None:
    words = ("--scheduler", "asha", "--epochs", "2", "--budget-usd", "1", "--price-per-hour", "2", "--dry-run")
    done = sweeps.run("dry", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 configurations, every combination; ASHA (1 in 3 goes on)" in done.stdout
    assert "no trial starts that would end after 30 min" in done.stdout
    assert "differences between configurations of a model from" in done.stdout
    assert "the best of 5 may look" in done.stdout  # chosen on dev: the tests' flags say so
    assert not (sweeps.storage / "dry").exists()


def test_mlflow_s_store_opens(sweeps: Sweeps) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow")
    done = sweeps.run("tracked", "--learning-rates", "1e-4", "--num-seeds", "1", "--trackers", "mlflow")
    assert done.returncode == 0, done.stdout + done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{sweeps.storage}/tracked/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "tracked"]
    [run] = client.search_runs([experiment.experiment_id])
    assert 0 <= run.data.metrics["accuracy"] <= 1
