"""What the driver knows of a run's board and of Ray's head."""

from __future__ import annotations

import socket

import pytest

from sst2_ray.run.monitor import RECONNECT_VARIABLE, Head
from sst2_ray.run.progress_actor import Board


def test_a_board_that_was_started_again_tells_what_it_hears_from_then_on():
    first = Board({"HF_TOKEN": "secret"})
    first.open("trial")
    for line in "abc":
        first.event("trial", "note", line)
    _, events, _ = first.read("trial", 0)
    assert [value for _, _, value in events] == ["a", "b", "c"]
    seen = events[-1][0]
    again = Board({"HF_TOKEN": "secret"})
    assert again.read("trial", seen)[1] == []
    again.event("trial", "note", "d")
    assert [value for _, _, value in again.read("trial", seen)[1]] == ["d"]
    assert again.secrets() == {"HF_TOKEN": "secret"}


def test_a_head_is_silent_from_its_last_answer_on():
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = Head(f"127.0.0.1:{server.getsockname()[1]}")
        assert head.silent_s() == 0
    assert 0 < head.silent_s() < head.silent_s()


@pytest.mark.parametrize(("variable", "lost_after_s"), [(None, 30), ("600", 300)])
def test_the_workers_leave_before_ray_ends_the_driver(monkeypatch, variable, lost_after_s):
    monkeypatch.delenv(RECONNECT_VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(RECONNECT_VARIABLE, variable)
    head = Head("127.0.0.1:6379")
    assert head.lost_after_s == lost_after_s
    assert head.lost_after_s + head.leave_within_s < 2 * lost_after_s
