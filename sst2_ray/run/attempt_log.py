"""What is kept of a trial's attempts: a row of the results table, and a mark below the run, for each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from sst2_ray.errors import FailureClass, RunFailedError
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.provenance import collect_provenance
from sst2_ray.storage import Storage


def now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


class Attempts:
    """identity: the columns that say which trial it is. say: tells a line."""

    def __init__(
        self,
        table: ResultsTable,
        run_storage: Storage,
        identity: dict[str, Any],
        *,
        world_size: int,
        say: Callable[[str], None],
    ) -> None:
        self.table, self.run_storage, self.say = table, run_storage, say
        self.values = {**identity, **collect_provenance(), "world_size": world_size}

    def close_orphans(
        self,
        message: str = "its driver ended without a word",
        failure_class: FailureClass = FailureClass.WORKER_LOST,
        status: Status = Status.LOST,
    ) -> int:
        """Close earlier attempts that never ended; returns the number of the next attempt."""
        marks = [n for n in self.run_storage.list("attempts") if n.endswith(".json")]
        for name in marks:
            attempt, mark = int(name[:-5]), self.run_storage.read_json(f"attempts/{name}")
            if mark["status"] == Status.RUNNING and not self._has_ended(attempt):
                started = dt.datetime.fromisoformat(mark["started_at"])
                self.write(attempt, status, started, failure_class=failure_class, failure_message=message)
        return len(marks)

    def _has_ended(self, attempt: int) -> bool:
        """Whether the table says so: on a full disk there may have been room for the row and none for the mark."""
        rows = self.table.read(
            "trials",
            columns=["attempt", "status"],
            experiment=self.values["experiment"],
            trial_ids=[self.values["trial_id"]],
        )
        return any(row["attempt"] == attempt and row["status"] != Status.RUNNING for row in rows.to_pylist())

    def write(self, attempt: int, status: str, started: dt.datetime, **values: Any) -> TrialRecord:
        """A row of the table and the attempt's mark below the run; `values`: columns besides those of every attempt."""
        written = now()
        record = TrialRecord(
            **{
                **self.values,
                **values,
                "attempt": attempt,
                "status": status,
                "written_at": written,
                "started_at": started,
                "ended_at": None if status == Status.RUNNING else written,
            }
        )
        table, storage = self.table, self.run_storage
        if record.failure_class == FailureClass.STORAGE_ERROR:  # its workers have waited for it already
            table, storage = ResultsTable(table.storage_path), storage.with_retries(0.0)
        try:
            table.write("trials", [record])
            storage.write_json(f"attempts/{attempt}.json", {"status": status, "started_at": started.isoformat()})
        except (OSError, RunFailedError) as error:
            if status != Status.FAILED:
                raise
            # What it failed of says more than that this, too, found the disk full; the next start closes the attempt.
            self.say(f"the failed attempt could not be recorded: {error}")
        return record
