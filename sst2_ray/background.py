"""Work in other threads: one that nobody has to wait for, several that share a list of items."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_LOOK_S = 0.5

MOST_THREADS = 16
"""Threads that share a list of batches to compute; more would wait for Python's lock."""


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


def share_out(items: Sequence[T], work: Callable[[Iterator[T]], None], num_threads: int) -> None:
    """Call `work` once in each of `num_threads` threads, with an iterator over the items that this thread takes.

    One thread is the calling one.

    Raises:
        BaseException: What the work has raised, when all threads have ended.
    """
    if num_threads == 1:
        work(iter(items))
        return
    waiting, lock = iter(items), threading.Lock()

    def taken() -> Iterator[T]:
        while True:
            with lock:
                try:
                    item = next(waiting)
                except StopIteration:
                    return
            yield item

    with ThreadPoolExecutor(num_threads) as threads:
        for done in [threads.submit(work, taken()) for _ in range(num_threads)]:
            done.result()
