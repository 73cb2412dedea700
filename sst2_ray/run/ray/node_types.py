"""Node types that `ray up`'s autoscaler may add, read where it reads them: Ray tells them to nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""File that `ray up` leaves on the head for the autoscaler; drivers of jobs run there as well. JSON, despite its name."""


@dataclass(frozen=True, kw_only=True)
class NodeGroup:
    """A group of nodes of one type."""

    name: str
    resources: Mapping[str, float]
    """Resources of one node: CPU, GPU, memory, ..."""
    max_count: int
    """Most nodes of this type, those included that are there already."""


def declared_groups(path: Path = BOOTSTRAP_FILE) -> tuple[NodeGroup, ...]:
    """Read the groups of worker nodes, those first that the autoscaler prefers.

    Together they never have more nodes than the file's `max_workers`. None where this is not the head of a `ray up`
    cluster, and for machines of one's own: none can be added.
    """
    try:
        config = json.loads(path.expanduser().read_text(encoding="utf-8"))
        types, head = config["available_node_types"], config["head_node_type"]
        if config["provider"]["type"] == "local":
            return ()
        room = int(config["max_workers"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # RuntimeError: there is no home
        return ()
    groups = []
    for name, node_type in sorted(types.items(), key=lambda item: -int(item[1].get("priority") or 0)):
        count = min(int(node_type.get("max_workers") or 0), room)
        if name != head and count > 0:
            room -= count
            groups.append(NodeGroup(name=name, resources=dict(node_type.get("resources") or {}), max_count=count))
    return tuple(groups)
