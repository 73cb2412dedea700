"""The time that an attempt waits for its workers' places, and for machines that are being set up; no cluster is needed for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ControllerError

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError
from sst2_ray.run import launch
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.ray.state import NodesToCome

TIMEOUT = ControllerError(RuntimeError("WorkerGroupStartupTimeoutError: timed out"))
BEING_SET_UP, NOTHING = NodesToCome(num_being_set_up=1), NodesToCome()
REFUSED = NodesToCome(num_requested=2, refusals=("gpu_spot: InsufficientInstanceCapacity",))


class Attempt:
    """Trainers that end as told, one after the other, beside an autoscaler that says as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: list[object], coming: list[NodesToCome]) -> None:
        self.waited_s: list[float] = []
        self.lines: list[str] = []
        ends, coming = list(ends), list(coming)

        def fit(payload: object, placement: object, *, timeout_s: float, number: int) -> object:
            del payload, placement
            assert number == len(self.waited_s)
            self.waited_s.append(timeout_s)
            end = ends.pop(0)
            if isinstance(end, BaseException):
                raise end
            return end

        monkeypatch.setattr(launch, "_fit", fit)
        monkeypatch.setattr(launch, "nodes_to_come", lambda: coming.pop(0))

    def run(self, *, can_scale: bool, timeout_s: float | None = None) -> Any:
        post = SimpleNamespace(remote=lambda _, note: self.lines.append(note.line))
        payload: Any = SimpleNamespace(
            task=SimpleNamespace(config=TrainConfig(placement_timeout_s=timeout_s), trial_id="t"),
            progress_actor=SimpleNamespace(post=post),
        )
        return launch.fit(payload, Placement(num_workers=1, cpus_per_worker=1, use_gpu=True, can_scale=can_scale))


def test_where_machines_are_started_there_is_three_times_as_long_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for can_scale, given, expected in ((False, None, 600), (True, None, 1800), (True, 60.0, 60), (False, 60.0, 60)):
        attempt = Attempt(monkeypatch, ["done"], [])
        assert attempt.run(can_scale=can_scale, timeout_s=given) == "done"
        assert attempt.waited_s == [expected]


def test_an_attempt_is_not_given_up_while_a_machine_is_being_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt(monkeypatch, [TIMEOUT, TIMEOUT, "done"], [BEING_SET_UP, BEING_SET_UP])
    assert attempt.run(can_scale=True) == "done"
    assert attempt.waited_s == [1800, launch.WAIT_ON_S, launch.WAIT_ON_S]
    line = "not placed yet: 1 machine being set up; waiting on beyond --placement-timeout-s 1800"
    assert attempt.lines == [line, line]


def test_a_machine_that_fails_while_it_is_set_up_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt(monkeypatch, [TIMEOUT, TIMEOUT], [BEING_SET_UP, NOTHING])
    with pytest.raises(InfeasibleError, match=r"^the workers were not placed within --placement-timeout-s 1800$"):
        attempt.run(can_scale=True)


def test_a_cloud_that_refuses_every_request_is_not_waited_for_and_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt(monkeypatch, [TIMEOUT], [REFUSED])
    with pytest.raises(InfeasibleError, match=r"machines were refused \(gpu_spot: InsufficientInstanceCapacity\)"):
        attempt.run(can_scale=True)


def test_a_cluster_of_fixed_size_has_no_machines_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InfeasibleError):
        Attempt(monkeypatch, [TIMEOUT], []).run(can_scale=False)


def test_what_is_no_want_of_places_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("another", "Timed out after 61 seconds waiting for clients. 1/2 clients joined."):
        error = ControllerError(RuntimeError(said))
        with pytest.raises(ControllerError):
            Attempt(monkeypatch, [error], [BEING_SET_UP]).run(can_scale=True)
