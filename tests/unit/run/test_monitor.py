"""Tests of what the driver learns from the progress actor and about Ray's head."""

from __future__ import annotations

import socket

import pytest

from sst2_ray.run.liveness import RECONNECT_VARIABLE, Head
from sst2_ray.run.messages import Note
from sst2_ray.run.progress_actor import ProgressActor


def lines_of(actor: ProgressActor, seen: int) -> list[str]:
    return [event.line for _, event in actor.read("trial", seen).events]


def test_a_progress_actor_that_was_started_again_tells_what_it_hears_from_then_on():
    first = ProgressActor({"HF_TOKEN": "secret"})
    first.open("trial")
    for line in "abc":
        first.post("trial", Note(line=line))
    assert lines_of(first, 0) == ["a", "b", "c"]
    seen = first.read("trial", 0).events[-1][0]
    again = ProgressActor({"HF_TOKEN": "secret"})
    assert lines_of(again, seen) == []
    again.post("trial", Note(line="d"))
    assert lines_of(again, seen) == ["d"]
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
