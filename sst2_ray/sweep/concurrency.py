"""Needs of a trial besides cores, and how many run at once, so that none ever waits for what another holds.

Why trials cannot deadlock. A trial's driver asks Ray for one byte of memory and no CPU, its controller and its progress
actor ask for nothing: no number of live drivers keeps a worker from a core or a GPU. The workers of a trial are one
placement group, which Ray grants whole or not at all: no two trials can each hold half of what both need. And no more
trials are started than whole groups fit, counted here worker by worker on the nodes as they are: a trial that is started
finds its place at once, or gives up at its deadline.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.planning.placement import ClusterView, Node, Placement, decide, most_cpus_per_worker
from sst2_ray.run.planning.summary import process_memory
from sst2_ray.run.prepare import RunInputs

DRIVER_GIB = 0.6
"""Resident memory of a trial's driver, controller and progress actor together; measured."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory and storage that a trial of a model needs, in GiB."""

    memory_gib: float
    """Memory of a worker on CPU."""
    measured: bool
    """True: the peak of earlier trials. False: computed from the model's shape."""
    checkpoint_gib: float
    """Weights and two moments in fp32."""
    export_gib: float


def footprint(prepared: RunInputs, table: ResultsTable, *, num_workers: int) -> Footprint:
    """Return a model's footprint, from the peaks that the results table has of it, else from its shape."""
    parameters = prepared.made.size.parameters
    computed = sum(process_memory(prepared, num_workers=num_workers).values())
    peaks = [
        row["peak_memory_gib"]
        for row in table.read("trials", columns=["model", "device", "peak_memory_gib", "status"]).to_pylist()
        if row["model"] == prepared.config.model and row["device"] == "cpu" and row["peak_memory_gib"]
    ]
    return Footprint(
        memory_gib=max(peaks) if peaks else computed,
        measured=bool(peaks),
        checkpoint_gib=12 * parameters / 2**30,
        export_gib=4 * parameters / 2**30,
    )


@dataclass(frozen=True, kw_only=True)
class Concurrency:
    """Trials at once: requested, fitting, and chosen."""

    requested: int | None
    now: int
    """Fit in what is free at the moment."""
    ever: int
    """Fit once others have given back what they hold and the autoscaler has added all nodes that it may."""
    chosen: int
    """Will run."""
    memory_bound: bool
    """True: memory, not cores or GPUs, is what limits it."""
    trials_per_node: float
    """Trials that share a node; below 1 where a trial needs several."""

    @property
    def num_nodes(self) -> int:
        """Nodes in use when all `chosen` trials run."""
        return math.ceil(self.chosen / self.trials_per_node - 1e-9)

    @property
    def cost_share(self) -> float:
        """Share of a node's price that a trial pays for each node that it runs on."""
        return 1 / min(self.chosen, self.trials_per_node) if self.trials_per_node >= 1 else 1.0

    def __str__(self) -> str:
        said = [f"{self.chosen} at once"]
        if self.requested is not None and self.requested > self.chosen:
            said.append(f"{self.requested} were asked for, no more than {self.ever} fit")
        if self.memory_bound:
            said.append("limited by memory")
        if self.now < self.chosen:
            said.append(f"{self.now} in what is free now")
        return ", ".join(said)


def trial_request(config: TrainConfig, cluster: ClusterView, *, max_concurrent: int | None) -> TrainConfig:
    """Return `config` with what one trial of a sweep asks for.

    One worker (one GPU) unless more are asked for; on CPU the cores of a node are shared out among the trials at once.
    """
    num_workers = config.num_workers or 1
    cpus = config.cpus_per_worker
    on_cpu = config.use_gpu is False or not (cluster.gpus or any(gpus for _, gpus, _ in cluster.node_types))
    if cpus is None and on_cpu and max_concurrent is not None and max_concurrent > 1:
        cpus = most_cpus_per_worker(cluster, max_concurrent * num_workers)
    return dataclasses.replace(config, num_workers=num_workers, cpus_per_worker=cpus)


def admit(
    config: TrainConfig, cluster: ClusterView, *, max_concurrent: int | None, worker_memory_gib: float = 0.0
) -> tuple[Placement, Concurrency]:
    """Decide where the trials of a sweep run and how many at once.

    `worker_memory_gib`: memory of a worker on CPU; 0: not known. Raises InfeasibleError with the arithmetic where not even
    one trial can ever be placed.
    """
    placement = decide(trial_request(config, cluster, max_concurrent=max_concurrent), cluster)
    return placement, concurrency(
        placement, cluster, max_concurrent=max_concurrent, worker_memory_gib=worker_memory_gib
    )


def concurrency(
    placement: Placement, cluster: ClusterView, *, max_concurrent: int | None, worker_memory_gib: float = 0.0
) -> Concurrency:
    """Find the largest safe number of trials at once. Raises InfeasibleError where it is 0."""
    memory = 0.0 if placement.use_gpu else worker_memory_gib + DRIVER_GIB / placement.num_workers
    whole = [*cluster.nodes, *_addable(cluster)]
    by_devices = _trials(whole, placement, memory_gib=0.0)
    if by_devices < 1:
        fit = by_devices * placement.num_workers
        raise InfeasibleError(
            f"{placement} a trial: room for {fit} such workers is all there can be; ask for fewer or smaller workers"
        )
    # Memory is an estimate: it limits how many run at once, never whether one may.
    ever = max(1, _trials(whole, placement, memory_gib=memory))
    free = [dataclasses.replace(node, cpus=node.free_cpus, gpus=node.free_gpus) for node in cluster.nodes]
    now = min(ever, _trials(free, placement, memory_gib=memory))
    chosen = min(ever, max_concurrent or ever)
    a_node = max(_workers(node, placement, memory_gib=memory) for node in whole) or 1
    if a_node >= placement.num_workers:
        trials_per_node = float(a_node // placement.num_workers)
    else:
        trials_per_node = 1 / math.ceil(placement.num_workers / a_node)
    return Concurrency(
        requested=max_concurrent,
        now=now,
        ever=ever,
        chosen=chosen,
        memory_bound=ever < by_devices and chosen == ever,
        trials_per_node=trials_per_node,
    )


def _addable(cluster: ClusterView) -> list[Node]:
    return [
        Node(address="to be added", cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus)
        for cpus, gpus, count in cluster.node_types
        for _ in range(count)
    ]


def _trials(nodes: Sequence[Node], placement: Placement, *, memory_gib: float) -> int:
    """Count the whole placement groups that fit; a worker lies on one node, a group may lie on several."""
    return sum(_workers(node, placement, memory_gib=memory_gib) for node in nodes) // placement.num_workers


def _workers(node: Node, placement: Placement, *, memory_gib: float) -> int:
    limits = [int(node.cpus // placement.cpus_per_worker)]
    if placement.use_gpu:
        limits.append(int(node.gpus))
    if memory_gib > 0 and node.memory_gib is not None:
        limits.append(int(node.memory_gib // memory_gib))
    return min(limits)
