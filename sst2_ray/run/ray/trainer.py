"""Ray's trainer as every attempt uses it: without helpers that no run needs, and with a choice of how many workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ScalingDecision
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_UNUSED = (
    # An actor that hands out shards of Ray Data's datasets: the workers get their tokens from the object store.
    "DatasetsCallback",
    # An actor that gives the workers' places back if the controller dies: the monitor does so. The end of every run
    # waits for its look, once a second.
    "PlacementGroupCleanerCallback",
)
"""Callbacks that cost a process each."""

REPLACE_S = 20.0
"""Workers that are not placed by then are counted anew: their node may have died, and Ray hears of it after 15 s."""

SETTLE_S = 5.0
"""Less room than for the most workers may be all there is, or the workers before have not been cleared away yet."""


class Trainer(DataParallelTrainer):
    """A TorchTrainer, but for the import of torch, that starts fewer helper processes."""

    def _create_default_callbacks(self) -> list[Any]:
        # A Ray that names them otherwise starts them, and works as well.
        return [callback for callback in super()._create_default_callbacks() if type(callback).__name__ not in _UNUSED]


class ElasticTrainer(Trainer):
    """A trainer that starts with as many workers, between `num_workers`' bounds, as the nodes that stay have room for."""

    def __init__(self, *args: Any, room: Callable[[], int], **values: Any) -> None:
        """Make the trainer. `room`: counts the workers that could be placed now."""
        super().__init__(*args, **values)
        self._room = room

    def _initialize_and_run_controller(self, **values: Any) -> Any:
        # Ray has no other place for a scaling policy.
        policy = _RoomPolicy(self.scaling_config, self._room)
        return super()._initialize_and_run_controller(**{**values, "scaling_policy": policy})


class _RoomPolicy(ElasticScalingPolicy):
    """A scaling policy that counts room itself.

    Ray's own counts nodes that are being drained, on which it then places nothing, and waits without end for the fewest.
    """

    def __init__(self, scaling_config: Any, room: Callable[[], int]) -> None:
        super().__init__(scaling_config)
        self._fewest, self._most = scaling_config.min_workers, scaling_config.max_workers
        self._room = room
        self._counted_at: float | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start with as many workers as there is room for, or wait a little for more room."""
        self._maybe_send_resource_request()  # an autoscaler is asked for the most, however many there is room for now
        room = min(self._room(), self._most)
        self._counted_at = self._counted_at or time.monotonic()
        if room < self._most and time.monotonic() - self._counted_at < SETTLE_S:
            return NoopDecision()
        return self._get_resize_decision(max(room, self._fewest))
