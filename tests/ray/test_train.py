"""The main job on a real Ray with two workers: what it counts, keeps and writes, and what it does when memory runs out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sst2_ray.data.batching import steps_per_epoch
from sst2_ray.training.fault_injection import VARIABLE
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS
from tests.support.runs import NUM_DEV_ROWS, NUM_TRAIN_ROWS, Runs, started_ray

pytestmark = pytest.mark.usefixtures("two_cpus_that_run_out_of_memory_once")

BATCH_SIZE = 15
"""Two workers cannot share it evenly, and it does not divide the rows: the last batch of an epoch holds 10."""

STEPS = steps_per_epoch(NUM_TRAIN_ROWS, BATCH_SIZE)


@pytest.fixture(scope="module")
def two_cpus_that_run_out_of_memory_once() -> Iterator[None]:
    """Run out of memory in the first attempt of a run, on rank 1, at a step that only runs of more than three epochs reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, json.dumps([{"kind": "oom", "attempt": 0, "rank": 1, "step": 3 * STEPS + 1}]))
        yield from started_ray(num_cpus=2)


@pytest.fixture(scope="module")
def result(runs: Runs):
    """Train three epochs, so that checkpoints come and go."""
    return runs.train("whole", batch_size=BATCH_SIZE, epochs=3)


def test_the_global_batch_is_what_was_asked_for_where_it_does_not_divide(runs: Runs, result) -> None:
    epochs = runs.rows("epochs", "whole")
    assert NUM_TRAIN_ROWS % BATCH_SIZE != 0
    assert [row["global_step"] for row in epochs] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert [row["epoch"] for row in epochs] == [1.0, 2.0, 3.0]
    # A count over all examples of the epoch: it would be no multiple of 1 / 310 had one been left out or taken twice.
    for row in epochs:
        right = row["train_accuracy"] * NUM_TRAIN_ROWS
        assert right == pytest.approx(round(right), abs=1e-6)
    assert result.world_size == 2


def test_every_evaluation_sentence_counts_once(runs: Runs, result) -> None:
    lines = (runs.folder / "data" / "dev.tsv").read_text().splitlines()[1:]
    rows = runs.rows("predictions", "whole")
    assert [f"{row['text']}\t{row['label']}" for row in rows] == lines
    assert {row["num_dev_rows"] for row in runs.rows("epochs", "whole")} == {NUM_DEV_ROWS}
    right = sum(row["predicted"] == row["label"] for row in rows)
    assert result.best_dev_accuracy == pytest.approx(right / NUM_DEV_ROWS)
    assert all((row["probability"] > 0.5) == (row["predicted"] == 1) for row in rows)


def test_the_trial_s_rows_say_what_was_run(runs: Runs, result) -> None:
    [row] = [row for row in runs.rows("trials", "whole") if row["status"] != "running"]
    assert (row["status"], row["failure_class"], row["attempt"]) == ("succeeded", None, 0)
    assert (row["world_size"], row["engine"], row["precision"]) == (2, "zero2", "fp32")
    assert (row["batch_size"], row["learning_rate"], row["seed"]) == (BATCH_SIZE, 1e-3, 0)
    assert (row["num_train_rows"], row["num_dev_rows"]) == (NUM_TRAIN_ROWS, NUM_DEV_ROWS)
    assert (row["last_global_step"], row["last_epoch"]) == (3 * STEPS, 3.0)
    best = max(runs.rows("epochs", "whole"), key=lambda epoch: (epoch["dev_accuracy"], -epoch["global_step"]))
    assert (row["best_global_step"], row["best_dev_accuracy"]) == (best["global_step"], best["dev_accuracy"])
    assert {node["rank"] for node in json.loads(row["node_types_json"])} == {0, 1}
    assert row["export_path"] == result.model_dir


def test_a_finished_run_keeps_its_model_and_no_state_of_the_optimizer(result) -> None:
    run = Path(result.run_dir)
    assert not (run / "checkpoints").exists()
    assert not list(run.rglob("*optimizer*"))
    assert (Path(result.model_dir) / "encoder" / "model.safetensors").is_file()
    assert {path.suffix for path in Path(result.model_dir).rglob("*") if path.is_file()} == {
        ".json",
        ".md",
        ".safetensors",
    }


def test_the_same_command_again_does_nothing(runs: Runs, result) -> None:
    before = runs.rows("trials", "whole")
    assert runs.train("whole", batch_size=BATCH_SIZE, epochs=3) == result
    assert runs.rows("trials", "whole") == before


def test_a_driver_that_dies_before_the_result_is_kept_has_only_the_end_to_do_again(runs: Runs, monkeypatch) -> None:
    def die(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sst2_ray.run.train.result_of", die)
        with pytest.raises(KeyboardInterrupt):
            runs.train("cut-off", batch_size=BATCH_SIZE)
    again = runs.train("cut-off", batch_size=BATCH_SIZE)
    first, second = [row for row in runs.rows("trials", "cut-off") if row["status"] != "running"]
    for name in ("status", "last_global_step", "best_dev_accuracy", "best_dev_loss"):
        assert first[name] == second[name]
    assert second["examples_per_sec"] is None  # it took no step
    assert again.status == "succeeded" and not (Path(again.run_dir) / "checkpoints").exists()


def test_where_memory_runs_out_the_micro_batch_is_halved_and_the_global_batch_is_not(runs: Runs) -> None:
    again = runs.train("out-of-memory", batch_size=BATCH_SIZE, epochs=4)
    first, second = [row for row in runs.rows("trials", "out-of-memory") if row["status"] != "running"]
    computed = first["micro_batch_tokens"]
    assert (first["status"], first["failure_class"]) == ("failed", "out_of_memory")
    assert 1 < computed < DEFAULT_MICRO_BATCH_TOKENS["packed"]
    assert second["micro_batch_tokens"] == computed // 2
    assert (second["status"], second["batch_size"], second["last_global_step"]) == ("succeeded", BATCH_SIZE, 4 * STEPS)
    steps = {row["global_step"] for row in runs.rows("epochs", "out-of-memory")}
    assert steps == {epoch * STEPS for epoch in (1, 2, 3, 4)}
    assert again.status == "succeeded"
