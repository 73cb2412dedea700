"""A trainer with a choice of how many workers it has: it starts with as many as the nodes that stay have room for."""

from __future__ import annotations

import time
from typing import Any

from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ScalingDecision

from sst2_ray.run.elastic import free_room
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.ray.trainer import Trainer

REPLACE_S = 20.0
"""Workers that are not placed by then are counted anew: their node may have died, and Ray hears of it after 15 s."""

SETTLE_S = 5.0
"""Room for fewer than the most may be all there is, or the workers before have not been cleared away yet."""


class _RoomPolicy(ElasticScalingPolicy):
    """Ray's own counts nodes that are being drained, on which it then places nothing, and waits without end for the fewest."""

    def __init__(self, scaling_config: Any, placement: Placement) -> None:
        super().__init__(scaling_config)
        self._placement = placement
        self._counted_at: float | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        import ray

        self._maybe_send_resource_request()  # an autoscaler is asked for the most, however many there is room for now
        room = min(free_room(ray, self._placement), self._placement.most_workers)
        self._counted_at = self._counted_at or time.monotonic()
        if room < self._placement.most_workers and time.monotonic() - self._counted_at < SETTLE_S:
            return NoopDecision()
        return self._get_resize_decision(max(room, self._placement.num_workers))


class ElasticTrainer(Trainer):
    """`placement` says how many workers, at least and at most."""

    def __init__(self, *args: Any, placement: Placement, **values: Any) -> None:
        super().__init__(*args, **values)
        self._placement = placement

    def _initialize_and_run_controller(self, **values: Any) -> Any:
        # Not public API: Ray has no other place for a scaling policy.
        policy = _RoomPolicy(self.scaling_config, self._placement)
        return super()._initialize_and_run_controller(**{**values, "scaling_policy": policy})
