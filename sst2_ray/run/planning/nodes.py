"""The nodes that workers can be placed on: this machine alone, or those of a cluster."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sst2_ray.errors import InputError
from sst2_ray.run.planning.placement import ClusterView, Node
from sst2_ray.run.ray.node_types import NodeGroup
from sst2_ray.run.ray.state import free_by_node, node_groups

CHIP_RESOURCE = "accelerator_type:"
"""Prefix of the resource by which Ray names a node's accelerators."""

_MOST_ON_DEMAND = 64
"""Machines that a plan may count on where no cluster says how many there can be."""

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def told_resources() -> dict[str, float]:
    """Read RAY_OVERRIDE_RESOURCES, Ray's own variable for what a local Ray has. Raises InputError for anything else."""
    said = os.environ.get("RAY_OVERRIDE_RESOURCES") or "{}"
    try:
        return {str(name): float(amount) for name, amount in json.loads(said).items()}
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"RAY_OVERRIDE_RESOURCES {said}: must be a JSON object of amounts, such as '{{\"CPU\": 2}}'; correct or unset it"
        ) from None


def this_machine() -> ClusterView:
    """Return the one node that a local Ray would have, without importing anything for it. Raises InputError."""
    told = told_resources()
    cpus = float(told.get("CPU", num_usable_cpus()))
    gpus = float(told.get("GPU", num_gpus()))
    return ClusterView(nodes=(Node(address="this machine", cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus),))


def num_gpus(devices: Path = Path("/dev")) -> int:
    """Count the NVIDIA GPUs that this process may use: those that CUDA_VISIBLE_DEVICES names, by number or UUID, else all."""
    files = [path for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit()]
    count = len(files) or (_num_gpus_of_driver() if (devices / "dxg").exists() else 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or count == 0:
        return count

    def is_there(name: str) -> bool:
        return int(name) < count if name.isdigit() else name.startswith(("GPU-", "MIG-"))

    # CUDA reads up to the first name that is none. Several slices (MIG) may be of one GPU.
    return len(list(itertools.takewhile(is_there, map(str.strip, visible.split(",")))))


def _num_gpus_of_driver() -> int:
    """Ask NVIDIA's driver: under Windows, GPUs have no device files of their own."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def num_usable_cpus() -> int:
    """Return the whole cores that this process may compute on, at least 1.

    The machine's, less what its affinity (taskset, Slurm) and the quota of its cgroup (a container) leave out.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, cgroup_cpu_quota())))


def cgroup_cpu_quota(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Return the cores that the process's cgroup and those above it grant; infinity where there is no limit."""
    quotas = (_cpu_quota(folder) for folder in _cgroups("cpu", root, own))
    return min((quota for quota in quotas if quota is not None), default=math.inf)


def memory_limit(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """Return the least memory, in bytes, that a cgroup below the topmost one grants; None where none limits it.

    Ray reads the topmost one itself.
    """
    limits = (
        _number(folder / name)
        for folder in _cgroups("memory", root, own)
        if folder not in (root, root / "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    )
    found = min((limit for limit in limits if limit is not None), default=math.inf)
    return int(found) if found < _physical_memory() else None


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yield the process's cgroup folders, innermost first: of version 2 below `root`, of version 1 below `root`/CONTROLLER."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder == top or top in folder.parents)


def _cpu_quota(folder: Path) -> float | None:
    """Read one cgroup's cores: cpu.max (version 2), or cpu.cfs_quota_us and cpu.cfs_period_us (version 1)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota) / float(period) if quota != "max" else None
    except (OSError, ValueError):
        quota_us, period_us = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _number(file: Path) -> int | None:
    """Read a file of a cgroup; None where it holds no number."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def machines_on_demand(chip: str, gpus_per_node: int) -> ClusterView:
    """Return a cluster whose autoscaler would start machines with accelerators of this kind, 8 cores for each."""
    return ClusterView(
        nodes=(), node_types=((8.0 * gpus_per_node, gpus_per_node, _MOST_ON_DEMAND),), chips_to_come=(chip,)
    )


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
                    chip=_chip(total),
                )
            )
    groups = node_groups()
    return ClusterView(
        nodes=tuple(nodes),
        node_types=addable_types(groups, nodes),
        autoscales=bool(groups),
        chips_to_come=tuple(chip for chip in (_chip(group.resources) for group in groups) if chip),
    )


def _chip(resources: Mapping[str, float]) -> str:
    """Return the accelerator that a node's resources name; empty where they name none."""
    named = (name.removeprefix(CHIP_RESOURCE) for name in resources if name.startswith(CHIP_RESOURCE))
    return next(named, "")


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
