"""RAY_ADDRESS: whether anything answers there as a Ray head is known within seconds, in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from sst2_ray.errors import InputError
from sst2_ray.run import connect
from sst2_ray.run.connect import check_cluster, check_head, start_ray
from sst2_ray.run.ray import state

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("", 0)) as listening:  # Ray looks for a loopback address at the outward one
        yield listening


def address_of(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


def answer_with(listening: socket.socket, data: bytes) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        connection.recv(64)
        connection.sendall(data)
        connection.close()

    threading.Thread(target=serve, daemon=True).start()


def test_a_head_that_is_not_there_is_known_at_once() -> None:
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"^RAY_ADDRESS 127\.0\.0\.1:1: no Ray head answers there"):
        check_head("127.0.0.1:1")
    assert time.monotonic() - begin < connect.HEAD_ANSWERS_WITHIN_S  # refused, not waited for


def test_a_server_that_accepts_and_says_nothing_is_no_head(
    monkeypatch: pytest.MonkeyPatch, server: socket.socket
) -> None:
    monkeypatch.setattr(connect, "HEAD_ANSWERS_WITHIN_S", 0.5)
    with pytest.raises(InputError, match="did not answer within"):
        check_head(address_of(server))


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_server_of_another_kind_is_no_head(server: socket.socket, data: bytes) -> None:
    answer_with(server, data)
    with pytest.raises(InputError, match="what answers there is not a Ray head"):
        check_head(address_of(server))


def test_a_server_that_speaks_grpc_may_be_a_head(server: socket.socket) -> None:
    answer_with(server, bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    check_head(address_of(server))


def test_a_grpc_server_that_knows_nothing_of_ray_is_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    monkeypatch.setattr(state, "head_address", lambda address: address)
    server.start()
    begin = time.monotonic()
    try:
        with pytest.raises(InputError, match="what answers there is not a Ray head"):
            start_ray()
    finally:
        server.stop(0)
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "127.0.0.1:99999", "h" * 80 + ":6379"])
def test_what_is_no_address_is_said_to_be_none(address: str) -> None:
    with pytest.raises(InputError, match="is not HOST:PORT"):
        check_head(address)


@pytest.mark.parametrize(
    ("address", "why"),
    [("ray://head:10001", "Ray Client cannot run this job"), ("http://head:8265", "this is a job server")],
)
def test_an_address_of_another_service_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=rf"^RAY_ADDRESS {address}: {why}; .*submit"):
        start_ray()


def test_a_name_that_no_server_resolves_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "HEAD_ANSWERS_WITHIN_S", 0.2)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: time.sleep(5))
    begin = time.monotonic()
    with pytest.raises(InputError, match="did not answer within"):
        check_head("head:6379")
    assert time.monotonic() - begin < 3


def test_auto_without_a_ray_on_this_machine_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(state, "head_address", lambda _: None)
    with pytest.raises(InputError, match=r"^RAY_ADDRESS auto: no Ray runs on this machine"):
        check_cluster()


def test_auto_of_a_ray_that_has_ended_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a Ray that has ended may have been left behind."""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(state, "head_address", lambda _: "127.0.0.1:1")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS auto: no Ray head answers there"):
        check_cluster()


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_command_on_a_dead_head_ends_in_one_line(tmp_path: Path, command: str, dry: bool) -> None:
    words = [command, *(["--dry-run"] if dry else [])]
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sst2_ray", *words],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: RAY_ADDRESS 127.0.0.1:1: no Ray head answers there")
    assert time.monotonic() - begin < 15
    assert not list(tmp_path.iterdir())
