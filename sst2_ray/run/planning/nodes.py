"""The nodes that workers can be placed on: this machine alone, or those of a cluster."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from sst2_ray.cgroups import num_usable_cpus
from sst2_ray.errors import InputError
from sst2_ray.run.planning.placement import ClusterView, Node
from sst2_ray.run.ray.node_types import NodeGroup
from sst2_ray.run.ray.state import free_by_node, node_groups

CHIP_RESOURCE = "accelerator_type:"
"""Prefix of the resource by which Ray names a node's accelerators."""

_MOST_ON_DEMAND = 64
"""Machines that a plan may count on where no cluster says how many there can be."""


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
