"""`import-tune` on an experiment that an ordinary Ray Tune script wrote, without any of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray.results.commands import main_results
from sst2_ray.results.store.table import ResultsTable

SCRIPT = """
import sys, ray
from ray import tune
def trainable(config):
    for epoch in (1, 2):
        tune.report({"epoch": epoch, "eval_accuracy": 0.8 + config["lr"] * 1000 * epoch, "eval_loss": 0.5 / epoch})
    if config["lr"] > 5e-5 and config["seed"]: raise ValueError("boom")
space = {"lr": tune.grid_search([1e-5, 8e-5]), "batch_size": 32, "seed": tune.grid_search([0, 1])}
ray.init(num_cpus=1, include_dashboard=False)
tune.Tuner(trainable, param_space=space, run_config=tune.RunConfig(name="theirs", storage_path=sys.argv[1])).fit()
"""


def test_an_experiment_of_a_plain_tune_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    runs = str(tmp_path / "runs")
    assert (
        main_results(["import-tune", str(tmp_path / "store" / "theirs"), "--storage-path", runs, "--model", "mine"])
        == 0
    )
    capsys.readouterr()
    assert main_results(["--storage-path", runs, "--json"]) == 0
    board = json.loads(capsys.readouterr().out)
    assert [(row["learning_rate"], row["seeds"], row["failed"]) for row in board] == [(8e-5, 1, 1), (1e-5, 2, 0)]
    assert board[0]["accuracy"] == pytest.approx(0.96)
    table = ResultsTable(runs)
    assert table.read("epochs").num_rows == 8
    failed = next(r for r in table.records("trials") if r.status == "failed")
    assert (failed.failure_message, failed.model, failed.seed) == ("ValueError: boom", "mine", 1)
