"""Waiting for work in the background: signals are heard, and a deadline is one."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from sst2_ray.background import in_background, result_of
from sst2_ray.network import within


def test_the_result_of_work_is_returned_and_its_error_raised() -> None:
    assert result_of(in_background(lambda: 7, "seven")) == 7
    with pytest.raises(KeyError, match="x"):
        result_of(in_background(lambda: {}["x"], "none"))


def test_work_that_takes_longer_is_not_waited_for() -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 1 s"):
        within(0.7, lambda: time.sleep(30))
    assert time.monotonic() - begin < 5


def test_a_signal_that_another_thread_receives_ends_the_wait() -> None:
    """The same as one that arrives just before the wait begins: nothing wakes the thread that waits."""

    def interrupt() -> None:
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        begin = time.monotonic()
        in_background(interrupt, "interrupt")
        with pytest.raises(KeyboardInterrupt):
            result_of(in_background(lambda: time.sleep(30), "long"))
        assert time.monotonic() - begin < 5
    finally:
        signal.signal(signal.SIGINT, before)
