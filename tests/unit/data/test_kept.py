"""What is kept between commands: found as it was, made anew where anything has changed, never in the way."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.data import kept, kept_splits
from sst2_ray.data.columns import TextColumn
from sst2_ray.data.kept import digest_of, keep, keeping_nothing, read_kept
from sst2_ray.data.load import load_splits
from sst2_ray.data.rows import Splits
from sst2_ray.errors import InputError
from tests.support.reviews import reviews, write_csv, write_glue_folder

TRAIN, DEV = reviews(80), reviews(20, topic="play")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own, in which data of any size are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_splits, "LEAST_BYTES", 0)
    return tmp_path / "cache" / f"sst2-ray-{os.getuid()}" / "data"


@pytest.fixture
def folder(tmp_path):
    return write_glue_folder(tmp_path / "mine", TRAIN, DEV)


def config(**fields):
    return TrainConfig(**{"batch_size": 8, **fields})


def entries(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def same(one, other):
    """Compare splits with each other, all that they hold."""
    assert list(one.by_name) == list(other.by_name)
    for name, rows in one.by_name.items():
        assert list(rows.texts) == list(other.by_name[name].texts)
        assert np.array_equal(rows.labels, other.by_name[name].labels)
        assert rows.labels.dtype == other.by_name[name].labels.dtype
        assert np.array_equal(rows.row_ids, other.by_name[name].row_ids)
        assert rows.groups == other.by_name[name].groups
    plain = ("classes", "class_weights", "source", "eval_split", "fingerprint", "text_columns", "corpus", "notes")
    assert [getattr(one, name) for name in plain] == [getattr(other, name) for name in plain]
    return True


def again(made, monkeypatch):
    """Return the splits of a config a second time, when nothing may be read."""

    def read(_):
        pytest.fail("read again")

    monkeypatch.setattr(kept_splits, "load_splits", read)
    return kept_splits.splits_of(made)


# ---- entries


def test_an_entry_is_read_as_it_was_written(cache):
    assert read_kept("one", lambda folder: (folder / "a").read_text()) is None
    assert keep("one", lambda folder: (folder / "a").write_text("text"))
    assert read_kept("one", lambda folder: (folder / "a").read_text()) == "text"
    assert oct(cache.stat().st_mode & 0o777) == "0o700"


def test_a_damaged_entry_is_deleted(cache):
    keep("one", lambda folder: (folder / "a").write_text("no number"))
    assert read_kept("one", lambda folder: int((folder / "a").read_text())) is None
    assert entries(cache) == []


@pytest.mark.parametrize("error", [InputError("refused"), KeyboardInterrupt()])
def test_nothing_is_kept_of_what_was_refused(cache, error):
    def save(folder):
        (folder / "half").write_text("half")
        raise error

    with pytest.raises(type(error)):
        keep("one", save)
    assert entries(cache) == []


def test_a_full_disk_ends_nothing(cache, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    assert not keep("one", full)
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    assert not keep("two", lambda folder: (folder / "a").write_text("text"))
    assert entries(cache) == []


def test_a_quota_ends_nothing(monkeypatch):
    def refuse(**_):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(kept.tempfile, "mkdtemp", refuse)
    assert not keep("one", lambda _: None)


def test_too_many_open_files_are_no_fault_of_the_entry(cache):
    def load(_):
        raise OSError(24, "Too many open files")

    keep("one", lambda _: None)
    assert read_kept("one", load) is None
    assert entries(cache) == ["one"]


def test_nothing_is_kept_for_a_dry_run(cache):
    with keeping_nothing():
        assert not keep("one", lambda _: None)
    assert keep("two", lambda _: None)
    assert entries(cache) == ["two"]


def test_what_a_killed_process_left_is_deleted_after_a_day(cache):
    keep("one", lambda _: None)
    for name, age in (("new-old", 200_000), ("new-now", 0)):
        (cache / name).mkdir()
        (cache / name / "half").write_text("half")
        for path in (cache / name / "half", cache / name):
            os.utime(path, (time.time() - age,) * 2)
    keep("two", lambda _: None)
    assert entries(cache) == ["new-now", "one", "two"]


def test_nothing_is_kept_where_it_is_switched_off(cache, monkeypatch):
    keep("one", lambda _: None)
    monkeypatch.setenv("SST2_RAY_KEEP_DATA", "0")
    assert read_kept("one", lambda _: True) is None
    assert not keep("two", lambda _: None)
    assert entries(cache) == ["one"]


def test_what_was_not_used_for_the_longest_time_makes_room(cache, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 250)
    for age, name in ((30, "one"), (20, "two")):
        keep(name, lambda folder: (folder / "a").write_bytes(bytes(100)))
        os.utime(cache / name, (1e9 - age, 1e9 - age))
    os.utime(cache / "one", (1e9, 1e9))
    keep("three", lambda folder: (folder / "a").write_bytes(bytes(100)))
    assert entries(cache) == ["one", "three"]


def test_what_was_used_today_stays(cache, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 50)
    for name in ("one", "two"):
        keep(name, lambda folder: (folder / "a").write_bytes(bytes(100)))
    assert entries(cache) == ["one", "two"]


def test_of_two_that_write_the_same_entry_the_first_counts(cache):
    def slow(folder):
        keep("one", lambda other: (other / "a").write_text("first"))
        (folder / "a").write_text("second")

    assert keep("one", slow)
    assert read_kept("one", lambda folder: (folder / "a").read_text()) == "first"
    assert entries(cache) == ["one"]


def test_a_digest_tells_values_code_and_files_apart(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("b")
    digests = [
        digest_of("x", code=[one]),
        digest_of("y", code=[one]),
        digest_of("x", code=[two]),
        digest_of("x", code=[one], files=[two]),
        digest_of("x", code=[one, two]),
    ]
    assert len({*digests[:4]}) == 4
    assert digest_of("x", code=[one], files=[two]) == digests[3]


# ---- splits


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"selection_fraction": 0.2, "class_weights": "balanced"},
        {"train_rows": 40, "dev_rows": 10},
        {"labels": ("bad", "good"), "drop_label": ("0",)},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_the_second_time_nothing_is_read_and_all_is_the_same(folder, monkeypatch, settings):
    if "labels" in settings:
        relabelled = {"0": "dropped", "1": "good"}
        rows = [(text, relabelled.get(str(label), label)) for text, label in TRAIN]
        shutil.rmtree(folder)
        write_glue_folder(
            folder,
            rows + [(f"{text} more", "bad") for text, _ in TRAIN[:20]],
            [(t, "good") for t, _ in DEV] + [("no more", "bad")],
        )
        settings = {"labels": ("bad", "good"), "drop_label": ("dropped",)}
    made = config(data=str(folder), **settings)
    first = kept_splits.splits_of(made)
    assert same(first, load_splits(made))
    second = again(made, monkeypatch)
    assert same(first, second)
    assert isinstance(second.train.texts, TextColumn)


def test_pairs_groups_values_and_a_hold_out_come_back(tmp_path, monkeypatch):
    lines = [f"first {n},second {n},{n / 7:.3f},{n % 30}" for n in range(200)]
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,score,who", *lines]) + "\n")
    made = config(
        data=str(tmp_path / "pairs.csv"), text_columns=("a", "b"), label_column="score", task="regression", group_column="who"
    )  # fmt: skip
    first = kept_splits.splits_of(made)
    assert same(first, load_splits(made))
    assert same(first, again(made, monkeypatch))
    assert first.train.groups


def test_other_data_other_settings_and_other_names_are_read(cache, folder):
    kept_splits.splits_of(config(data=str(folder)))
    assert len(entries(cache)) == 1
    kept_splits.splits_of(config(data=str(folder), learning_rate=1e-5, seed=7, batch_size=4))
    assert len(entries(cache)) == 1
    kept_splits.splits_of(config(data=str(folder), dev_rows=10))
    assert len(entries(cache)) == 2
    with next(folder.glob("train*")).open("a") as file:
        file.write("one more sentence\t1\n")
    assert len(kept_splits.splits_of(config(data=str(folder))).train) == 81
    assert len(entries(cache)) == 3
    (folder / "test.tsv").write_text("sentence\tlabel\nan unused one\t1\n")  # which a remark names
    assert any("test" in note for note in kept_splits.splits_of(config(data=str(folder))).notes)


def test_evaluation_data_are_part_of_the_entry_however_they_are_named(tmp_path):
    train = write_csv(tmp_path / "train.csv", TRAIN)
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(2):
        write_csv(parts / "part-0.csv", reviews(20, topic=f"play{number}"))
        for dev in (parts, parts / "part-0.csv", f"file://{parts}/part-0.csv"):
            made = config(data=str(train), dev_data=str(dev))
            assert same(kept_splits.splits_of(made), load_splits(made))


def test_training_data_that_are_no_files_here_keep_nothing(cache, tmp_path, monkeypatch):
    dev = write_csv(tmp_path / "dev.csv", DEV)
    for number in range(2):
        write_csv(tmp_path / "train.csv", reviews(80, topic=f"film{number}"))
        made = config(data=f"file://{tmp_path}/train.csv", dev_data=str(dev))
        assert same(kept_splits.splits_of(made), load_splits(made))
    monkeypatch.chdir(tmp_path)
    write_glue_folder(tmp_path / "rotten-tomatoes", TRAIN, DEV)  # --data means the packaged reviews
    kept_splits.splits_of(config(data="rotten-tomatoes"))
    assert entries(cache) == []


def test_a_file_that_is_written_while_it_is_read_is_not_kept(cache, tmp_path, monkeypatch):
    path = write_csv(tmp_path / "mine.csv", TRAIN)

    def read(made):
        write_csv(path, reviews(90))
        return load_splits(made)

    monkeypatch.setattr(kept_splits, "load_splits", read)
    kept_splits.splits_of(config(data=str(path)))
    assert entries(cache) == []


def test_a_neighbor_of_a_file_and_the_length_of_sentences_change_nothing(cache, tmp_path):
    path = write_csv(tmp_path / "mine.csv", TRAIN)
    kept_splits.splits_of(config(data=str(path)))
    (tmp_path / "another.csv").write_text("x")
    kept_splits.splits_of(config(data=str(path), max_length=64))
    assert len(entries(cache)) == 1


def test_what_is_wrong_is_told_every_time(folder):
    for _ in range(2):
        with pytest.raises(InputError, match="no such data set"):
            kept_splits.splits_of(config(data="nowhere"))
        with pytest.raises(InputError, match="larger than the 80 training rows"):
            kept_splits.splits_of(config(data=str(folder), batch_size=100))


def test_named_data_weights_from_a_file_and_small_files_are_not_kept(cache, folder, tmp_path, monkeypatch):
    (tmp_path / "weights.json").write_text('{"negative": 1, "positive": 2}')
    kept_splits.splits_of(config(data=str(folder), class_weights=str(tmp_path / "weights.json")))
    kept_splits.splits_of(config(data="rotten-tomatoes"))
    monkeypatch.setattr(kept_splits, "LEAST_BYTES", 2**20)
    kept_splits.splits_of(config(data=write_csv(tmp_path / "mine.csv", TRAIN).__fspath__()))
    assert entries(cache) == []


def test_a_damaged_entry_is_made_anew(cache, folder):
    kept_splits.splits_of(config(data=str(folder)))
    (entry,) = cache.iterdir()
    (entry / "0.arrow").write_bytes((entry / "0.arrow").read_bytes()[:100])
    assert same(kept_splits.splits_of(config(data=str(folder))), load_splits(config(data=str(folder))))


def test_every_part_of_the_splits_is_kept():
    written = {"train", "dev", "selection", "others", "classes", *kept_splits._PLAIN, *kept_splits._LISTED}
    assert {field.name for field in dataclasses.fields(Splits)} == written
