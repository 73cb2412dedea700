"""A local Ray that is slow to start is waited for while its raylet lives."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from ray._private import services

from sst2_ray.run.ray import state


def answers_after(seconds: float) -> Callable[[str, str], dict[str, str]]:
    begin = time.monotonic()

    def get_node(_: str, node: str) -> dict[str, str]:
        if time.monotonic() < begin + seconds:
            raise RuntimeError("no such node")
        return {"node": node}

    return get_node


def test_a_raylet_that_lives_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = answers_after(0.5)
    monkeypatch.setattr(services, "get_node", slow)
    monkeypatch.setattr(state, "_raylet_lives", lambda: True)
    with state.patient_start():
        assert services.get_node("address", "1") == {"node": "1"}
    assert services.get_node is slow


@pytest.mark.parametrize(("lives", "limit_s"), [(False, 60.0), (True, 0.3)])
def test_one_that_has_ended_or_takes_too_long_is_not(
    monkeypatch: pytest.MonkeyPatch, lives: bool, limit_s: float
) -> None:
    monkeypatch.setattr(services, "get_node", answers_after(30))
    monkeypatch.setattr(state, "_raylet_lives", lambda: lives)
    begin = time.monotonic()
    with state.patient_start(limit_s), pytest.raises(RuntimeError, match="no such node"):
        services.get_node("address", "1")
    assert time.monotonic() - begin < 5
