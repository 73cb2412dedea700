"""Reasons for the workers of an attempt to leave: their node is being drained, or there is room for more of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.run.messages import NodeFacts
from sst2_ray.run.planning.placement import Placement, workers_that_fit
from sst2_ray.run.ray.state import draining_nodes, free_by_node


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """The reason for which an attempt gives its workers back, to go on elsewhere."""

    preempted: bool
    """True: a node goes; False: there is room for more workers."""
    reason: str


def free_room(placement: Placement) -> int:
    """Count the workers that could be placed now beside those that run."""
    import ray

    going, free = draining_nodes(), free_by_node()
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going]
    nodes = [(free[n].get("CPU", 0.0), free[n].get("GPU", 0.0)) for n in alive if n in free]
    return workers_that_fit(nodes, placement)


class Elasticity:
    """Decides now and then, while an attempt runs, whether another placement would be better."""

    def __init__(self, placement: Placement) -> None:
        """Begin with an attempt. `placement`: says how many workers it may have at most."""
        self.placement = placement
        self._had_room = False

    def why_leave(self, workers: Sequence[NodeFacts]) -> Leaving | None:
        """Return the reason to leave, None to stay. `workers`: of the ranks so far; nobody leaves before all are known."""
        if not workers or len(workers) < workers[0].world_size:
            return None
        draining = draining_nodes()
        going = sorted({worker.address for worker in workers if worker.node_id in draining})
        if going:
            return Leaving(preempted=True, reason=f"node {', '.join(going)} is taken away")
        room = free_room(self.placement) if len(workers) < self.placement.most_workers else 0
        # Seen twice: what another run has just given back or is about to take is no room.
        had_room, self._had_room = self._had_room, room > 0
        if room and had_room:
            return Leaving(preempted=False, reason=f"there is room for {formatting.count(room, 'more worker')}")
        return None
