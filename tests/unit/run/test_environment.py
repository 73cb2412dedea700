"""Which Ray a command runs on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sst2_ray.run.connect import starts_ray_here
from sst2_ray.run.environment import yielding_children


@pytest.mark.parametrize(
    ("address", "expected"), [(None, True), ("", True), ("local", True), ("auto", False), ("10.0.0.1:6379", False)]
)
def test_ray_starts_here_unless_a_cluster_is_named(monkeypatch, address, expected):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert starts_ray_here() is expected


linux = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="scheduling policies are Linux's")


def policies(code):
    """What a fresh process with `code` prints."""
    code = "import os; from sst2_ray.run import environment as e\n" + code
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return [int(word) for word in told.split()]


@linux
def test_what_ray_starts_yields_to_threads_that_compute():
    with yielding_children():
        told = policies("print(os.sched_getscheduler(0)); e.compute_at_once(); print(os.sched_getscheduler(0))")
    assert told == [os.SCHED_BATCH, os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@linux
def test_a_policy_that_the_user_chose_stays():
    told = policies(
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
        "with e.yielding_children(): print(os.sched_getscheduler(0))\n"
        "e.compute_at_once(); print(os.sched_getscheduler(0))"
    )
    assert told == [os.SCHED_IDLE, os.SCHED_IDLE]
