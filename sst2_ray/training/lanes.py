"""Threads that compute batches side by side on a CPU.

Two threads that share every operation wait for each other at its end, and for Python between two of them; here each goes its
own way, and the numbers are those of one thread, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from sst2_ray.background import share_out

T = TypeVar("T")


def run_in_lanes(num_lanes: int, compute: Callable[[Iterator[T]], None], batches: Sequence[T]) -> None:
    """Call `compute` once in each of `num_lanes` threads, at most those that torch has here, with the batches that it takes.

    One lane is the calling thread, with all threads of torch's.
    """
    num_threads = torch.get_num_threads()
    num_lanes = min(num_lanes, num_threads)

    def lane(taken: Iterator[T]) -> None:
        torch.set_num_threads(num_threads // num_lanes)
        compute(taken)

    try:
        share_out(batches, lane, num_lanes)
    finally:
        torch.set_num_threads(num_threads)
