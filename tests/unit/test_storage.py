"""Tests of one folder, on a disk or in an object store: whole files or none, and nothing left behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator

import pytest
from pyarrow.fs import LocalFileSystem

from sst2_ray.data.files import local_copy
from sst2_ray.errors import InputError
from sst2_ray.storage import Storage, absolute, address
from tests.support.disks import mounted
from tests.support.object_store import BUCKET, object_store_here
from tests.support.proxies import proxy_to


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with object_store_here():
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["disk", "object-store"])
def storage(request, tmp_path) -> Storage:
    """Open a folder on a disk or in an object store: the same behavior is asked of both."""
    if request.param == "disk":
        return Storage.open(str(tmp_path / "root"))
    return Storage.open(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_what_was_written_is_read(storage):
    storage.write_bytes("runs/a.bin", b"\x00\x01")
    storage.write_json("runs/b.json", {"x": [1, None]})
    assert storage.read_bytes("runs/a.bin") == b"\x00\x01"
    assert storage.read_json("runs/b.json") == {"x": [1, None]}
    assert storage.child("runs").read_bytes("a.bin") == b"\x00\x01"


def test_the_later_write_replaces_the_earlier(storage):
    for content in (b"first", b"second"):
        storage.write_bytes("runs/a", content)
    assert storage.read_bytes("runs/a") == b"second"


def test_names_are_listed_and_a_missing_folder_is_empty(storage):
    storage.write_bytes("runs/b", b"")
    storage.write_bytes("runs/a", b"")
    assert storage.list("runs") == ["a", "b"]
    assert "runs" in storage.list()
    assert storage.list("nowhere") == []


def test_files_and_folders_are_deleted_and_missing_ones_are_no_error(storage):
    storage.write_bytes("runs/deep/a", b"")
    storage.write_bytes("runs/b", b"")
    storage.delete("runs/b")
    storage.delete("runs/deep")
    storage.delete("runs/deep")
    assert not storage.exists("runs/b")
    assert not storage.exists("runs/deep")


def test_a_folder_is_copied_there_and_back(storage, tmp_path):
    source = tmp_path / "model"
    (source / "1_Pooling").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "1_Pooling" / "config.json").write_text("[]")
    storage.upload(source, "export")
    assert storage.read_bytes("export/1_Pooling/config.json") == b"[]"
    storage.download("export/config.json", tmp_path / "new" / "config.json")
    assert (tmp_path / "new" / "config.json").read_text() == "{}"
    for folder in ("export/1_Pooling", "export"):  # files alone, and with a folder in it
        storage.download(folder, tmp_path / "copy" / folder)
    assert (tmp_path / "copy/export/1_Pooling/config.json").read_text() == "[]"


ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


@pytest.mark.parametrize("query", ["", "?region=eu-west-1&scheme=http&endpoint_override=s3.example.org"])
def test_an_object_store_is_asked_through_the_proxy_that_the_environment_names(bucket, tmp_path, monkeypatch, query):
    with proxy_to(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        for name in ENDPOINTS:
            monkeypatch.setenv(name, "http://s3.example.org")
        monkeypatch.setenv("http_proxy", proxy.url)
        storage = Storage.open(f"{bucket}/{tmp_path.name}{query}")
        storage.write_bytes("runs/a", b"x")
        assert storage.read_bytes("runs/a") == b"x" and storage.list("runs") == ["a"]
        copy = local_copy(f"{bucket}/{tmp_path.name}/runs/a{query}", tmp_path, "--data")
        assert copy.read_bytes() == b"x"
    assert proxy.asked and all(url.startswith("http://s3.example.org/") for url in proxy.asked)


@pytest.mark.parametrize(
    ("name", "value"), [("no_proxy", "localhost,127.0.0.1"), ("http_proxy", "socks5://127.0.0.1:9"), ("http_proxy", "")]
)
def test_an_object_store_that_no_proxy_is_for_is_asked_directly(bucket, tmp_path, monkeypatch, name, value):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    Storage.open(f"{bucket}/{tmp_path.name}").write_bytes("a", b"x")


def test_a_probe_writes_nothing_that_stays(storage):
    storage.probe()
    assert storage.list() == []


def test_a_bucket_that_is_not_there_cannot_be_written(bucket):
    with pytest.raises(InputError, match="cannot be written"):
        Storage.open(f"{bucket}-that-is-not-there/runs").probe()


# ---- on a disk


def test_opening_a_folder_creates_nothing(tmp_path):
    Storage.open(str(tmp_path / "later")).list()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    storage = Storage.open(str(tmp_path))
    storage.write_bytes("a", b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes("a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_probe_leaves_no_trace(tmp_path):
    Storage.open(str(tmp_path / "a" / "b")).probe()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    Storage.open(str(tmp_path / "there")).probe()
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_probe_of_what_cannot_be_written_is_one_line(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*; choose a folder that every node can write to"):
        Storage.open(f"{tmp_path}/file{below}").probe()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_probe_of_a_full_disk_is_one_line(tmp_path):
    with mounted(tmp_path / "disk", kib=64) as disk:
        disk.fill()
        with pytest.raises(InputError, match=r"cannot be written .*No space left on device"):
            Storage.open(str(disk.folder / "runs")).probe()


@pytest.mark.parametrize("uri", ["ftp://host/x", "nonsense://x"])
def test_a_scheme_that_cannot_be_opened_is_refused(uri):
    with pytest.raises(InputError, match=r"use a folder, s3://... or gs://..."):
        Storage.open(uri)


def test_relative_and_home_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Storage.open("runs").root == f"{tmp_path}/runs"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Storage.open("~/runs").root == f"{tmp_path}/runs"


@pytest.mark.parametrize("name", ["..", "../outside", "a/../../outside", "/etc"])
def test_no_name_leads_out_of_the_storage(tmp_path, name):
    storage = Storage.open(str(tmp_path / "runs"))
    for use in (storage.path, storage.child, storage.exists, storage.delete, storage.read_bytes):
        with pytest.raises(InputError, match="leads out of the storage folder"):
            use(name)


class Flaky(LocalFileSystem):
    """File system that is not there for its first uses."""

    failures = 0
    error: OSError

    def get_file_info(self, *args):
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().get_file_info(*args)


def test_a_short_outage_is_survived_and_a_long_one_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sst2_ray.storage._FIRST_WAIT_S", 0.01)
    there = Flaky()
    there.failures, there.error = 3, OSError("When reading: AWS Error NETWORK_CONNECTION: connection refused")
    assert not Storage(there, str(tmp_path)).with_retries(60).exists("nothing")
    there.failures = 10**9
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        Storage(there, str(tmp_path)).with_retries(0.1).exists("nothing")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EROFS])
def test_what_waiting_cannot_help_is_told_at_once(tmp_path, number):
    there = Flaky()
    there.failures, there.error = 2, OSError(number, os.strerror(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        Storage(there, str(tmp_path)).with_retries(600).exists("nothing")
    assert there.failures == 1


def test_workers_are_told_a_folder_that_does_not_depend_on_theirs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("runs/demo") == str(tmp_path / "runs" / "demo")
    assert absolute("s3://bucket/runs?region=eu-west-1") == "s3://bucket/runs?region=eu-west-1"


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("s3://key:secret@bucket/sst2?region=eu", "s3://bucket/sst2/a/model?region=eu"),
        ("gs://bucket/sst2/", "gs://bucket/sst2/a/model"),
        ("/runs", "/runs/a/model"),
    ],
)
def test_what_lies_below_a_storage_is_named_as_it_is_opened_and_without_secrets(uri, named):
    assert address(uri, "a/model") == named
    assert address(uri) == named.replace("/a/model", "")


def test_a_number_sign_in_a_uri_is_refused_instead_of_dropped(tmp_path) -> None:
    with pytest.raises(InputError, match=r"write %23"):
        Storage.open(f"file://{tmp_path}/run#1")
    assert Storage.open(f"file://{tmp_path}/run%231").root == f"{tmp_path}/run#1"
    assert Storage.open(f"{tmp_path}/run#1").root == f"{tmp_path}/run#1"


def _probe(root, barrier, answers):
    storage = Storage.open(root)
    barrier.wait()
    try:
        answers.put(storage.probe())
    except Exception as error:
        answers.put(str(error))


def test_two_probes_of_a_new_folder_at_once_both_find_it_writable(tmp_path):
    """The one takes away the folder that the other is about to write to."""
    context = multiprocessing.get_context("fork")
    for number in range(15):
        barrier, answers = context.Barrier(2), context.Queue()
        root = str(tmp_path / str(number) / "runs")
        processes = [context.Process(target=_probe, args=(root, barrier, answers)) for _ in range(2)]
        for process in processes:
            process.start()
        assert [answers.get(timeout=30) for _ in processes] == [None, None]
        for process in processes:
            process.join()
