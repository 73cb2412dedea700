"""Threads that compute batches side by side on a CPU.

Two threads that share every operation wait for each other at its end, and for Python between two of them; here each goes its
own way, and the numbers are those of one thread, however many there are.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

MOST_LANES = 16
"""Threads that compute batches side by side; more would wait for Python's lock."""


class Lanes:
    """Threads that each compute batches of their own, without waiting for each other between operations."""

    def __init__(self, num: int) -> None:
        """Prepare `num` threads, at most those that torch has here; 1: the calling thread, with all of torch's."""
        self._before = torch.get_num_threads()
        self._num = min(num, self._before)

    def run(self, compute: Callable[[Iterator[T]], None], batches: Sequence[T]) -> None:
        """Hand out batches; each lane calls `compute` once, with those that it takes."""
        if self._num == 1:
            compute(iter(batches))
            return
        waiting, lock = iter(batches), threading.Lock()

        def taken() -> Iterator[T]:
            while True:
                with lock:
                    some = list(itertools.islice(waiting, 1))
                if not some:
                    return
                yield some[0]

        def lane() -> None:
            torch.set_num_threads(self._before // self._num)
            compute(taken())

        try:
            with ThreadPoolExecutor(self._num) as threads:
                for done in [threads.submit(lane) for _ in range(self._num)]:
                    done.result()
        finally:
            torch.set_num_threads(self._before)
