"""A grid from the first trial to its verdict, and what becomes of it when the same command comes again."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.sweeps import WORDS, Sweeps


def test_more_than_fit_are_never_at_once_and_all_end(grid: str, sweeps: Sweeps) -> None:
    rows = sweeps.rows("grid")
    assert {row["status"] for row in rows.values()} == {"succeeded"}
    assert sorted(rows) == [f"toy-lr{lr}-bs32-seed{seed}" for lr in ("1e-3", "1e-4") for seed in (0, 1)]
    assert "8 were asked for, no more than" in grid


def test_the_verdict_names_the_best_and_what_to_try_next(grid: str) -> None:
    """Four steps from random weights: whether a model then answers both classes differs from processor to processor."""
    assert "The best of 2 configurations, 4 runs, chosen on " in grid
    assert "(mean ± standard deviation of 2 seeds" in grid
    edge = "toy, 1e-[34], is the (lowest|highest) that was tried, so a better one may lie beyond; next to try: "
    nothing = "toy has learned nothing under any seed: more epochs or smaller batches come before other settings."
    assert re.search(nothing if "2 of 2 seeds collapsed" in grid else edge, grid)


@pytest.mark.usefixtures("grid")
def test_only_the_best_models_stay(sweeps: Sweeps) -> None:
    kept = [trial_id for trial_id, row in sweeps.rows("grid").items() if row["export_path"]]
    result = json.loads((sweeps.storage / "grid" / "result.json").read_text())
    assert kept == [result["best_trial"]]
    assert [path.parent.name for path in (sweeps.storage / "grid").glob("*/model")] == kept
    assert not list((sweeps.storage / "grid").glob("*/checkpoints"))


@pytest.mark.usefixtures("grid")
def test_tensorboard_s_files_hold_the_accuracies(sweeps: Sweeps) -> None:
    from tensorboardX.proto.event_pb2 import Event

    files = list((sweeps.storage / "grid" / "tensorboard").rglob("events.out.tfevents*"))
    assert len(files) == 4
    tags = {value.tag for file in files for event in _events(file, Event) for value in event.summary.value}
    assert any("accuracy" in tag for tag in tags)


def _events(file, event_class):
    """TFRecord: a length of 8 bytes, its checksum of 4, the record, its checksum of 4."""
    data, position = file.read_bytes(), 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        yield event_class.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4


@pytest.mark.usefixtures("grid")
def test_the_same_command_again_runs_nothing(sweeps: Sweeps) -> None:
    before = sweeps.rows("grid")
    done = sweeps.run("grid", *WORDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sweeps.rows("grid") == before
