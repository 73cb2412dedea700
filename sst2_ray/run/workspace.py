"""The storage and the results table of a run or a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.storage import Storage, absolute


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Storage and results table of a run or a sweep, opened once by its driver.

    The values pickle: trials and workers in other processes are handed them instead of opening storage again. All retry
    transient storage errors for `--storage-timeout-s`.
    """

    uri: str
    """Storage path that means the same in every folder."""
    storage: Storage
    """Root of the storage path: runs, sweeps and the table lie below it."""
    table: ResultsTable

    @classmethod
    def open(cls, config: TrainConfig) -> Workspace:
        """Open `config.storage_path`. Nothing is read or written. Raises InputError for a scheme that is not known."""
        return cls(
            uri=absolute(config.storage_path),
            storage=Storage.open(config.storage_path).with_retries(config.storage_timeout_s),
            table=ResultsTable(config.storage_path, retry_for_s=config.storage_timeout_s),
        )
