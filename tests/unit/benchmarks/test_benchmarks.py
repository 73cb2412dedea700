"""Tests of what benchmarks compute from what they measured, and how they refuse."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import checkpoint_cost, forecast, gpu, length, predict_rows, scaling, shared, speed_page, weak_scaling

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_there_is_one_line_and_exit_code_2():
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("no GPU: ")


def test_rates_count_after_warm_up():
    epochs = [
        {"global_step": 64, "examples_per_sec": 1.0},  # compiles
        {"global_step": 128, "examples_per_sec": 100.0},
        {"global_step": 160, "examples_per_sec": 50.0},
    ]
    assert shared.after_warm_up(epochs) == pytest.approx(96 / (64 / 100 + 32 / 50))


def test_a_gpu_s_batches_are_filled_with_the_sentences_over_and_over(tmp_path, monkeypatch):
    monkeypatch.delenv("SST2_RAY_DATA", raising=False)
    flags = gpu.write_rows(tmp_path, 20_000)
    rows = pq.read_table(tmp_path / "train.parquet")
    assert rows.num_rows == 20_000
    assert len(set(rows["text"].to_pylist())) < 10_662  # the corpus
    assert set(rows["label"].slice(0, 64).to_pylist()) == {0, 1}
    assert flags[0] == f"--data={tmp_path}/train.parquet"


def test_the_mixed_set_holds_the_tokens_of_the_longest():
    lengths = length.drawn(64, 8192)
    assert sum(lengths) == 8192
    assert min(lengths) >= 1 and len(set(lengths)) > 2


@pytest.mark.parametrize(("model", "seconds"), [("modernbert", 1.0 + 7 * 0.5), ("bert", 1.0 + 11 / 3 * 0.5)])
def test_layers_are_extrapolated_by_what_three_more_cost(monkeypatch, model, seconds):
    said = '{"seconds": [[1.0, 1.2], [1.5, 1.7]], "peak_memory_gib": [1.0, 2.0]}\n'
    monkeypatch.setattr(length.subprocess, "run", lambda *_, **__: Namespace(stdout=said, returncode=0))
    arguments = Namespace(lengths=[64, 128], tokens=256, steps=2, whole=False)
    run = length.one(arguments, model, 64)
    assert run["seconds_per_step"] == pytest.approx(seconds)
    assert run["tokens_per_sec"] == pytest.approx(256 / seconds)


def test_a_forecast_is_off_by_its_share_of_what_was_measured():
    run = {"predicted": {"wall_s": 11.0}, "measured": {"wall_s": 10.0}}
    assert forecast.error(run, "wall_s") == pytest.approx(0.1)


def test_rounds_of_a_configuration_are_averaged_and_kept():
    rounds = [{"case": case, "predicted": {"wall_s": p}, "measured": {"wall_s": m}} for case, p, m in [
        ("a", 1.0, 2.0), ("b", 7.0, 8.0), ("a", 3.0, 6.0),
    ]]  # fmt: skip
    first, second = forecast.means(rounds)
    assert (first["case"], first["predicted"], first["measured"]) == ("a", {"wall_s": 2.0}, {"wall_s": 4.0})
    assert [one["measured"]["wall_s"] for one in first["rounds"]] == [2.0, 6.0]
    assert (second["case"], len(second["rounds"])) == ("b", 1)


def test_every_process_holds_memory_and_none_of_it_is_an_object_store():
    total, store = predict_rows.resident(os.getpid())
    assert total > 2**20 and store == 0


def test_standing_still_is_what_runs_with_checkpoints_do_longer_than_those_without():
    def run(training, checkpoint, gib):
        return {"training_s": training, "checkpoint_s": checkpoint, "peak_memory_gib": gib}

    runs = {
        "without": [run(240.0, 2.0, 5.0), run(230.0, 3.0, 5.0), run(250.0, 2.5, 5.0)],
        "with": [run(252.0, 6.5, 7.0), run(250.0, 6.5, 7.0), run(400.0, 9.0, 7.5)],
    }
    found = checkpoint_cost.summary(runs, every_s=60.0)
    assert found["checkpoints_a_run"] == 4
    assert found["stands_still_s_a_checkpoint"] == 1.0
    assert found["stands_still_share"] == pytest.approx(4 / 256, abs=1e-5)
    assert found["slow_down"] == pytest.approx(1 - 240 / 256, abs=1e-5)
    assert (found["peak_memory_gib_with"], found["peak_memory_gib_without"]) == (7.0, 5.0)


def test_weak_scaling_says_where_workers_share_cores():
    row = {"examples_per_sec": 100.0, "communication_seconds": 1.0}
    figures = {
        "model": "m", "batch_per_worker": 8, "num_cores": 2, "steps": 10,
        "runs": {1: [row], 4: [{**row, "examples_per_sec": 200.0}]},
    }  # fmt: skip
    lines = weak_scaling.table(figures).splitlines()
    assert "| 100% |" in lines[-2] and "share" not in lines[-2]
    assert "| 50% | 100 | workers share cores |" in lines[-1]


def test_the_page_on_more_gpus_is_what_its_command_writes():
    size = scaling.shape_of("modernbert-base")
    counts = [1, 8, 64, 512]
    tables = {name: scaling.rows(size, name, counts) for name in scaling.NODES}
    assert (ROOT / "docs/scaling.md").read_text() == scaling.text("modernbert-base", size, tables, counts)


def test_the_page_on_speed_and_the_readme_are_what_the_figures_say():
    found = speed_page.read(speed_page.RESULTS)
    assert speed_page.PAGE.read_text() == speed_page.page(found)
    readme = speed_page.README.read_text()
    assert speed_page.with_rows(readme, found) == readme


def test_results_name_no_folder_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("SST2_RAY_DATA", "/somebody/sst2")
    file = tmp_path / "new" / "x.json"
    shared.finish({"flags": ["--data=/somebody/sst2"], "json": str(file)}, "a table", str(file))
    assert file.read_text() == '{\n "flags": [\n  "--data=$SST2_RAY_DATA"\n ],\n "table": "a table"\n}\n'


def test_a_process_starts_again_once_for_the_workers_allocator():
    code = "from benchmarks.shared import *; with_the_workers_allocator('platform'); print(os.environ['LD_PRELOAD'])"
    here = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    preloaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**here, "LD_PRELOAD": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (preloaded.returncode, preloaded.stdout) == (0, "\n"), preloaded.stderr
    again = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=here, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and platform.machine() in again.stdout  # what `python -m platform` prints
