"""Placement of workers: decided, or refused with the arithmetic, before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sst2_ray import formatting
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError, InputError

TIMEOUT_S, SCALING_TIMEOUT_S = 600.0, 1800.0
"""Seconds to wait for places; where machines are started for them: a GPU machine takes five to ten minutes, more than one try longer."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a cluster, or one that its autoscaler may add."""

    address: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    memory_gib: float | None = None
    """Memory that Ray counts with; None: not known."""
    chip: str = ""
    """Ray's name of its accelerators; empty: it has none, or does not say."""


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """The nodes of a cluster, and those that its autoscaler may add."""

    nodes: tuple[Node, ...]
    node_types: tuple[tuple[float, float, int], ...] = field(default=())
    """(CPUs, GPUs, most nodes) of each type that the autoscaler may add."""
    autoscales: bool = False
    """An autoscaler starts and ends nodes, though it may have started all already."""
    chips_to_come: tuple[str, ...] = ()
    """Accelerators of the nodes that it may have, the preferred first; Ray's names."""

    @property
    def can_scale(self) -> bool:
        """Tell whether the number of nodes follows the demand."""
        return self.autoscales or bool(self.node_types)

    @property
    def chips(self) -> tuple[str, ...]:
        """Accelerators, those that are there first."""
        return (*(node.chip for node in self.nodes if node.chip), *self.chips_to_come)

    @property
    def gpus(self) -> float:
        """GPUs that are there."""
        return sum(n.gpus for n in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Workers and the resources that each of them asks of the cluster."""

    num_workers: int
    """Fewest workers of a run that may grow."""
    cpus_per_worker: int
    use_gpu: bool
    max_workers: int | None = None
    """Most workers; None: it does not grow."""
    can_scale: bool = False
    """An autoscaler may have to start nodes for it first."""

    @property
    def is_elastic(self) -> bool:
        """Tell whether the run may grow."""
        return self.most_workers > self.num_workers

    @property
    def most_workers(self) -> int:
        """Workers after it has grown."""
        return self.max_workers or self.num_workers

    @property
    def resources_per_worker(self) -> dict[str, float]:
        """Resources of one worker, as Ray takes them."""
        return {"CPU": self.cpus_per_worker, **({"GPU": 1} if self.use_gpu else {})}

    def timeout_s(self, config: TrainConfig) -> float:
        """Return the seconds for which the workers wait for their places."""
        return config.placement_timeout_s or (SCALING_TIMEOUT_S if self.can_scale else TIMEOUT_S)

    def __str__(self) -> str:
        one = f"{formatting.count(self.cpus_per_worker, 'CPU')}{' and 1 GPU' if self.use_gpu else ''}"
        count = f"{self.num_workers} to {self.max_workers}" if self.is_elastic else f"{self.num_workers}"
        return f"{count} worker{'s' if self.most_workers != 1 else ''} of {one}"


def workers_that_fit(nodes: Sequence[tuple[float, float]], placement: Placement) -> int:
    """Count the workers that fit on nodes of (CPUs, GPUs); a worker lies on one node."""
    total = 0
    for cpus, gpus in nodes:
        by_cpu = int(cpus // placement.cpus_per_worker)
        total += min(by_cpu, int(gpus)) if placement.use_gpu else by_cpu
    return total


def decide(config: TrainConfig, cluster: ClusterView) -> Placement:
    """Fill in what the config leaves open, and check that it can ever be placed.

    One worker a GPU that is there; one where an autoscaler would start machines, which cost, for more; without GPUs one with
    all cores of the largest node. Raises InfeasibleError with the arithmetic, InputError where something is asked for that
    needs a GPU.
    """
    scalable_gpus = sum(gpus * count for _, gpus, count in cluster.node_types)
    use_gpu = config.use_gpu if config.use_gpu is not None else cluster.gpus + scalable_gpus > 0
    if not use_gpu:
        _check_without_gpu(config)
    num_workers = config.num_workers or (max(1, int(cluster.gpus)) if use_gpu and not cluster.can_scale else 1)
    placement = Placement(
        num_workers=num_workers,
        cpus_per_worker=_cpus(config, cluster, use_gpu, max(num_workers, config.max_workers or 0)),
        use_gpu=use_gpu,
        max_workers=config.max_workers,
        can_scale=cluster.can_scale,
    )
    have = [(n.cpus, n.gpus) for n in cluster.nodes]
    might = have + [(cpus, gpus) for cpus, gpus, count in cluster.node_types for _ in range(count)]
    _check_room(config, cluster, placement, might)
    return placement


def _check_room(
    config: TrainConfig, cluster: ClusterView, placement: Placement, might: Sequence[tuple[float, float]]
) -> None:
    """Raise InfeasibleError where the nodes that there might be, (CPUs, GPUs) each, do not hold the workers."""
    num_workers, fit = placement.num_workers, workers_that_fit(might, placement)
    if config.use_gpu and not any(gpus for _, gpus in might):
        raise InfeasibleError(_no_gpu_words(cluster))
    if fit < num_workers:
        listing = ", ".join(f"{n.address}: {n.cpus:g} CPUs, {n.gpus:g} GPUs" for n in cluster.nodes[:8])
        num_nodes = formatting.count(len(cluster.nodes), "node")
        scale = f" and its autoscaler {'can add ' + _types(cluster) if cluster.node_types else 'adds none'}"
        raise InfeasibleError(
            f"--num-workers {num_workers}: {placement} are asked for, room for {fit} is all there can be "
            f"({num_nodes}: {listing}{scale}); "
            f"ask for {f'at most {fit} workers, ' if fit else ''}smaller ones, or a larger cluster"
        )


def _no_gpu_words(cluster: ClusterView) -> str:
    nodes = formatting.count(len(cluster.nodes), "node")
    more = ", and its autoscaler adds none" if cluster.can_scale else ""
    return f"--use-gpu True: there is no GPU here ({nodes} without one{more}); leave it out, or use a cluster with GPUs"


def _check_without_gpu(config: TrainConfig) -> None:
    if config.attention in ("varlen", "flash_attention_2"):
        raise InputError(
            f"--attention {config.attention}: needs an NVIDIA GPU, and the workers have none; use auto or sdpa, or a cluster with GPUs"
        )
    if config.compile:
        raise InputError(
            "--compile: is for GPUs, and the workers have none; leave it out: on CPUs compiled layers are slower"
        )
    if config.cuda_graphs:
        raise InputError(
            "--cuda-graphs: is for GPUs, and the workers have none; leave it out, or use a cluster with GPUs"
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
    """Return the most CPUs that each of so many workers can have if all have as many; 1 if not even that is there."""
    nodes = [(int(n.cpus), 1) for n in cluster.nodes] + [(int(cpus), count) for cpus, _, count in cluster.node_types]
    largest = max((cpus for cpus, _ in nodes), default=1)
    fits = (c for c in range(largest, 1, -1) if sum(cpus // c * count for cpus, count in nodes) >= num_workers)
    return next(fits, 1)
