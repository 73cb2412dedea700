"""Workers are forked from a process that has imported what they need; whatever is in the way, they start all the same."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from sst2_ray.errors import InputError, StoppedError
from sst2_ray.run.ray import fork_server, fork_worker
from sst2_ray.run.ray.fork_server import ONE_THREAD, SWITCH, WITH_RAY, ForkServer, NotServedError

SCRIPT = fork_worker.__file__
TELL = """
import json, os, pathlib, sys
told = {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "argv": sys.argv[1:], "cwd": os.getcwd(),
        "variable": os.environ.get("VARIABLE"), "was_imported": "colorsys" in sys.modules, "main": __name__,
        "niceness": os.nice(0)}
pathlib.Path(sys.argv[1]).write_text(json.dumps(told))
print("standard output is the client's")
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forked workers need Linux")


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """Write a script that stands in for Ray's worker script."""
    script = tmp_path / "worker.py"
    script.write_text(TELL)
    return script


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    path: str

    def ray_runs(self, *modules: str, raylet: int | None = None) -> None:
        """Tell the server what the driver tells when Ray runs."""
        environ = {"RAY_JOB_ID": "01", "RAY_RAYLET_PID": str(raylet or os.getpid())}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"environ": environ, "modules": modules}).encode() + b"\n")
        self.process.stdin.flush()


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start a server that imports these modules; it ends with its standard input."""
    started = []

    def start(*modules: str) -> Server:
        path = str(tmp_path_factory.mktemp("s") / "s")
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "serve", path, *modules],
            stdin=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )
        started.append(process)
        wait_for(Path(path).exists)
        return Server(process, path)

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def start(path: str, worker: Path, told: Path, cwd: Path, *, job: str = "01", flags: Sequence[str] = ()) -> dict:
    """Start the client instead of Python, as Ray does; return what the worker told."""
    environ = {**os.environ, "RAY_JOB_ID": job, "RAY_RAYLET_PID": str(os.getpid()), "VARIABLE": "x"}
    command = [sys.executable, "-I", "-S", SCRIPT, path, *flags, str(worker), str(told), "--flag=1"]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=True)
    wait_for(lambda: told.exists() and told.read_text().endswith("}"))
    assert done.stderr == ""
    return json.loads(told.read_text())


def test_a_worker_is_forked_with_what_ray_gave_it(server, worker: Path, tmp_path: Path) -> None:
    running = server("json")
    running.ray_runs("colorsys")
    for number in range(2):
        told = start(running.path, worker, tmp_path / f"told{number}", tmp_path)
        assert (told["parent"], told["was_imported"]) == (running.process.pid, True)
        assert told["group"] == told["pid"]  # a signal to its group reaches nobody else
        assert told["argv"] == [str(tmp_path / f"told{number}"), "--flag=1"]
        assert (told["cwd"], told["variable"], told["main"]) == (str(tmp_path), "x", "__main__")


def test_niceness_is_handed_over(server, worker: Path, tmp_path: Path) -> None:
    running = server("colorsys")
    running.ray_runs()
    mine = os.nice(0)
    command = ["nice", "-n", "3", sys.executable, "-I", "-S", SCRIPT, running.path, str(worker), str(tmp_path / "told")]
    environ = {**os.environ, "RAY_JOB_ID": "01", "RAY_RAYLET_PID": str(os.getpid())}
    subprocess.run(command, env=environ, check=True, timeout=60)
    wait_for(lambda: (tmp_path / "told").exists() and (tmp_path / "told").read_text().endswith("}"))
    assert json.loads((tmp_path / "told").read_text())["niceness"] == min(19, mine + 3)


@pytest.mark.parametrize("flags", [["-s"], ["-S", "-s"]])
def test_python_s_own_flags_before_the_script_are_no_script(server, worker: Path, tmp_path: Path, flags) -> None:
    """Ray puts them there for a driver with PYTHONNOUSERSITE or `python -s`."""
    running = server("colorsys")
    running.ray_runs()
    told = start(running.path, worker, tmp_path / "told", tmp_path, flags=flags)
    assert told["parent"] == running.process.pid
    alone = start(str(tmp_path / "nobody"), worker, tmp_path / "alone", tmp_path, flags=flags)
    assert told["argv"][1:] == alone["argv"][1:] == ["--flag=1"]


def test_without_a_server_a_worker_starts_by_itself(worker: Path, tmp_path: Path) -> None:
    told = start(str(tmp_path / "nobody"), worker, tmp_path / "told", tmp_path)
    assert (told["parent"], told["was_imported"]) == (os.getpid(), False)


def test_a_worker_of_another_job_starts_by_itself(server, worker: Path, tmp_path: Path) -> None:
    running = server("colorsys")
    running.ray_runs()
    assert start(running.path, worker, tmp_path / "other", tmp_path, job="02")["was_imported"] is False
    assert start(running.path, worker, tmp_path / "own", tmp_path)["parent"] == running.process.pid


def test_who_comes_before_ray_is_known_waits(server, worker: Path, tmp_path: Path) -> None:
    running = server("colorsys")
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(start, running.path, worker, tmp_path / "early", tmp_path)
        with pytest.raises(TimeoutError):
            early.result(timeout=0.5)
        running.ray_runs()
        assert early.result(timeout=60)["parent"] == running.process.pid


def test_a_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    sleep = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    (tmp_path / "threaded.py").write_text(f"import threading, time\n{sleep}")
    (tmp_path / "own").mkdir()
    command = [sys.executable, SCRIPT, "serve", str(tmp_path / "own" / "s"), "threaded"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = json.dumps({"environ": {}, "modules": []}) + "\n"
    done = subprocess.run(command, env=environ, input=told, capture_output=True, text=True, timeout=60)
    assert "2 threads after the imports; workers start by themselves" in done.stderr
    assert not (tmp_path / "own").exists()


def test_a_process_that_has_started_cuda_is_not_forked(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("class cuda:\n    is_initialized = staticmethod(lambda: True)\n")
    told = json.dumps({"environ": {"RAY_JOB_ID": "01", "RAY_RAYLET_PID": str(os.getpid())}, "modules": []})
    done = subprocess.run(
        [sys.executable, SCRIPT, "serve", str(tmp_path / "s"), "torch"],
        input=told + "\n", env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert "CUDA was touched by the imports; workers start by themselves" in done.stderr


@pytest.mark.parametrize(("target", "touched"), [("/dev/nvidiactl", True), ("/dev/dxg", True), ("/dev/null", False)])
def test_open_files_of_a_driver_tell_that_cuda_was_touched(tmp_path: Path, monkeypatch, target, touched) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    (tmp_path / "3").symlink_to(target)
    (tmp_path / "4").touch()
    assert fork_worker._has_touched_cuda(tmp_path) is touched


def test_the_server_ends_with_its_driver_and_leaves_nothing(server) -> None:
    running = server("colorsys")
    running.process.stdin.close()
    assert running.process.wait(timeout=60) == 0
    assert not Path(running.path).parent.exists()


def test_the_server_ends_with_its_ray(server) -> None:
    running = server("colorsys")
    with subprocess.Popen(["sleep", "60"]) as raylet:
        running.ray_runs(raylet=raylet.pid)
        raylet.kill()
    assert running.process.wait(timeout=60) == 0


def test_children_draw_different_ids(server, tmp_path: Path) -> None:
    """Equal ids would be one placement group, one actor to Ray: each would end the other's."""
    draw = "f'{os.getppid()} {ray.PlacementGroupID.of(ray.JobID.from_int(1)).hex()}'"
    worker = tmp_path / "draw.py"
    worker.write_text(f"import os, pathlib, ray, sys\npathlib.Path(sys.argv[1]).write_text({draw})\n")
    running = server("json")
    running.ray_runs(*WITH_RAY)
    drawn = set()
    for number in range(3):
        told = tmp_path / f"drawn{number}"
        environ = {**os.environ, "RAY_JOB_ID": "01", "RAY_RAYLET_PID": str(os.getpid())}
        fork_worker_command = [sys.executable, "-I", "-S", SCRIPT, running.path, str(worker), str(told)]
        subprocess.run(fork_worker_command, cwd=tmp_path, env=environ, check=True, timeout=60)
        wait_for(lambda told=told: told.exists() and told.read_text() != "")
        parent, drawn_id = told.read_text().split()
        assert int(parent) == running.process.pid
        drawn.add(drawn_id)
    assert len(drawn) == 3


def test_forking_can_be_switched_off(monkeypatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    assert ForkServer.start({}) is None


@pytest.fixture
def called(monkeypatch) -> Iterator[Callable[..., ForkServer]]:
    """Start a server as the driver does, which imports these modules; it is ended at the end."""
    started: list[ForkServer] = []

    def start(*modules: str) -> ForkServer:
        monkeypatch.setattr(fork_server, "BEFORE_RAY", modules)
        running = ForkServer.start({})
        assert running is not None
        started.append(running)
        wait_for(Path(f"{running.path}{fork_worker.CALLS}").exists)
        return running

    yield start
    for running in started:
        with contextlib.suppress(OSError):  # ended already
            running.end()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_function_is_called_in_a_fork_with_the_variables_of_the_driver(called, monkeypatch) -> None:
    running = called("transformers", "colorsys")
    monkeypatch.setenv("VARIABLE", "set later")
    assert running.call(partial(os.getenv, "VARIABLE")) == "set later"
    assert running.call(os.getppid) == running.process.pid
    running.ray_runs({"RAY_JOB_ID": "01", "RAY_RAYLET_PID": str(os.getpid())})  # imports Ray
    with pytest.raises(NotServedError):
        while True:
            running.call(os.getpid)


def test_what_a_called_function_raises_is_raised_here(called) -> None:
    with pytest.raises(InputError, match="wrong input"):
        called("transformers").call(partial(refuse, "wrong input"))


def refuse(words: str) -> None:
    raise InputError(words)


def test_a_call_that_dies_is_told_and_the_server_goes_on(called) -> None:
    running = called("transformers")
    with pytest.raises(NotServedError):
        running.call(partial(os._exit, 1))
    assert running.call(os.getppid) == running.process.pid


def test_a_server_that_has_ended_is_not_waited_for(called) -> None:
    running = called("transformers")
    running.process.kill()
    running.process.wait()
    with pytest.raises(NotServedError):
        running.call(os.getpid)


def test_a_server_with_threads_does_not_fork_for_calls(called, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    sleep = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    (tmp_path / "threaded.py").write_text(f"import threading, time\n{sleep}")
    with pytest.raises(NotServedError):
        called("threaded", "transformers").call(os.getpid)


def test_what_is_forked_for_a_call_ends_with_its_server(called) -> None:
    running = called("transformers")
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(running.call, partial(time.sleep, 60))
        wait_for(lambda: children(running.process.pid) != [])
        pid = children(running.process.pid)[0]
        running.end()
        with pytest.raises(StoppedError):
            sleeping.result(timeout=30)
    wait_for(lambda: not Path("/proc", pid).exists())


def test_what_is_forked_for_a_call_ends_with_its_driver(called) -> None:
    running = called("transformers")
    with Client(f"{running.path}{fork_worker.CALLS}", "AF_UNIX") as connection:
        connection.send((dict(os.environ), partial(time.sleep, 60)))
        wait_for(lambda: children(running.process.pid) != [])
        pid = children(running.process.pid)[0]
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
