"""A weight that is no number: the run ends at once, says where, and nothing of it counts."""

from __future__ import annotations

import math

import pytest
from safetensors.torch import load_file

from sst2_ray.data.batching import epoch_permutation
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.context import best_of
from sst2_ray.training.fault_injection import Fault
from tests.support.faults import TinyRun

EVALUATIONS = (15, 30)


def test_a_nan_ends_the_run_with_step_rate_and_rows_and_is_never_the_best(tmp_path):
    run = TinyRun(tmp_path, "nan", evaluations_per_epoch=4)
    ended = run.run([Fault(kind="nan", attempt=0, rank=0, step=EVALUATIONS[1])])
    assert ended.code == 4, ended.output
    (row,) = run.attempts()  # nothing that trying again would bring back
    assert (row["status"], row["failure_class"]) == ("failed", "non_finite")
    rows = epoch_permutation(960, seed=0, epoch=0)[30 * 16 : 31 * 16].tolist()
    assert "at step 31 of 120, learning rate 0.000" in row["failure_message"]
    few = f"training rows {', '.join(map(str, rows[:5]))}, ... (16 rows; all in the log); try a lower --learning-rate"
    assert few in row["failure_message"]
    assert str(rows) in run.log(0, 0)
    losses = {step: dev_loss for step, _, dev_loss in run.curve()}
    assert math.isfinite(losses[EVALUATIONS[0]]) and not math.isfinite(losses[EVALUATIONS[1]])

    storage = Storage.open(str(run.run_folder))
    newest = ckpt.newest_valid(storage, tmp_path, pytest.fail)
    best = best_of([ckpt.record_from_json(record) for record in newest.state["records"]])
    assert best.global_step == EVALUATIONS[0]
    weights = load_file(storage.path(f"{ckpt.step_folder(best.global_step)}/model.safetensors"))
    assert all(tensor.isfinite().all() for tensor in weights.values())
