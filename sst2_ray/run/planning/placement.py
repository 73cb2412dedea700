"""Does it fit? Placement is decided, and refused with the arithmetic, before anything is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError, InputError
from sst2_ray.run.ray.node_types import declared_groups


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a cluster, or one that its autoscaler may add."""

    address: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    memory_gib: float | None = None
    """That Ray counts with; None: not known."""


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """What there is, and what an autoscaler may add."""

    nodes: tuple[Node, ...]
    node_types: tuple[tuple[float, float, int], ...] = field(default=())
    """(CPUs, GPUs, most nodes) of each type that the autoscaler may add."""

    @property
    def gpus(self) -> float:
        return sum(n.gpus for n in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What one run asks of the cluster."""

    num_workers: int
    """Fewest, where it may grow."""
    cpus_per_worker: int
    use_gpu: bool
    max_workers: int | None = None
    """None: it does not grow."""

    @property
    def is_elastic(self) -> bool:
        return self.most_workers > self.num_workers

    @property
    def most_workers(self) -> int:
        return self.max_workers or self.num_workers

    @property
    def resources_per_worker(self) -> dict[str, float]:
        return {"CPU": self.cpus_per_worker, **({"GPU": 1} if self.use_gpu else {})}

    def __str__(self) -> str:
        one = f"{self.cpus_per_worker} CPU{'s' if self.cpus_per_worker != 1 else ''}{' and 1 GPU' if self.use_gpu else ''}"
        count = f"{self.num_workers} to {self.max_workers}" if self.is_elastic else f"{self.num_workers}"
        return f"{count} worker{'s' if self.most_workers != 1 else ''} of {one}"


def workers_that_fit(nodes: Sequence[tuple[float, float]], placement: Placement) -> int:
    """How many of the placement's workers fit on nodes of (CPUs, GPUs); a worker lies on one node."""
    total = 0
    for cpus, gpus in nodes:
        by_cpu = int(cpus // placement.cpus_per_worker)
        total += min(by_cpu, int(gpus)) if placement.use_gpu else by_cpu
    return total


def decide(config: TrainConfig, cluster: ClusterView) -> Placement:
    """Fill in what the config leaves open, and check that it can ever be placed.

    One worker a GPU; without GPUs one worker with all cores of the largest node. Raises InfeasibleError with the
    arithmetic, InputError where something is asked for that needs a GPU.
    """
    scalable_gpus = sum(gpus * count for _, gpus, count in cluster.node_types)
    use_gpu = config.use_gpu if config.use_gpu is not None else cluster.gpus + scalable_gpus > 0
    if not use_gpu:
        _check_without_gpu(config)
    num_workers = config.num_workers or (max(1, int(cluster.gpus or scalable_gpus)) if use_gpu else 1)
    placement = Placement(
        num_workers=num_workers,
        cpus_per_worker=_cpus(config, cluster, use_gpu, max(num_workers, config.max_workers or 0)),
        use_gpu=use_gpu,
        max_workers=config.max_workers,
    )
    have = [(n.cpus, n.gpus) for n in cluster.nodes]
    might = have + [(cpus, gpus) for cpus, gpus, count in cluster.node_types for _ in range(count)]
    fit = workers_that_fit(might, placement)
    if fit < num_workers:
        listing = ", ".join(f"{n.address}: {n.cpus:g} CPUs, {n.gpus:g} GPUs" for n in cluster.nodes[:8])
        scale = f" and its autoscaler {'can add ' + _types(cluster) if cluster.node_types else 'adds none'}"
        raise InfeasibleError(
            f"--num-workers {num_workers}: {placement} are asked for, room for {fit} is all there can be "
            f"({len(cluster.nodes)} node{'s' if len(cluster.nodes) != 1 else ''}: {listing}{scale}); "
            f"ask for {f'at most {fit} workers, ' if fit else ''}smaller ones, or a larger cluster"
        )
    return placement


def _check_without_gpu(config: TrainConfig) -> None:
    if config.attention == "flash_attention_2":
        raise InputError(
            "--attention flash_attention_2: needs an NVIDIA GPU, and the workers have none; use auto or sdpa, or a cluster with GPUs"
        )
    if config.compile:
        raise InputError(
            "--compile: is for GPUs, and the workers have none; leave it out: on CPUs compiled layers are slower"
        )


def _types(cluster: ClusterView) -> str:
    return ", ".join(f"{count} x ({cpus:g} CPUs, {gpus:g} GPUs)" for cpus, gpus, count in cluster.node_types)


def _cpus(config: TrainConfig, cluster: ClusterView, use_gpu: bool, num_workers: int) -> int:
    if config.cpus_per_worker:
        return config.cpus_per_worker
    nodes = [(n.cpus, n.gpus) for n in cluster.nodes] + [(c, g) for c, g, _ in cluster.node_types]
    if use_gpu:  # a share of the cores of a GPU node, at most 8: enough to feed one GPU
        shares = [cpus // gpus for cpus, gpus in nodes if gpus >= 1]
        return int(min(8, max(1, min(shares)))) if shares else 1
    return most_cpus_per_worker(cluster, num_workers)


def most_cpus_per_worker(cluster: ClusterView, num_workers: int) -> int:
    """The most CPUs that each of so many workers can have where all have as many; 1 where not even that is there."""
    nodes = [(int(n.cpus), 1) for n in cluster.nodes] + [(int(cpus), count) for cpus, _, count in cluster.node_types]
    largest = max((cpus for cpus, _ in nodes), default=1)
    fits = (c for c in range(largest, 1, -1) if sum(cpus // c * count for cpus, count in nodes) >= num_workers)
    return next(fits, 1)


def check_batch(config: TrainConfig, num_train_rows: int) -> None:
    """Raises InputError where a global batch cannot be made."""
    if config.batch_size > num_train_rows:
        raise InputError(
            f"--batch-size {config.batch_size}: larger than the {num_train_rows} training rows; use at most {num_train_rows}"
        )
    most = max(config.num_workers or 0, config.max_workers or 0)
    if config.batch_size < most:
        raise InputError(
            f"--batch-size {config.batch_size} --num-workers {most}: some workers would never have a row; "
            f"use at most {config.batch_size} workers"
        )


def this_machine() -> ClusterView:
    """The most that a local Ray would have: a container's limits are for Ray to find. GPUs are counted by their
    device files: nothing is imported for it."""
    import json
    import os
    from pathlib import Path

    told = json.loads(os.environ.get("RAY_OVERRIDE_RESOURCES") or "{}")  # Ray's own variable
    cpus = float(told.get("CPU", os.cpu_count() or 1))
    gpus = float(told.get("GPU", len([p for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdigit()])))
    return ClusterView(nodes=(Node(address="this machine", cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus),))


def view_of(ray: Any) -> ClusterView:
    """The cluster that the driver is connected to."""
    from ray._private import state as ray_state

    free = _free_by_node(ray_state)
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            total: Mapping[str, float] = node["Resources"]
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
    return ClusterView(nodes=tuple(nodes), node_types=_autoscaler_types(ray_state, nodes))


def _free_by_node(ray_state: Any) -> Mapping[str, Mapping[str, float]]:
    # Not public API; without it a node counts as free.
    try:
        free: Mapping[str, Mapping[str, float]] = ray_state.available_resources_per_node()
        return free
    except Exception:
        return {}


def _autoscaler_types(ray_state: Any, nodes: Sequence[Node]) -> tuple[tuple[float, float, int], ...]:
    """Node types that the autoscaler may still add; none where it does not run or does not say."""
    try:
        config = ray_state.state.get_cluster_config()
        groups: list[Any] = list(config.node_group_configs) if config is not None else []
    except Exception:
        groups = []
    # `ray up`'s autoscaler does not tell Ray its node types: read what it reads.
    groups = groups or list(declared_groups())
    types = []
    there = Counter((n.cpus, n.gpus) for n in nodes)
    for group in groups:
        count = group.max_count if group.max_count >= 0 else 1000
        if count > 0 and group.resources:
            cpus, gpus = float(group.resources.get("CPU", 0)), float(group.resources.get("GPU", 0))
            # max_count includes the nodes that are there already; a node tells its shape, not its type, and is of one only.
            of_this_type = min(int(count), there[cpus, gpus])
            there[cpus, gpus] -= of_this_type
            if count > of_this_type:
                types.append((cpus, gpus, int(count) - of_this_type))
    return tuple(types)
