"""Processes that write to a results table, and can be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from sst2_ray.results.store.compaction import compact
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import epoch, prediction, trial

ROWS_PER_TRIAL = {"trials": 1, "epochs": 2, "predictions": 400}
"""Rows that a writer writes of each trial; enough predictions for a kill to fall into the middle of them."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.support.writers"])


@dataclass(frozen=True)
class Writer:
    """A running writer, and what it said."""

    name: str
    process: ForkServerProcess
    said: Connection

    def kill(self) -> set[str]:
        """End it with SIGKILL; returns the trials whose writes it had finished."""
        self.process.kill()
        self.process.join()
        done = set()
        while self.said.poll():
            try:
                done.add(self.said.recv())
            except (EOFError, OSError):
                break
        self.said.close()
        return done


def start_writer(storage_path: str, name: str, environment: Mapping[str, str] | None = None) -> Writer:
    """A process that writes trials, epochs and predictions without end, and tells each trial that it has finished."""
    said, say = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(
        target=_write_without_end, args=(storage_path, name, say, dict(environment or {})), daemon=True
    )
    process.start()
    say.close()
    return Writer(name=name, process=process, said=said)


def start_compactor(storage_path: str, environment: Mapping[str, str] | None = None) -> Writer:
    """A process that compacts and prunes without end."""
    said, say = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(
        target=_compact_without_end, args=(storage_path, say, dict(environment or {})), daemon=True
    )
    process.start()
    say.close()
    return Writer(name="compactor", process=process, said=said)


def let_run(writers: list[Writer], rng: random.Random, longest_s: float) -> None:
    """Wait until the first of them has done something, then a random time more."""
    wait([writer.said for writer in writers], timeout=300)
    wait([], timeout=rng.uniform(0, longest_s))


def _write_without_end(storage_path: str, name: str, say: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    table = ResultsTable(storage_path)
    number = 0
    while True:
        trial_id = f"{name}-{number}"
        table.write("predictions", [prediction(row, trial_id) for row in range(ROWS_PER_TRIAL["predictions"])])
        table.write("epochs", [epoch(step, trial_id) for step in (100, 200)])
        table.write("trials", [trial(trial_id)])
        say.send(trial_id)
        number += 1


def _compact_without_end(storage_path: str, say: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    table = ResultsTable(storage_path)
    while True:
        for dataset in ("trials", "epochs", "predictions"):
            compact(table, dataset, prune=True)
        say.send("compacted")
