"""A TorchTrainer without those of Ray's helpers that a run here has no use for: a process less for each, on every node."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer

_UNUSED = (
    # An actor that hands out shards of Ray Data's datasets: the workers get their tokens from the object store.
    "DatasetsCallback",
    # An actor that gives the workers' places back where the controller died: `WatchedFit` does so. The end of every run
    # waits for its look, once a second.
    "PlacementGroupCleanerCallback",
)


class Trainer(TorchTrainer):
    """What every run's attempts are trained by."""

    def _create_default_callbacks(self) -> list[Any]:
        # Not public API: a Ray that names them otherwise starts them, and works as well.
        return [callback for callback in super()._create_default_callbacks() if type(callback).__name__ not in _UNUSED]
