"""Tests of what a Ray on this machine alone is given: a token for this user alone, and a folder whose sockets have short names."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sst2_ray.errors import InputError
from sst2_ray.run import local_ray
from sst2_ray.run.local_ray import (
    _LONGEST_SOCKET,
    _SOCKET_BYTES,
    forking_ahead,
    resources,
    secure_token,
    short_temp_dir,
)
from sst2_ray.run.ray import fork_server
from sst2_ray.run.ray.fork_server import SWITCH, ForkServer

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR", "TMPDIR", "RAY_OVERRIDE_RESOURCES")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty home, with none of the variables set."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # put back afterwards, also what the code sets
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_token_is_for_this_user_alone(home: Path) -> None:
    secure_token()
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600
    assert len(token.read_text()) == 64
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_a_token_that_ray_wrote_for_everybody_is_kept_and_closed(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 32)
    token.chmod(0o644)
    secure_token()
    assert (mode(token), token.read_text()) == (0o600, "0" * 32)


def test_without_a_home_the_token_lies_in_a_private_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    secure_token()
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert (mode(token), mode(token.parent)) == (0o600, 0o700)
    assert token.read_text()


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "abc")])
def test_what_the_user_has_set_stays(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    secure_token()
    assert not list(home.iterdir())
    assert os.environ[name] == value


@pytest.mark.parametrize(
    ("variables", "folder"),
    [({}, "/tmp"), ({"TMPDIR": "/var/tmp"}, "/var/tmp"), ({"TMPDIR": "/var/tmp", "RAY_TMPDIR": "/dev/shm"}, "/dev/shm"),
     ({"TMPDIR": "/nowhere"}, "/tmp"), ({"TMPDIR": "long"}, "/tmp"), ({"RAY_TMPDIR": "long"}, "/tmp")],
)  # fmt: skip
def test_the_session_s_folder_has_room_for_the_names_of_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], folder: str
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    for name, value in variables.items():
        monkeypatch.setenv(name, str(long) if value == "long" else value)
    assert short_temp_dir() == folder
    assert len(f"{short_temp_dir()}/ray{_LONGEST_SOCKET}") <= _SOCKET_BYTES


def test_ray_is_told_the_cores_and_the_memory_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "num_usable_cpus", lambda: 3)
    monkeypatch.setattr(local_ray, "memory_limit", lambda: 1000)
    assert resources() == {"num_cpus": 3, "object_store_memory": 300, "_memory": 700}
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
    assert resources() == {"object_store_memory": 300, "_memory": 700}


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((128, 4096), "(4096, 4096)"),
        ((300, 300), "(300, 300)"),
        ((64, 64), "only 64 files may be open at once, Ray needs 256; raise the limit (ulimit -Hn)"),
    ],
)
def test_the_limit_of_open_files_is_raised_or_refused(limits: tuple[int, int], said: str) -> None:
    code = (
        "import resource; from sst2_ray.errors import InputError; from sst2_ray.run.local_ray import allow_open_files\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {limits})\n"
        "try:\n    allow_open_files(); print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "except InputError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{said}\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="used on Linux only")
def test_ray_starts_with_a_set_up_of_workers_that_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants

    from sst2_ray.run.ray import setup_worker

    for name, value in {SWITCH: "0", **local_ray.OWN_RAY_ENV}.items():
        monkeypatch.setenv(name, value)
    names: list[str] = []
    local_ray._start(SimpleNamespace(init=lambda **_: names.append(ray_constants.SETUP_WORKER_FILENAME)))
    assert names == [setup_worker.__file__]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[ForkServer]]]:
    """Return the folder in which servers make theirs, and those that were started; they import one small module."""
    started: list[ForkServer] = []
    start = ForkServer.start
    monkeypatch.setattr(fork_server, "BEFORE_RAY", ("colorsys",))
    monkeypatch.setattr(local_ray, "num_usable_cpus", lambda: 2)
    monkeypatch.setattr(ForkServer, "start", lambda *args: started.append(start(*args)) or started[-1])
    with tempfile.TemporaryDirectory(prefix="sst2-", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder), started


def is_gone(server: ForkServer) -> bool:
    return server.process.returncode is not None and not Path("/proc", str(server.process.pid)).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forked workers need Linux")
def test_a_server_ahead_of_ray_is_ended_where_ray_is_not_started(servers: tuple[Path, list[ForkServer]]) -> None:
    folder, started = servers
    with pytest.raises(InputError), forking_ahead(), forking_ahead():
        assert len(list(folder.iterdir())) == 1
        raise InputError("wrong input")
    assert [is_gone(server) for server in started] == [True]
    assert not list(folder.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forked workers need Linux")
def test_ray_takes_over_the_server_ahead_and_ends_it_where_it_does_not_start(
    servers: tuple[Path, list[ForkServer]],
) -> None:
    folder, started = servers
    told: list[dict] = []

    def init(**values: object) -> None:
        told.append(values)
        raise RuntimeError("a full disk")

    with forking_ahead(), pytest.raises(RuntimeError, match="a full disk"):
        local_ray._start(SimpleNamespace(init=init))
    assert [is_gone(server) for server in started] == [True]
    assert told[0]["runtime_env"] == {"py_executable": started[0].py_executable}
    assert not list(folder.iterdir())


def test_nothing_is_started_ahead_on_a_single_core(servers: tuple[Path, list[ForkServer]], monkeypatch) -> None:
    monkeypatch.setattr(local_ray, "num_usable_cpus", lambda: 1)
    with forking_ahead():
        assert not servers[1]


@pytest.mark.parametrize("flags", [["--data", "nowhere.csv"], ["--model", "no-such-model"]])
def test_wrong_input_leaves_no_process_and_no_folder_behind(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "rows.csv").write_text("sentence,label\n" + "good film,1\nbad film,0\n" * 40)
    with tempfile.TemporaryDirectory(prefix="sst2-", dir="/tmp") as folder:
        environ = {**os.environ, "RAY_TMPDIR": folder, "TMPDIR": folder, "MARK_OF_THIS_TEST": folder}
        command = [sys.executable, "-m", "sst2_ray", "train", "--data", str(tmp_path / "rows.csv"), *flags]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        assert not list(Path(folder).iterdir())
        mark = f"MARK_OF_THIS_TEST={folder}".encode()
        assert not [path for path in Path("/proc").glob("[0-9]*/environ") if mark in bytes_of(path)]


def bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""
