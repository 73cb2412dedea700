"""The way to a job server: the address that was given, no proxy for loopback, a deadline on every call, bytes of any kind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sst2_ray.cluster import ray_private
from sst2_ray.cluster.submit import command as submit
from sst2_ray.cluster.submit.client import connect, list_jobs
from sst2_ray.cluster.submit.follow import Follower
from sst2_ray.errors import InputError, RunFailedError
from tests.support.waiting import waited


class Server:
    """A job server on loopback that answers GET from `answers` (a path's beginning -> JSON) and keeps every path that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, object] = {
            "/api/version": {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"},
            "/api/jobs/": [],
        }
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                found = [answer for path, answer in outer.answers.items() if self.path.startswith(path)]
                body = found[-1] if found else None
                self.send_response(500 if found and body is None else 200 if found else 404)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """Yield two job servers; no token, no proxy and no address of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("RAY_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = [Server(), Server()]
    yield made
    for server in made:
        server.server.shutdown()
        server.server.server_close()


@pytest.mark.parametrize("variable", ray_private.ADDRESS_VARIABLES)
def test_the_address_that_was_given_is_asked_and_not_that_of_the_environment(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    given, other = servers
    monkeypatch.setenv(variable, other.url)
    assert list_jobs(connect(given.url)) == []
    assert set(given.asked) == {"/api/version", "/api/jobs/"} and other.asked == []
    assert os.environ[variable] == other.url


def test_an_address_in_the_environment_that_differs_is_said_to_be_ignored(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, other = servers
    (tmp_path / "a.py").write_text("1")
    monkeypatch.setenv("RAY_ADDRESS", other.url)
    argv = ["--address", given.url, "--working-dir", str(tmp_path), "--dry-run", "--", "python", "a.py"]
    assert submit.main(argv) == 0
    assert f"RAY_ADDRESS={other.url} is ignored: {given.url} was given" in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", given.url)
    assert submit.main(argv) == 0
    assert "ignored" not in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_never_asked_for_loopback(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    given, proxy = servers
    monkeypatch.setenv(variable, proxy.url)
    client = connect(given.url)
    given.answers["/api/v0/nodes"] = {"data": {"result": {"result": [{"resources_total": {"CPU": 4.0}}]}}}
    assert list_jobs(client) == [] and ray_private.node_totals(client) == [{"CPU": 4.0}]
    assert proxy.asked == []


def test_a_server_that_accepts_and_says_nothing_is_one_line_within_its_deadline(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    del servers
    assert ray_private.CONNECT_TIMEOUT_S + ray_private.ANSWER_TIMEOUT_S < 15
    monkeypatch.setattr(ray_private, "ANSWER_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(InputError, match=r"no job server answers \(.*timed out.*is the cluster up") as refused:
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 5 and "\n" not in str(refused.value)


def test_an_answer_that_comes_byte_by_byte_has_a_deadline_as_a_whole(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    del servers
    monkeypatch.setattr(ray_private, "CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(ray_private, "ANSWER_TIMEOUT_S", 0.7)

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with contextlib.suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        started = time.monotonic()
        with pytest.raises(InputError, match=r"no job server answers \(no answer within 1 s\)"):
            connect(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert time.monotonic() - started < 5


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(InputError, match="no job server answers") as refused:
        connect("http://me:" + "hunter2@127.0.0.1:1")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("nonsense", [None, b"<html>", [1, 2], {}, {"version": 7}, 3])
def test_a_server_that_answers_nonsense_is_one_line(servers: list[Server], nonsense: object) -> None:
    server = servers[0]
    server.answers["/api/version"] = nonsense
    with pytest.raises(InputError, match=r"no job server answers \(.*is the cluster up") as refused:
        connect(server.url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("nonsense", [None, b"<html>", [1, 2], {}, {"version": 7}, 3])
def test_nonsense_about_jobs_is_one_line_at_every_call(servers: list[Server], nonsense: object) -> None:
    server = servers[0]
    client = connect(server.url)
    server.answers["/api/jobs/"] = nonsense if nonsense != {} else {"a": 1}
    with pytest.raises(InputError, match="does not list its jobs"):
        list_jobs(client)
    follower = Follower(
        client=client, job_id="sst2-1", emit=print, say=lambda _: None, demand={}, pending_timeout_s=1, reconnect_timeout_s=0.1,
    )  # fmt: skip
    with pytest.raises(RunFailedError) as failed:
        follower.follow()
    assert "\n" not in str(failed.value)


def test_bytes_that_are_not_utf8_are_shown_replaced_and_counted_as_ray_counts(servers: list[Server]) -> None:
    server = servers[0]
    client = connect(server.url)
    server.answers["/api/jobs/sst2-1"] = {
        "type": "SUBMISSION", "submission_id": "sst2-1", "status": "RUNNING", "entrypoint": "x", "driver_node_id": "ab",
    }  # fmt: skip
    server.answers["/api/jobs/sst2-1/logs"] = None
    server.answers["/api/v0/logs/file?submission_id=sst2-1&node_id=ab&lines=-1"] = b"one\r\ntwo \xff\xfe\rthree\n"
    shown: list[str] = []
    follower = Follower(
        client=client,
        job_id="sst2-1",
        emit=shown.append,
        say=print,
        demand={},
        pending_timeout_s=1,
        reconnect_timeout_s=1,
    )
    assert follower._read_log() == "one\ntwo ��\nthree\n"


SILENT = """
    import socket, sys, time
    from sst2_ray.cluster.submit import command
    from sst2_ray.config.flags import run_main
    sys.exit(run_main(command.main, sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_submit_with_5_while_a_server_keeps_it_waiting(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SILENT), "--address", address, "--working-dir", str(tmp_path), "--", "python", "a.py"],
            stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        )  # fmt: skip
        accepted, _ = silent.accept()
        process.send_signal(number)
        _, said = process.communicate(timeout=10)
        accepted.close()
    assert process.returncode == 5 and "Traceback" not in said


FAKE_SSH = """\
#!{python}
import socket, sys
assert sys.argv[-1] == "cat", sys.argv
port = int(sys.argv[sys.argv.index("-L") + 1].split(":")[1])
with socket.create_server(("127.0.0.1", port)):
    sys.stdin.read()
"""
TUNNEL = """
    import sys, time
    from sst2_ray.cluster.ssh import Host, Tunnel
    tunnel = Tunnel(Host(address="h", user="u"))
    tunnel.ensure()
    print(tunnel.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_tunnel_ends_with_its_process_however_that_ends(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text(FAKE_SSH.format(python=sys.executable))
    (tmp_path / "ssh").chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TUNNEL)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(number)
    process.wait()
    process.stdout.close()

    def ended() -> bool | None:
        state = Path(f"/proc/{pid}/stat")
        return True if not state.exists() or state.read_text().split()[2] == "Z" else None

    assert waited(ended, "the end of ssh", 10)
