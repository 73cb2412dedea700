"""Work in a thread that nobody has to wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_LOOK_S = 0.5


def in_background(work: Callable[[], T], name: str) -> Future[T]:
    """Run `work` in a daemon thread, which does not hold up the end of the process. `name`: of the thread.

    Returns:
        The result, or what `work` raises, for `result_of`.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def result_of(future: Future[T], timeout_s: float = float("inf")) -> T:
    """Wait for work in the background, and hear signals meanwhile; it goes on where it takes longer.

    A signal that arrives just before a wait, or in another thread, does not end the wait: so none is long.

    Raises:
        TimeoutError: There is no result yet.
        BaseException: What the work has raised.
    """
    deadline = time.monotonic() + timeout_s
    while not futures.wait([future], max(0.0, min(_LOOK_S, deadline - time.monotonic()))).done:
        if time.monotonic() >= deadline:
            raise TimeoutError(f"no answer within {timeout_s:.0f} s")
    return future.result()
