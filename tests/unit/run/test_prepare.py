"""Tests of what a run's folder says before anything is started: finished, to be gone on with, or refused in one line."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.errors import InputError, RunFailedError
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.model_size import ModelSize
from sst2_ray.run.prepare import RunInputs, Tokenized, check_batch, check_run, run_description
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from tests.support.checkpoints import write_checkpoint
from tests.support.records import trial
from tests.support.tokens import token_arrays


def write_data(folder: Path, *, flipped: int = 0) -> str:
    """Write a folder in GLUE's layout; the first `flipped` training labels are turned over."""
    folder.mkdir(exist_ok=True)
    labels = [row % 2 for row in range(20)]
    labels[:flipped] = [1 - label for label in labels[:flipped]]
    train = [f"training sentence number {row}\t{label}" for row, label in enumerate(labels)]
    dev = [f"another sentence, number {row}\t{row % 2}" for row in range(8)]
    for name, lines in (("train", train), ("dev", dev)):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return str(folder)


@pytest.fixture
def checked_of(tmp_path):
    """Return a function that checks the config of a run `one` and its data, as they are on disk now."""

    def make(**options) -> RunInputs:
        config = TrainConfig(
            model="modernbert-mini",
            data=write_data(tmp_path / "data", **options),
            name="one",
            batch_size=4,
            storage_path=str(tmp_path / "runs"),
        )
        return RunInputs(config=config, splits=load_splits(config), resolved=SimpleNamespace(), allowed_leak=None)

    return make


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage.open(str(tmp_path / "runs"))


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_whose_data_changed_is_refused(storage, checked_of, finished):
    before = checked_of()
    run = storage.child("one")
    run.write_json("config.json", run_description(before))
    if finished:
        run.write_json("result.json", {"name": "one", "status": "succeeded"})
    assert (check_run(storage, before) is not None) is finished
    now = checked_of(flipped=2)
    assert now.config.config_hash == before.config.config_hash
    with pytest.raises(InputError, match=r"^--name one: the data changed since .*; choose another name$"):
        check_run(storage, now)


def test_a_run_of_a_version_that_did_not_note_its_data_goes_on(storage, checked_of):
    description = run_description(checked_of())
    del description["data_fingerprint"]
    storage.child("one").write_json("config.json", description)
    assert check_run(storage, checked_of(flipped=2)) is None


def test_the_name_of_results_whose_folder_is_gone_is_refused(storage, checked_of):
    """Their rows would stand for those of the new run, whose first attempts have lower numbers."""
    inputs = checked_of()
    assert check_run(storage, inputs) is None
    ResultsTable(inputs.config.storage_path).write("trials", [trial("one", experiment="one", attempt=1)])
    with pytest.raises(InputError, match=r"^--name one: .*results still holds .* whose folder is gone; choose another"):
        check_run(storage, inputs)
    storage.child("one").write_json("config.json", run_description(inputs))
    assert check_run(storage, inputs) is None


def test_a_batch_holds_a_row_for_every_worker():
    check_batch(TrainConfig(batch_size=8, num_workers=8), 8)
    with pytest.raises(InputError, match="--batch-size 9: larger than the 8 training rows"):
        check_batch(TrainConfig(batch_size=9), 8)
    with pytest.raises(InputError, match="use at most 4 workers"):
        check_batch(TrainConfig(batch_size=4, num_workers=5), 8)


# ---- its checkpoints


@pytest.fixture
def interrupted(storage, checked_of) -> Storage:
    run = storage.child("one")
    run.write_json("config.json", run_description(checked_of()))
    write_checkpoint(run, 3)
    return run


def failing(monkeypatch, times: int) -> None:
    """Make reading a checkpoint's files fail as S3 does when it is asked too often."""
    digest_of, left = ckpt.digest_of, [OSError(errno.EIO, "AWS Error SLOW_DOWN")] * times

    def flaky(path):
        if left:
            raise left.pop()
        return digest_of(path)

    monkeypatch.setattr(ckpt, "digest_of", flaky)


@pytest.mark.usefixtures("interrupted")
def test_a_hiccup_of_the_storage_is_waited_for(storage, checked_of, monkeypatch):
    monkeypatch.setattr("sst2_ray.storage._FIRST_WAIT_S", 0.01)
    failing(monkeypatch, 3)
    assert check_run(storage, checked_of()) is None


@pytest.mark.usefixtures("interrupted")
def test_checkpoints_that_cannot_be_read_are_not_called_damaged(storage, checked_of, monkeypatch):
    monkeypatch.setattr(Storage, "with_retries", lambda self, _: self)
    failing(monkeypatch, 99)
    with pytest.raises(
        RunFailedError, match=r"^--name one: its checkpoints in .* cannot be read .*SLOW_DOWN"
    ) as caught:
        check_run(storage, checked_of())
    assert caught.value.failure_class == "storage_error"
    assert "delete" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_none_of_whose_checkpoints_is_whole_is_refused(interrupted, storage, checked_of):
    Path(interrupted.path(f"{ckpt.step_folder(3)}/model.safetensors")).write_bytes(b"")
    with pytest.raises(InputError, match="none of its 1 checkpoints is whole"):
        check_run(storage, checked_of())


SIZE = ModelSize(parameters=9, multiplied=9, layers=1, hidden=1, inner=4, gated=False, heads=1)


def notes_of(inputs, **changes) -> list[str]:
    """Return the remarks for the plan of the same run with other settings."""
    tokens = {"train": token_arrays([5] * len(inputs.splits.train)), "dev": token_arrays([5] * 8)}
    return dataclasses.replace(
        inputs,
        config=dataclasses.replace(inputs.config, **changes),
        resolved=SimpleNamespace(max_length=128, info=SimpleNamespace(notes=())),
        tokenized=Tokenized(tokenizer_json="", vocab_size=9, tokens=tokens, size=SIZE),
    ).notes()


@pytest.mark.parametrize(
    ("max_steps", "warmup_fraction", "is_said"), [(1, 0.06, True), (1, 0.0, False), (2, 0.06, False)]
)
def test_a_run_that_learns_nothing_is_told_so_in_its_plan(checked_of, max_steps, warmup_fraction, is_said):
    notes = notes_of(checked_of(), max_steps=max_steps, warmup_fraction=warmup_fraction)
    assert any("nothing is learned" in note for note in notes) is is_said


@pytest.mark.parametrize(
    ("storage_timeout_s", "step_timeout_s", "is_said"), [(120, 600, False), (1800, 600, True), (1800, 1800, False)]
)
def test_a_wait_for_storage_that_would_count_as_a_hang_is_told_in_the_plan(
    checked_of, storage_timeout_s, step_timeout_s, is_said
):
    notes = notes_of(checked_of(), storage_timeout_s=storage_timeout_s, step_timeout_s=step_timeout_s)
    said = [note for note in notes if "--storage-timeout-s 1800" in note and "--step-timeout-s 600: raise that" in note]
    assert bool(said) is is_said
