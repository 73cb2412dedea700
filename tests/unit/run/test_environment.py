"""Tests of which Ray a command runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray.errors import InputError
from sst2_ray.run import environment
from sst2_ray.run.connect import starts_ray_here
from sst2_ray.run.environment import worker_env, yielding_children


@pytest.mark.parametrize(
    ("address", "expected"), [(None, True), ("", True), ("local", True), ("auto", False), ("10.0.0.1:6379", False)]
)
def test_ray_starts_here_unless_a_cluster_is_named(monkeypatch, address, expected):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert starts_ray_here() is expected


def test_memory_of_gpus_comes_in_segments_that_grow_unless_the_user_says_otherwise(monkeypatch):
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert worker_env(use_gpu=True)["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_ALLOC_CONF" not in worker_env(use_gpu=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")
    assert "PYTORCH_ALLOC_CONF" not in worker_env(use_gpu=True)


def test_variables_that_no_run_can_bear_are_set_or_dropped(monkeypatch):
    for name in (*environment.ALWAYS, *environment.DROPPED):
        monkeypatch.setenv(name, "7")
    assert environment.ALWAYS.items() <= worker_env(use_gpu=False).items()
    environment.prepare_driver()
    assert environment.ALWAYS.items() <= os.environ.items() and not set(environment.DROPPED) & set(os.environ)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TUNE_MAX_PENDING_TRIALS_PG", "abc", "Ray reads a number there"),
        ("TUNE_FORCE_TRIAL_CLEANUP_S", "10 s", "Ray reads a number there"),
        ("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "1h", "Ray reads a number there"),
        ("RAY_TRAIN_CALLBACKS", "nonsense", "cannot be imported"),
        ("RAY_TRAIN_CALLBACKS", "json.NoSuch", "cannot be imported"),
    ],
)
def test_variables_that_ray_libraries_end_at_are_told_in_one_line(monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{name}={value}: {told}.*unset it$"):
        environment.prepare_driver()


def test_numbers_and_words_of_ray_libraries_pass(monkeypatch):
    good = {
        "TUNE_MAX_PENDING_TRIALS_PG": "auto",
        "TUNE_WARN_THRESHOLD_S": "0.5",
        "TUNE_RESULT_DELIM": "/",
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "-1",
        "RAY_TRAIN_CALLBACKS": "collections.OrderedDict,",
    }
    for name, value in good.items():
        monkeypatch.setenv(name, value)
    environment.prepare_driver()


def test_windows_drivers_have_no_segments_that_grow(monkeypatch):
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.setattr(environment.platform, "release", lambda: "5.15.153.1-microsoft-standard-WSL2")
    assert "PYTORCH_ALLOC_CONF" not in worker_env(use_gpu=True)


linux = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="scheduling policies are Linux's")


def policies(code):
    """Return what a fresh process with `code` prints."""
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


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("", "localhost,127.0.0.1,::1"),
        ("intranet, localhost", "intranet,localhost,127.0.0.1,::1"),
        ("*", "*"),
    ],
)
def test_no_proxy_is_asked_for_this_machine(monkeypatch, proxy, given, left):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    environment.reach_loopback_directly()
    assert "no_proxy" not in os.environ
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, given)
    environment.reach_loopback_directly()
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (left, left)


@pytest.mark.parametrize(
    ("said", "left", "threads"),
    [("4", "4", 4), ("4,2", "4,2", 4), ("0", None, None), ("", None, None), ("abc", None, None), ("4,x", None, None)],
)
def test_a_number_of_threads_that_is_none_is_dropped(monkeypatch, said, left, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    environment.drop_wrong_threads()
    assert (os.environ.get("OMP_NUM_THREADS"), environment.omp_num_threads()) == (left, threads)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take another user id")
def test_a_user_id_that_nobody_has_gets_a_private_home_that_is_deleted():
    code = (  # imports first: the interpreter may lie in a home that others may not enter
        "import getpass, os, pwd; from sst2_ray.run.environment import prepare_driver\n"
        "os.setuid(54321); prepare_driver()\n"
        "print(os.environ['HOME'], oct(os.stat(os.environ['HOME']).st_mode & 0o777), getpass.getuser())"
    )
    names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")
    env = {name: value for name, value in os.environ.items() if name not in names}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    home, mode, user = told.split()
    assert (mode, user) == ("0o700", "uid54321")
    assert not Path(home).exists()
