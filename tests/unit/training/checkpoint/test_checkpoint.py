"""A checkpoint is whole or is none: what was written is read at any world size, what was damaged never is."""

from __future__ import annotations

import datetime as dt
import errno
import json
import pickle
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from sst2_ray.records import EpochRecord
from sst2_ray.run.failures import classify
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.checkpoint import writer as checkpoint_writer
from sst2_ray.training.checkpoint.snapshot import HostCopies, Snapshot
from sst2_ray.training.checkpoint.writer import CheckpointWriter
from sst2_ray.training.names import CHECKPOINT_FOLDER
from tests.support.checkpoints import model_of, moments, shard_of, snapshot_of, write_checkpoint
from tests.support.disks import mounted
from tests.support.waiting import waited


@pytest.fixture
def run(tmp_path) -> Storage:
    return Storage.open(str(tmp_path / "run"))


def newest(run: Storage) -> tuple[int | None, list[str]]:
    """Return the step of the newest valid checkpoint, and what was said on the way to it."""
    said: list[str] = []
    found = ckpt.newest_valid(run, Path(run.root) / "scratch", said.append)
    return (found.global_step if found else None), said


def folder_of(run: Storage, step: int) -> Path:
    return Path(run.path(ckpt.step_folder(step)))


def edit_manifest(run: Storage, step: int, **changes) -> None:
    """Edit a manifest as somebody would who knows how it is made."""
    name = f"{ckpt.step_folder(step)}/manifest.json"
    manifest = {**run.read_json(name), **changes}
    del manifest["checksum"]
    run.write_json(name, {**manifest, "checksum": ckpt.checksum(manifest)})


# ---- written and read


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_what_was_written_is_read(run, world_size):
    write_checkpoint(run, 7, world_size=world_size)
    saved = ckpt.fetch(run, 7, Path())
    assert (saved.global_step, saved.world_size, saved.state["config_hash"]) == (7, world_size, "0123")
    model = model_of(0.0)
    saved.load_model(model)
    assert all(bool((p == 7).all()) for p in model.parameters())


def test_it_is_safetensors_and_json_alone(run):
    write_checkpoint(run, 7, world_size=2)
    assert sorted(path.name for path in folder_of(run, 7).iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer-000-of-002.safetensors",
        "optimizer-001-of-002.safetensors",
    ]


def test_weights_are_loaded_into_the_storage_that_the_optimizer_holds(run):
    write_checkpoint(run, 7)
    model = model_of(0.0)
    before = [p.data_ptr() for p in model.parameters()]
    ckpt.fetch(run, 7, Path()).load_model(model)
    assert [p.data_ptr() for p in model.parameters()] == before


def test_a_snapshot_does_not_follow_the_training_that_goes_on(run):
    model, shard = model_of(1.0), shard_of(0, 1)
    snapshot = Snapshot.take(global_step=1, model=model, shard=shard, sums=torch.ones(3), state={})
    with torch.no_grad():
        model.weight.fill_(9.0)
    shard.tensors["0.exp_avg"].fill_(9.0)
    writer = CheckpointWriter(run, rank=0, world_size=1)
    writer.save(snapshot)
    writer.wait()
    saved, loaded = ckpt.fetch(run, 1, Path()), model_of(0.0)
    saved.load_model(loaded)
    assert bool((loaded.weight == 1).all())
    assert torch.equal(saved.optimizer_shard(shard_of(0, 1)).tensors["0.exp_avg"], shard_of(0, 1).tensors["0.exp_avg"])


def test_the_next_snapshot_is_copied_into_the_memory_of_the_one_before():
    copies, model, shard = HostCopies(), model_of(1.0), shard_of(0, 1)
    places = []
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            model.weight.fill_(value)
        snapshot = Snapshot.take(global_step=1, model=model, shard=shard, sums=torch.ones(3), state={}, copies=copies)
        assert bool((snapshot.model["weight"] == value).all())
        tensors = {**snapshot.model, **{n: t for n, t in snapshot.shard.items() if not n.startswith("rng")}}
        places.append({name: tensor.data_ptr() for name, tensor in tensors.items()})
    assert places[0] == places[1] == places[2]
    assert len(set(places[0].values())) == len(places[0])


def test_an_epoch_record_comes_back_from_json():
    record = EpochRecord(
        experiment="a", trial_id="b", attempt=0, split="dev", global_step=3, epoch=0.5, dev_accuracy=0.5,
        written_at=dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=dt.UTC),
    )  # fmt: skip
    assert ckpt.record_from_json(json.loads(json.dumps(ckpt.record_to_json(record)))) == record


def test_random_states_go_on_where_they_were_at_the_same_world_size(run):
    torch.manual_seed(5)
    write_checkpoint(run, 7, world_size=2)
    expected = torch.rand(3)
    saved = ckpt.fetch(run, 7, Path())
    saved.restore_random_states(rank=1, world_size=2)
    assert torch.equal(torch.rand(3), expected)
    saved.restore_random_states(rank=0, world_size=1)
    assert not torch.equal(torch.rand(3), expected)


# ---- world sizes


@pytest.mark.parametrize("saved_at", [1, 2, 3])
@pytest.mark.parametrize("read_at", [1, 2, 3, 5])
def test_the_optimizers_state_is_cut_anew_for_any_world_size(run, saved_at, read_at):
    write_checkpoint(run, 7, world_size=saved_at)
    saved = ckpt.fetch(run, 7, Path())
    for rank in range(read_at):
        cut = saved.optimizer_shard(shard_of(rank, read_at, empty=True))
        expected = shard_of(rank, read_at, step=7.0)
        assert (cut.starts, cut.spans, cut.step) == (expected.starts, expected.spans, 7.0)
        for name, tensor in expected.tensors.items():
            torch.testing.assert_close(cut.tensors[name], tensor, rtol=0, atol=0)


def test_the_made_up_state_tells_its_places_apart():
    everything = torch.cat(
        [moments(name, state) for name in ("table", "weight") for state in ("exp_avg", "exp_avg_sq")]
    )
    assert len(everything.unique()) == len(everything)


def test_running_sums_stay_with_their_rank_and_are_added_up_where_the_world_changes(run):
    write_checkpoint(run, 7, world_size=3)
    saved = ckpt.fetch(run, 7, Path())
    assert [saved.train_sums(rank=r, world_size=3).tolist() for r in range(3)] == [[1, 0, 1], [2, 0, 1], [3, 0, 1]]
    assert [saved.train_sums(rank=r, world_size=2).tolist() for r in range(2)] == [[6, 0, 3], [0, 0, 0]]


# ---- whole or none


def test_without_the_manifest_there_is_no_checkpoint(run):
    write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    (folder_of(run, 5) / "manifest.json").unlink()
    assert ckpt.committed_steps(run) == [3]
    assert newest(run) == (3, [])


def test_a_rank_that_has_not_written_keeps_rank_0_from_committing(run, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "COMMIT_TIMEOUT_S", 0.0)
    writer = CheckpointWriter(run, rank=0, world_size=2)
    writer.save(snapshot_of(0, 2, 7))
    with pytest.raises(TimeoutError, match=r"no receipt-001\.json"):
        writer.wait()
    assert ckpt.committed_steps(run) == []


def test_rank_0_waits_for_a_rank_as_long_as_that_tries_its_storage_again(run, monkeypatch):
    """Storage that was away for longer than the limit of a commit must not end the run when it is back."""
    monkeypatch.setattr(checkpoint_writer, "COMMIT_TIMEOUT_S", 0.0)
    first, second = (CheckpointWriter(run.with_retries(60), rank=rank, world_size=2) for rank in (0, 1))
    first.save(snapshot_of(0, 2, 7))
    waited((folder_of(run, 7) / "receipt-000.json").exists, "the files of rank 0", 60)
    second.save(snapshot_of(1, 2, 7))
    first.wait()
    second.wait()
    assert ckpt.committed_steps(run) == [7]


def test_what_the_writing_raised_is_raised_where_it_is_waited_for_and_only_once(tmp_path):
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(Storage.open(str(tmp_path / "file")), rank=0, world_size=1)
    writer.save(snapshot_of(0, 1, 7))
    with pytest.raises(OSError):
        writer.wait()
    writer.wait()


def test_what_the_writing_raised_is_known_before_the_next_snapshot(run, monkeypatch):
    monkeypatch.setattr(
        checkpoint_writer, "save_file", _fail_with(SafetensorError("I/O error: No space left (os error 28)"))
    )
    writer = CheckpointWriter(run, rank=0, world_size=1)
    writer.save(snapshot_of(0, 1, 7))
    writer._thread.join()
    with pytest.raises(OSError, match="No space left on device"):
        writer.check()


def _fail_with(error: Exception):
    def fail(*_):
        raise error

    return fail


def test_a_disk_that_is_away_for_a_while_is_waited_for(run, monkeypatch):
    """A network file system whose server starts again answers so."""
    monkeypatch.setattr("sst2_ray.storage._FIRST_WAIT_S", 0.01)
    failures = [SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)")] * 3
    save = checkpoint_writer.save_file

    def flaky(tensors, path):
        if failures:
            raise failures.pop()
        save(tensors, path)

    monkeypatch.setattr(checkpoint_writer, "save_file", flaky)
    write_checkpoint(run.with_retries(60), 7)
    assert newest(run) == (7, [])


def test_a_full_disk_is_told_at_once_and_keeps_the_checkpoint_before(tmp_path):
    with mounted(tmp_path / "disk", kib=64) as disk:
        run = Storage.open(str(disk.folder / "run")).with_retries(600)
        write_checkpoint(run, 3)
        disk.fill()
        with pytest.raises(OSError, match="No space left on device"):
            write_checkpoint(run, 5)
        assert newest(run) == (3, [])
        disk.make_room()
        write_checkpoint(run, 7)
        assert newest(run) == (7, [])


def test_what_fails_after_the_commit_costs_no_checkpoint(run):
    """A folder that cannot be deleted: network file systems keep files that somebody still reads."""
    writer = CheckpointWriter(run, rank=0, world_size=1, on_commit=_fail_with(OSError(39, "Directory not empty")))
    writer.save(snapshot_of(0, 1, 7))
    with pytest.raises(OSError, match="Directory not empty"):
        writer.wait()
    assert newest(run) == (7, [])


def test_a_snapshot_waits_for_the_one_before(run):
    order: list[list[int]] = []
    writer = CheckpointWriter(run, rank=0, world_size=1, on_commit=lambda _: order.append(ckpt.committed_steps(run)))
    for step in (1, 2, 3):
        writer.save(snapshot_of(0, 1, step))
    writer.wait()
    assert order == [[1], [1, 2], [1, 2, 3]]


FILES = ("manifest.json", "model.safetensors", "optimizer-000-of-001.safetensors")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Storage:
    """Make a run with checkpoints at steps 3 and 5; what a test damages it puts back."""
    run = Storage.open(str(tmp_path_factory.mktemp("two")))
    write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    return run


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_byte_is_never_loaded_and_the_checkpoint_before_is(two, name):
    """Cuts are at every byte near its ends, where headers are, and at every 13th in between."""
    path = folder_of(two, 5) / name
    whole = path.read_bytes()
    near = {*range(300), *range(len(whole) - 100, len(whole)), *range(0, len(whole), 13)}
    try:
        for length in sorted(near & set(range(len(whole)))):
            path.write_bytes(whole[:length])
            step, said = newest(two)
            assert step == 3, f"{name} cut to {length} bytes"
            assert len(said) == 1
            assert "going back to the one before" in said[0]
    finally:
        path.write_bytes(whole)
    assert newest(two) == (5, [])


def _means_the_same(changed: bytes, whole: bytes) -> bool:
    """Tell whether JSON is the same: white space between its words may change."""
    try:
        return json.loads(changed) == json.loads(whole)
    except ValueError:
        return False


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), data=st.data())
def test_a_byte_that_changed_is_found(two, name, data):
    path = folder_of(two, 5) / name
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    try:
        path.write_bytes(changed)
        assert newest(two)[0] == (5 if _means_the_same(changed, whole) else 3)
    finally:
        path.write_bytes(whole)


def test_a_file_cut_at_any_of_50_random_bytes_is_never_loaded(two):
    """Cuts are drawn from all bytes of all files of a checkpoint, wherever they may be."""
    seed = int(time.time())
    print(f"seed {seed}")
    draw = random.Random(seed)
    whole = {name: (folder_of(two, 5) / name).read_bytes() for name in FILES}
    places = [(name, length) for name, data in whole.items() for length in range(len(data))]
    for name, length in draw.sample(places, 50):
        path = folder_of(two, 5) / name
        try:
            path.write_bytes(whole[name][:length])
            assert newest(two)[0] == 3, f"{name} cut to {length} bytes"
        finally:
            path.write_bytes(whole[name])
    assert newest(two) == (5, [])


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_found(two, tmp_path, name):
    copy = Storage.open(str(tmp_path / "copy"))
    shutil.copytree(two.root, copy.root)
    (folder_of(copy, 5) / name).unlink()
    assert newest(copy)[0] == 3


def test_a_folder_in_the_place_of_a_file_is_damage(run):
    write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    path = folder_of(run, 5) / "model.safetensors"
    path.unlink()
    path.mkdir()
    assert newest(run)[0] == 3


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/tmp/step-00000005"),
        OSError("When reading from bucket: AWS Error SLOW_DOWN during GetObject operation: Please reduce your rate"),
        PermissionError(errno.EACCES, "Permission denied"),
    ],
    ids=["full-scratch", "s3", "forbidden"],
)
def test_a_checkpoint_that_cannot_be_read_is_not_a_damaged_one(run, monkeypatch, error):
    """Going back to an older one, or to step 0, would lose what is whole."""
    write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    monkeypatch.setattr(ckpt, "digest_of", _fail_with(error))
    with pytest.raises(OSError) as caught:
        newest(run)
    assert caught.value is error
    assert classify(error).failure_class == "storage_error"


def test_reading_a_checkpoint_retries_as_long_as_the_storage_does(run, monkeypatch):
    monkeypatch.setattr("sst2_ray.storage._FIRST_WAIT_S", 0.01)
    write_checkpoint(run, 5)
    failures, digest_of = [OSError(errno.EIO, "Input/output error")] * 3, ckpt.digest_of

    def flaky(path):
        if failures:
            raise failures.pop()
        return digest_of(path)

    monkeypatch.setattr(ckpt, "digest_of", flaky)
    assert newest(run.with_retries(60)) == (5, [])


def test_where_none_is_whole_there_is_none(run):
    write_checkpoint(run, 3)
    (folder_of(run, 3) / "model.safetensors").write_bytes(b"")
    step, said = newest(run)
    assert step is None
    assert "model.safetensors is not what was written" in said[0]


# ---- what somebody else put there


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "..", "sub/file", ""])
def test_a_manifest_that_names_files_elsewhere_is_refused(run, tmp_path, name):
    (tmp_path / "outside").write_text("secret")
    write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    files = run.read_json(f"{ckpt.step_folder(5)}/manifest.json")["files"]
    edit_manifest(run, 5, files={**files, name: ckpt.digest_of(tmp_path / "outside")})
    step, said = newest(run)
    assert step == 3
    assert "does not name the files of 1 ranks, and them alone" in said[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"format": None}, {"files": []}, {"files": None}, {"files": {"model.safetensors": None}},
        {"files": {}}, {"layouts": None}, {"layouts": []}, {"state": []}, {"global_step": 4}, {"world_size": 2},
        {"world_size": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_of_another_form_is_refused(run, changes):
    write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    edit_manifest(run, 5, **changes)
    assert newest(run)[0] == 3


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'"text"', b"\xff", b"{}"])
def test_a_manifest_that_is_no_object_is_refused(run, content):
    write_checkpoint(run, 3)
    write_checkpoint(run, 5)
    (folder_of(run, 5) / "manifest.json").write_bytes(content)
    assert newest(run)[0] == 3


class Planted:
    """Unpickling it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.write_text, (self.trace, "unpickled"))


def test_a_planted_pickle_is_never_unpickled(run, tmp_path):
    write_checkpoint(run, 3)
    path = folder_of(run, 3) / "model.safetensors"
    path.write_bytes(pickle.dumps(Planted(tmp_path / "trace")))
    files = run.read_json(f"{ckpt.step_folder(3)}/manifest.json")["files"]
    edit_manifest(run, 3, files={**files, path.name: ckpt.digest_of(path)})  # whoever plants it can write a manifest
    with pytest.raises((SafetensorError, ValueError)):
        ckpt.fetch(run, 3, Path()).load_model(model_of(0.0))
    assert not (tmp_path / "trace").exists()


def test_weights_of_another_model_are_refused(run):
    write_checkpoint(run, 3)
    other = model_of(0.0)
    other.register_parameter("more", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="are not those of the model"):
        ckpt.fetch(run, 3, Path()).load_model(other)


# ---- what is kept


def test_the_newest_and_the_protected_are_kept(run):
    for step in (2, 4, 6, 8):
        write_checkpoint(run, step)
    ckpt.prune(run, keep=2, protect=[2], newest=8)
    assert ckpt.committed_steps(run) == [2, 6, 8]


def test_a_checkpoint_that_is_being_written_is_not_pruned_an_abandoned_older_one_is(run):
    for step in (2, 4):
        write_checkpoint(run, step)
    for step in (3, 5):
        run.write_bytes(f"{ckpt.step_folder(step)}/model.safetensors", b"half")
    ckpt.prune(run, keep=1, protect=[], newest=4)
    assert run.list(CHECKPOINT_FOLDER) == ["step-00000004", "step-00000005"]


def damaged_at_30(run: Storage) -> None:
    for step in (10, 20, 30):
        write_checkpoint(run, step)
    (folder_of(run, 30) / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(("keep", "whole"), [(1, [21]), (2, [20, 21])])
def test_a_damaged_newer_checkpoint_does_not_count_for_the_newest(run, keep, whole):
    damaged_at_30(run)
    write_checkpoint(run, 21, on_commit=lambda s: ckpt.prune(run, keep=keep, protect=[], newest=s.global_step))
    assert newest(run)[0] == 21
    assert ckpt.committed_steps(run) == [*whole, 30]


def test_what_a_run_has_passed_over_goes_when_it_goes_on(run):
    damaged_at_30(run)
    run.write_bytes(f"{ckpt.step_folder(40)}/model.safetensors", b"half")
    ckpt.drop_newer(run, 20)
    assert run.list(CHECKPOINT_FOLDER) == ["step-00000010", "step-00000020", "step-00000040"]


def test_before_a_new_attempt_everything_half_written_goes(run):
    write_checkpoint(run, 4)
    run.write_bytes(f"{ckpt.step_folder(5)}/model.safetensors", b"half")
    ckpt.drop_uncommitted(run)
    assert run.list(CHECKPOINT_FOLDER) == ["step-00000004"]


# ---- object store


def test_an_object_store_holds_checkpoints_just_as_well(tmp_path):
    from tests.support.object_store import BUCKET, object_store_here

    with object_store_here():
        run = Storage.open(f"s3://{BUCKET}/run")
        for step in (3, 5):
            write_checkpoint(run, step, world_size=2)
        said: list[str] = []
        found = ckpt.newest_valid(run, tmp_path, said.append)
        assert (found.global_step, said) == (5, [])
        model = model_of(0.0)
        found.load_model(model)
        assert bool((model.weight == 5).all())
        run.write_bytes(f"{ckpt.step_folder(5)}/optimizer-001-of-002.safetensors", b"cut")
        assert ckpt.newest_valid(run, tmp_path, said.append).global_step == 3
        run.delete(f"{ckpt.step_folder(5)}/optimizer-001-of-002.safetensors")
        assert ckpt.newest_valid(run, tmp_path, said.append).global_step == 3
        ckpt.prune(run, keep=1, protect=[], newest=5)
        assert ckpt.committed_steps(run) == [5]
