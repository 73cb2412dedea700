"""A rank's whole attempt: what it goes on from, and what it tells from its last step to its end."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.batching import epoch_permutation
from sst2_ray.data.load import load_splits
from sst2_ray.errors import InputError, RunFailedError
from sst2_ray.modeling.export.folder import load_export
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.sources.folders import read_json
from sst2_ray.modeling.tokenizers import load_tokenizer, tokenizer_to_json
from sst2_ray.statistics.temperature import uncalibrated
from sst2_ray.storage import Storage
from sst2_ray.training.attempt import Attempt
from sst2_ray.training.calibrate import NullReporter, loop_of, measure_steps
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.evaluate import compute_logits
from sst2_ray.training.metrics import metrics_from_logits, positive_probability
from sst2_ray.training.outcome import Finished
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS, Task
from tests.support.families import family_folder
from tests.support.reviews import reviews, write_glue_folder
from tests.support.training import training_rows

DEV_ROWS = 12


class Told(NullReporter):
    """Record of what an attempt tells, in order; of steps and of batches of evaluations, one after the other is one entry."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.most_tokens = 0

    def micro_batches(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens

    def phase(self, name: str) -> None:
        self.said.append(name)

    def _once(self, what: str) -> None:
        if self.said[-1] != what:
            self.said.append(what)

    def progress(self, **_) -> None:
        self._once("steps")

    def alive(self) -> None:
        self._once("batches")


@pytest.fixture
def attempt_of(sbert_folder, tmp_path):
    """Return a maker of attempts: two epochs of 4 steps of the toy SBERT, on data of a fingerprint that the driver has noted."""

    def make(fingerprint: str | None = "aaaa", run: str = "", **values) -> Attempt:
        defaults = {
            "model": str(sbert_folder),
            "engine": "torch",
            "batch_size": 8,
            "epochs": 2,
            "precision": "fp32",
            "keep_checkpoints": 9,
        }
        config = TrainConfig(**{**defaults, **values})
        resolved = resolve_model(config)
        task = Task(
            config=config,
            experiment="experiment",
            trial_id="trial",
            attempt=0,
            resolved=resolved,
            tokenizer_json=tokenizer_to_json(load_tokenizer(resolved)),
            micro_batch_tokens=None,
            source="",
            eval_split="dev",
            corpora=(),
            started_at=time.time(),
        )
        storage = Storage.open(run or str(tmp_path / "run"))
        noted = {"data_fingerprint": fingerprint} if fingerprint else {}
        storage.write_json("config.json", {"config": config.to_dict(), "config_hash": config.config_hash, **noted})
        tokens = {"train": training_rows(32), "dev": training_rows(DEV_ROWS)}
        return Attempt(
            task,
            tokens,
            storage,
            Told(),
            texts=lambda: [str(row) for row in range(DEV_ROWS)],
            device=torch.device("cpu"),
            rank=0,
            world_size=1,
        )

    return make


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["deberta-v2", "distilbert", "roberta", "squeezebert"])
def test_a_family_trains_checkpoints_and_exports_the_weights_that_it_scored(attempt_of, tmp_path, family, precision):
    attempt = attempt_of(
        model=str(family_folder(family, tmp_path / "model")), max_length=64, precision=precision, encoder_dropout=0.1
    )
    end = attempt.run()
    assert isinstance(end, Finished)
    assert end.model.kind == "encoder"
    model, tokenizer, _ = load_export(tmp_path / "run" / "model")
    found = compute_logits(
        model, attempt.tokens["dev"], bf16=False, pad_id=tokenizer.pad_token_id, max_tokens=256,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert metrics_from_logits(found, attempt.tokens["dev"].labels).accuracy == end.best.dev_accuracy


# ---- what it goes on from


def test_a_checkpoint_of_the_same_data_is_gone_on_from(attempt_of):
    attempt_of().run()
    again = attempt_of()
    again.run()
    assert "steps" not in again.reporter.said


def test_the_checkpoint_that_is_gone_on_from_is_read_once(attempt_of, monkeypatch):
    attempt_of().run()
    read, fetch = [], ckpt.fetch
    monkeypatch.setattr(ckpt, "fetch", lambda run, step, scratch: read.append(step) or fetch(run, step, scratch))
    attempt_of().run()
    assert read == [8]


def test_a_checkpoint_of_other_data_is_refused(attempt_of):
    attempt_of().run()
    changed = attempt_of("bbbb")
    with pytest.raises(RunFailedError, match=r"the data changed since the checkpoint at step 8 .*--name$") as e:
        changed.run()
    assert e.value.failure_class == "data_error"
    assert str(changed.storage.root) in str(e.value)


@pytest.mark.parametrize(("before", "now"), [(None, "bbbb"), ("aaaa", None)])
def test_where_one_of_the_fingerprints_is_not_known_it_goes_on(attempt_of, before, now):
    attempt_of(before).run()
    assert isinstance(attempt_of(now).run(), Finished)


def test_a_newer_checkpoint_that_is_damaged_goes(attempt_of):
    first = attempt_of()
    first.run()
    Path(first.storage.path(f"{ckpt.step_folder(8)}/model.safetensors")).write_bytes(b"")
    again = attempt_of()
    saved = again._resume_point(Path())
    assert (saved.global_step, ckpt.committed_steps(again.storage)) == (4, [4])


@pytest.mark.parametrize("chosen", [8, 4])
def test_every_rank_reads_the_checkpoint_at_the_same_time_and_rank_0_chooses(attempt_of, monkeypatch, chosen):
    attempt_of().run()
    events, fetch = [], ckpt.fetch

    def broadcast(step: list[int], src: int) -> None:
        events.append(("told", src))
        step[0] = chosen  # rank 0 may have found the newest damaged, or seen one that this rank's storage has not yet

    monkeypatch.setattr(ckpt, "fetch", lambda run, step, to: events.append(("read", step)) or fetch(run, step, to))
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    other = attempt_of()
    other.rank, other.world_size = 1, 2
    assert other._resume_point(Path()).global_step == chosen
    assert events == [("read", 8), ("told", 0)] + [("read", 4)] * (chosen == 4)


def test_a_best_checkpoint_that_is_gone_does_not_end_the_run(attempt_of):
    """A newer one that was better, so that it went, is damaged."""
    options = {"learning_rate": 1e-12, "epochs": 4}  # all evaluations are equal: the first is the best
    first = attempt_of(**options)
    first.run()
    first.storage.delete(ckpt.step_folder(4))
    for step in (12, 16):
        Path(first.storage.path(f"{ckpt.step_folder(step)}/model.safetensors")).write_bytes(b"")
    end = attempt_of(**options).run()
    assert isinstance(end, Finished)
    assert (end.best.global_step, end.last.global_step) == (8, 16)


def test_no_copy_of_a_checkpoint_lies_on_this_machine_while_it_trains(attempt_of, monkeypatch, tmp_path):
    from tests.support.object_store import BUCKET, object_store_here

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with object_store_here():
        first = attempt_of(run=f"s3://{BUCKET}/attempt")
        first.run()
        first.storage.delete(ckpt.step_folder(8))
        again, there = attempt_of(run=f"s3://{BUCKET}/attempt"), []
        again.reporter.progress = lambda **_: there.append(list(scratch.glob("*/step-*")))
        again.run()
    assert there == [[]] * 4


def test_a_loop_that_is_only_measured_leaves_no_folder_behind(attempt_of, monkeypatch, tmp_path):
    attempt, scratch = attempt_of(), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    measure_steps(loop_of(attempt.task, attempt.tokens), 1)
    assert list(scratch.iterdir()) == []


def test_it_tells_what_is_computed_at_once_not_the_limit_above_it(attempt_of):
    """Out of memory halves what is told: half of the limit would be the same micro-batch."""
    attempt = attempt_of(epochs=1)
    attempt.run()
    told, lengths = attempt.reporter.most_tokens, attempt.tokens["train"].lengths
    order = epoch_permutation(32, seed=0, epoch=0).reshape(4, 8)
    assert told == max(lengths[rows].sum() for rows in order) < DEFAULT_MICRO_BATCH_TOKENS["packed"]


# ---- its end


def test_from_the_last_step_on_it_tells_what_it_does(attempt_of):
    attempt = attempt_of()
    attempt.run()
    assert attempt.reporter.said == ["model", "steps", "batches", "steps", "batches", "export", "export", "export"]


def test_weights_that_are_loaded_and_scored_once_more_are_told(attempt_of):
    """The best epoch is an earlier one: its weights are loaded, and scored where that was before a restart."""
    attempt_of(learning_rate=1e-12).run()
    again = attempt_of(learning_rate=1e-12)
    again.run()
    assert again.reporter.said == ["model", "export", "best weights", "evaluation", "batches", "export", "export"]


def test_an_upload_is_told(attempt_of):
    from tests.support.object_store import BUCKET, object_store_here

    with object_store_here():
        attempt = attempt_of(run=f"s3://{BUCKET}/attempt")
        attempt.run()
    assert attempt.reporter.said[-2:] == ["export", "upload"]


RANK = """
import datetime, sys, time
from types import SimpleNamespace
import torch
from sst2_ray.training.calibrate import NullReporter
from sst2_ray.training.finish import Finish

rank, store, collective_s, export_s = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=collective_s)
)
calls = []


class Reporter(NullReporter):
    def alive(self):
        calls.append(1)


class SlowExport(Finish):
    def _score_and_keep(self):
        time.sleep(export_s if rank == 0 else 0.0)

    def _facts(self, *_):
        return None


trained = SimpleNamespace(
    task=SimpleNamespace(trial_id="trial", attempt=0),
    context=SimpleNamespace(rank=rank, world_size=2, device=torch.device("cpu")),
    result=SimpleNamespace(stop=None, best=SimpleNamespace(split="dev")),
    reporter=Reporter(),
    dev=None,
)
SlowExport(trained, lambda: None).run()
print(len(calls))
"""


def test_ranks_wait_for_an_export_that_lasts_longer_than_a_collective_may(tmp_path):
    """Ranks tell meanwhile that they are alive."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store"), "6", "9"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outcomes = [process.communicate(timeout=300) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outcomes
    assert int(outcomes[0][0]) == 0
    assert int(outcomes[1][0]) > 10


@pytest.mark.parametrize("restarted", [False, True])
def test_the_answers_to_the_held_out_part_of_train_are_kept(attempt_of, restarted):
    """Configurations are chosen by them; dev is scored for the chosen alone."""
    if restarted:
        earlier = attempt_of()
        earlier.tokens["selection"] = training_rows(10)
        earlier.run()
    attempt = attempt_of()
    attempt.tokens["selection"] = training_rows(10)
    attempt.task = dataclasses.replace(attempt.task, score_dev=False)
    kept: list = []
    attempt.reporter.write_predictions = kept.extend
    finished = attempt.run()
    assert {(r.split, r.text) for r in kept} == {("selection", None)}
    assert len(kept) == 10
    assert sum(r.label == r.predicted for r in kept) / 10 == pytest.approx(finished.selection_accuracy)


def test_a_calibrated_head_is_exported_scored_and_stated_so_that_it_can_be_undone(attempt_of, tmp_path):
    ends, probability = {}, {}
    for name, calibrate in (("plain", False), ("calibrated", True)):
        attempt = attempt_of(run=str(tmp_path / name), selection_fraction=0.25, calibrate_head=calibrate)
        attempt.tokens["selection"] = training_rows(16)
        ends[name] = attempt.run()
        model, tokenizer, _ = load_export(tmp_path / name / "model")
        logits = compute_logits(
            model, attempt.tokens["dev"], bf16=False, pad_id=tokenizer.pad_token_id, max_tokens=256,
            device=torch.device("cpu"),
        )  # fmt: skip
        probability[name] = positive_probability(logits)
        assert ends[name].best.dev_loss == pytest.approx(metrics_from_logits(logits, attempt.tokens["dev"].labels).loss)
    facts = read_json(tmp_path / "calibrated" / "model" / "sst2_ray.json", source="")["calibration"]
    end = ends["calibrated"]
    assert (facts["temperature"], facts["threshold"]) == (end.temperature, end.decision_threshold)
    assert facts["num_rows"] == 16
    assert facts["before"]["value"] != facts["after"]["value"]
    assert "## Calibration" in (tmp_path / "calibrated" / "model" / "README.md").read_text()
    undone = uncalibrated(probability["calibrated"], temperature=end.temperature, threshold=end.decision_threshold)
    assert undone == pytest.approx(probability["plain"], abs=1e-5)
    assert ends["plain"].temperature is None


def test_a_head_cannot_be_calibrated_without_held_out_sentences(tmp_path):
    write_glue_folder(tmp_path, reviews(64), reviews(16, topic="play"))
    with pytest.raises(InputError, match="--selection-fraction"):
        load_splits(TrainConfig(data=str(tmp_path), batch_size=16, calibrate_head=True))
