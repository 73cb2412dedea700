"""Runs of the real job in this process, on a Ray that is told what it has, on small models and data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sst2_ray
from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import prepare_driver
from tests.support.models import modernbert_folder, sbert_folder
from tests.support.reviews import reviews, write_glue_folder

NUM_TRAIN_ROWS, NUM_DEV_ROWS = 310, 25


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of the real job through `sst2_ray.train`, below one storage folder."""

    folder: Path

    @property
    def storage_path(self) -> str:
        return str(self.folder / "runs")

    def config(self, name: str, **values: Any) -> TrainConfig:
        defaults = {
            "model": str(self.folder / "sbert"), "data": str(self.folder / "data"), "batch_size": 16, "epochs": 1,
            "precision": "fp32", "learning_rate": 1e-3, "num_workers": 2, "cpus_per_worker": 1,
            "storage_path": self.storage_path, "name": name,
        }  # fmt: skip
        return TrainConfig(**{**defaults, **values})

    def train(self, name: str, **values: Any) -> sst2_ray.TrainResult:
        return sst2_ray.train(self.config(name, **values), quiet=True)

    def rows(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Return the rows of one run, in the order in which they came about."""
        rows = ResultsTable(self.storage_path).read(kind, experiment=name).to_pylist()
        order = {"trials": "attempt", "epochs": "global_step", "predictions": "row_id"}[kind]
        return sorted(rows, key=lambda row: row[order])


def made_runs(folder: Path) -> Runs:
    """Make a toy SBERT, a toy ModernBERT and data below `folder`."""
    sbert_folder(folder / "sbert")
    modernbert_folder(folder / "modernbert")
    write_glue_folder(folder / "data", reviews(NUM_TRAIN_ROWS), reviews(NUM_DEV_ROWS, topic="play"))
    return Runs(folder)


def started_ray(**resources: Any) -> Iterator[None]:
    """Start Ray on this machine alone, told what it has; take it down at the end."""
    prepare_driver()
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, **resources)
    try:
        yield
    finally:
        ray.shutdown()
