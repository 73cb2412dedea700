"""Tests of what the watcher understands of the clouds' notices."""

from __future__ import annotations

import time

import pytest

from sst2_ray.cluster import spot_watcher
from sst2_ray.cluster.spot_watcher import CLOUDS, find_cloud, main, wait_for_notice
from tests.support.clouds import endpoint_of


@pytest.mark.parametrize("name", CLOUDS)
def test_a_notice_is_seen_with_the_seconds_that_are_left(name):
    with endpoint_of(name) as endpoint:
        cloud = find_cloud("auto", endpoint.url)
        assert isinstance(cloud, CLOUDS[name][0])
        assert cloud.seconds_left(time.time()) is None
        endpoint.take(30)
        assert 20 < wait_for_notice(cloud) <= 30


def test_where_no_cloud_answers_there_is_nothing_to_watch(capsys):
    assert main(["--endpoint", "http://127.0.0.1:9"]) == 0
    assert "nothing to watch" in capsys.readouterr().out


def test_an_endpoint_that_fails_for_a_while_is_asked_again(monkeypatch, capsys):
    monkeypatch.setattr(spot_watcher, "POLL_S", 0.01)
    with endpoint_of("gcp") as endpoint:
        cloud = find_cloud("gcp", endpoint.url)
        endpoint.take(30)
        answers = iter([(500, ""), (503, "busy")])
        then = endpoint._gcp
        endpoint._gcp = lambda *words: next(answers, None) or then(*words)
        assert wait_for_notice(cloud) == 30
    assert capsys.readouterr().out.count("gave no usable answer") == 2
