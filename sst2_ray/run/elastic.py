"""Which workers should leave: those on a node that is being drained, and all of them where there is room for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sst2_ray.run.planning.placement import Placement, workers_that_fit


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """Why an attempt gives its workers back. `preempted`: a node goes; otherwise there is room for more workers."""

    preempted: bool
    reason: str


def draining_nodes() -> set[str]:
    """Ids of the nodes that Ray drains: a spot notice, or the autoscaler."""
    from ray._private import state as ray_state

    # Not public API; without it a node that goes is a node that was lost.
    try:
        return set(ray_state.state.get_draining_nodes())
    except Exception:
        return set()


def free_room(ray: Any, placement: Placement) -> int:
    """Workers that could be placed at once beside those that run."""
    from ray._private import state as ray_state

    going = draining_nodes()
    try:
        free = ray_state.available_resources_per_node()
    except Exception:
        return 0
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going]
    nodes = [(free[n].get("CPU", 0.0), free[n].get("GPU", 0.0)) for n in alive if n in free]
    return workers_that_fit(nodes, placement)


class Elasticity:
    """Asked now and then while an attempt runs."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self._had_room = False

    def why_leave(self, ray: Any, workers: list[dict[str, Any]]) -> Leaving | None:
        """`workers`: what each rank said of its node; nobody leaves before all have said it."""
        if not workers or len(workers) < workers[0]["world_size"]:
            return None
        going = [w for w in workers if w["node"] in draining_nodes()]
        if going:
            where = ", ".join(sorted({str(w["address"]) for w in going}))
            return Leaving(preempted=True, reason=f"node {where} is taken away")
        room = free_room(ray, self.placement) if len(workers) < self.placement.most_workers else 0
        # Seen twice: what another run has just given back or is about to take is no room.
        had_room, self._had_room = self._had_room, room > 0
        if room and had_room:
            return Leaving(preempted=False, reason=f"there is room for {room} more worker{'s' if room != 1 else ''}")
        return None
