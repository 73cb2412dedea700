"""The nodes that workers can be placed on: this machine alone, or those of a cluster."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from sst2_ray.run.planning.placement import ClusterView, Node
from sst2_ray.run.ray.node_types import NodeGroup
from sst2_ray.run.ray.state import free_by_node, node_groups

CGROUPS = Path("/sys/fs/cgroup")


def this_machine() -> ClusterView:
    """Return the one node that a local Ray would have, without importing anything for it."""
    told = json.loads(os.environ.get("RAY_OVERRIDE_RESOURCES") or "{}")  # Ray's own variable
    cpus = float(told.get("CPU", num_usable_cpus()))
    gpus = float(told.get("GPU", len([p for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdigit()])))
    return ClusterView(nodes=(Node(address="this machine", cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus),))


def num_usable_cpus() -> int:
    """Return the whole cores that this process may compute on, at least 1.

    The machine's, less what its affinity (taskset, Slurm) and the quota of its cgroup (a container) leave out.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, cgroup_cpu_quota())))


def cgroup_cpu_quota(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the cores that the process's cgroup and those above it grant; infinity where there is no limit."""
    return min((quota for folder in _cgroups(root, own) if (quota := _quota(folder)) is not None), default=math.inf)


def _cgroups(root: Path, own: Path) -> Iterator[Path]:
    """Yield the process's cgroup folders for CPU, innermost first: version 2 below `root`, version 1 below `root`/cpu."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder == top or top in folder.parents)


def _quota(folder: Path) -> float | None:
    """Read one cgroup's cores: cpu.max (version 2), or cpu.cfs_quota_us and cpu.cfs_period_us (version 1)."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None


def cluster_view() -> ClusterView:
    """Return the nodes of the cluster that this process is connected to, and those that its autoscaler may add."""
    import ray

    free = free_by_node()
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            total: dict[str, float] = node["Resources"]
            left = free.get(node["NodeID"], total)
            nodes.append(
                Node(
                    address=node["NodeManagerAddress"],
                    cpus=total.get("CPU", 0.0),
                    gpus=total.get("GPU", 0.0),
                    free_cpus=left.get("CPU", 0.0),
                    free_gpus=left.get("GPU", 0.0),
                    memory_gib=total["memory"] / 2**30 if "memory" in total else None,
                )
            )
    return ClusterView(nodes=tuple(nodes), node_types=addable_types(node_groups(), nodes))


def addable_types(groups: Iterable[NodeGroup], nodes: Iterable[Node]) -> tuple[tuple[float, float, int], ...]:
    """Return (CPUs, GPUs, most nodes) of each type that the autoscaler may still add beside `nodes`.

    A group's maximum includes the nodes that are there already. A node tells its shape, not its group, and is of one only.
    """
    types = []
    there = Counter((node.cpus, node.gpus) for node in nodes)
    for group in groups:
        if group.max_count > 0 and group.resources:
            shape = float(group.resources.get("CPU", 0)), float(group.resources.get("GPU", 0))
            of_this_group = min(group.max_count, there[shape])
            there[shape] -= of_this_group
            if group.max_count > of_this_group:
                types.append((*shape, group.max_count - of_this_group))
    return tuple(types)
