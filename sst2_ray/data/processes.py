"""Work on millions of texts by several processes: what Python does with them takes one core otherwise.

Not `multiprocessing`'s pools: those that do not fork run the user's script again, which may have no `__main__` guard, and
a process that has threads is not forked.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from typing import TypeVar

from sst2_ray.cgroups import num_usable_cpus
from sst2_ray.data.columns import PIECE
from sst2_ray.data.texts import Text

R = TypeVar("R")

ROWS_A_PROCESS = 100_000
"""Texts for which a process is worth its start of half a second."""

MOST_PROCESSES = 32
"""More would wait for the one that hands the texts out and takes what they come to."""

_LOST = (EOFError, OSError)
"""What a process that ended early is known by."""


def map_pieces(work: Callable[[Sequence[Text]], R], texts: Sequence[Text]) -> Iterator[R]:
    """Yield what `work` makes of the texts, `PIECE` at a time, in their order.

    Args:
        work: A function of a module, or a `partial` of one, and its results can be pickled: of many texts several processes
            call it.
        texts: [N]
    """
    starts = range(0, len(texts), PIECE)
    num_processes = min(num_usable_cpus(), MOST_PROCESSES, len(texts) // ROWS_A_PROCESS)
    if num_processes < 2:
        for start in starts:
            yield work(texts[start : start + PIECE])
        return
    with contextlib.ExitStack() as stack:
        idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for _ in range(num_processes):
            idle.put(stack.enter_context(_process(work)))

        def done(start: int) -> R:
            some, process = texts[start : start + PIECE], idle.get()
            try:
                process.send(some)
                result: R = process.recv()
            except _LOST:  # killed, for its memory perhaps
                return work(some)
            finally:
                idle.put(process)
            return result

        threads = stack.enter_context(ThreadPoolExecutor(num_processes))
        # Twice as many as there are processes: none waits for its next piece, and no more texts are in memory than that.
        coming = [threads.submit(done, start) for start in starts[: 2 * num_processes]]
        for following in [*starts[2 * num_processes :], *[None] * len(coming)]:
            yield coming.pop(0).result()
            if following is not None:
                coming.append(threads.submit(done, following))


@contextlib.contextmanager
def _process(work: Callable[[Sequence[Text]], object]) -> Iterator[Connection]:
    """Start a process that works on what it is sent, until the connection closes."""
    here, there = Pipe()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folder or os.curdir for folder in sys.path),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({there.fileno()})"],
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
        env=environment,
        process_group=0,  # Ctrl-C is for the driver, which then closes the connection
    ):
        there.close()
        with here:
            with contextlib.suppress(*_LOST):
                here.send(work)
            yield here


def serve(file: int) -> None:
    """Work on what comes through an open file until its other end closes."""
    with Connection(file) as driver, contextlib.suppress(*_LOST):
        work = driver.recv()
        while True:
            driver.send(work(driver.recv()))
