"""Threads that compute batches side by side on a CPU.

Two threads that share every operation wait for each other at its end, and for Python between two of them; here each goes its
own way, and the numbers are those of one thread, however many there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

MOST_LANES = 16
"""Threads that compute batches side by side; more would wait for Python's lock."""


def run_in_lanes(num_lanes: int, compute: Callable[[Iterator[T]], None], batches: Sequence[T]) -> None:
    """Call `compute` once in each of `num_lanes` threads, at most those that torch has here, with the batches that it takes.

    One lane is the calling thread, with all threads of torch's.
    """
    num_threads = torch.get_num_threads()
    num_lanes = min(num_lanes, num_threads)
    if num_lanes == 1:
        compute(iter(batches))
        return
    waiting, lock = iter(batches), threading.Lock()

    def taken() -> Iterator[T]:
        while True:
            with lock:
                try:
                    batch = next(waiting)
                except StopIteration:
                    return
            yield batch

    def lane() -> None:
        torch.set_num_threads(num_threads // num_lanes)
        compute(taken())

    try:
        with ThreadPoolExecutor(num_lanes) as threads:
            for done in [threads.submit(lane) for _ in range(num_lanes)]:
                done.result()
    finally:
        torch.set_num_threads(num_threads)
