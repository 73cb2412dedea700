"""Which Ray a command runs on."""

from __future__ import annotations

import pytest

from sst2_ray.launch.environment import starts_ray_here


@pytest.mark.parametrize(
    ("address", "expected"), [(None, True), ("", True), ("local", True), ("auto", False), ("10.0.0.1:6379", False)]
)
def test_ray_starts_here_unless_a_cluster_is_named(monkeypatch, address, expected):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert starts_ray_here() is expected
