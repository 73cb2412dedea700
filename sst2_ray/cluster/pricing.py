"""Dollars of a cluster file's machines: idle, at most, for a job, and where everybody forgets it. Nothing is asked of a cloud."""

from __future__ import annotations

from dataclasses import dataclass

from sst2_ray.cluster.clouds import Cloud, cloud_of
from sst2_ray.cluster.file import ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.life import life
from sst2_ray.cluster.prices import Machine, machine_of, price_note


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """Prices of the machines of a file."""

    cluster: ClusterFile
    head: float | None
    """US dollars an hour; None: not recorded."""
    workers: tuple[tuple[NodeType, float], ...]
    """Worker types with dollars an hour, the autoscaler's preferred first."""
    unknown: tuple[str, ...]
    """Machines without a price."""
    is_own_price: bool
    """The user gave the workers' price."""

    @property
    def is_known(self) -> bool:
        """Return True where every machine has a price."""
        return self.head is not None and not self.unknown

    @property
    def idle(self) -> float:
        """Dollars an hour without a job."""
        return (self.head or 0.0) + sum(price * node_type.min_workers for node_type, price in self.workers)

    @property
    def most(self) -> float:
        """Dollars an hour with all workers that the file allows."""
        each = sorted((price for node_type, price in self.workers for _ in range(node_type.max_workers)), reverse=True)
        return (self.head or 0.0) + sum(each[: self.cluster.max_workers])

    def with_workers(self, count: int) -> float:
        """Return the dollars an hour with so many workers of the preferred types."""
        each = [price for node_type, price in self.workers for _ in range(node_type.max_workers)]
        return (self.head or 0.0) + sum(each[: min(count, self.cluster.max_workers)])

    @property
    def spot_note(self) -> str:
        """The remark where spot machines cost less than what is stated; empty where they do not."""
        cloud = cloud_of(self.cluster)
        has_spot = any(cloud.is_spot(node_type) for node_type, _ in self.workers)
        return ", spot workers below that" if has_spot and not self.is_own_price else ""

    @property
    def source(self) -> str:
        """Origin of the prices."""
        listed = cloud_of(self.cluster).price_list
        return price_note(listed) if listed and not self.is_own_price else "your price for a worker"


def price_cluster(cluster: ClusterFile, worker_price: float | None = None) -> Pricing | None:
    """Return the prices of a file's machines; None where machines have no list price.

    `worker_price`: dollars an hour of one worker, in place of the table's.
    """
    cloud = cloud_of(cluster)
    if cloud.price_list is None:
        return None
    head, known, unknown = None, [], []
    for node_type in by_priority(cluster):
        machine = machine_for(cloud, node_type)
        price = machine.usd_per_hour if machine else None
        if node_type.is_head:
            head = price
            continue
        price = price if worker_price is None else worker_price
        if price is None:
            unknown.append(cloud.machine_name(node_type) or node_type.name)
        else:
            known.append((node_type, price))
    if head is None:
        unknown.append("the head's machine")
    return Pricing(
        cluster=cluster, head=head, workers=tuple(known), unknown=tuple(unknown), is_own_price=worker_price is not None
    )


def by_priority(cluster: ClusterFile) -> list[NodeType]:
    """Return the node types: the head's, then those first that the autoscaler tries first."""
    return sorted(
        cluster.node_types, key=lambda node_type: (not node_type.is_head, -(node_type.section.whole("priority") or 0))
    )


def machine_for(cloud: Cloud, node_type: NodeType) -> Machine | None:
    """Return the machine type of a node type, None where the table does not hold it."""
    return machine_of(str(cloud.price_list), cloud.machine_name(node_type))


def check_prices(
    cluster: ClusterFile, *, worker_price: float | None = None, hours: float | None = None, workers: int | None = None
) -> Findings:
    """State dollars an hour, idle and at most, and of a job of `hours` with `workers` (None: all that the file allows)."""
    found = Findings()
    pricing = price_cluster(cluster, worker_price)
    if pricing is None:
        return found
    if not pricing.is_known:
        remedy = "give --price-per-hour for one worker, or see the vendor's page"
        found.warning("cost", f"no price is recorded for {', '.join(pricing.unknown)}", remedy)
        return found
    limit = cluster.max_workers
    what = f"${pricing.idle:.2f} an hour idle, at most ${pricing.most:.2f} with {limit} workers{pricing.spot_note}"
    found.ok("cost", f"{what} ({pricing.source})")
    forgotten = forgotten_words(pricing)
    if life(cluster, "--idle-minutes"):
        found.ok("cost", f"forgotten, {forgotten}")
    else:
        remedy = "autostop.sh in head_start_ray_commands, as in the repository's file"
        found.warning("cost", forgotten, remedy)
    if hours and pricing.workers:
        count = min(workers or limit, limit)
        job = hours * pricing.with_workers(count)
        found.ok("cost", f"a job of {hours:g} hours on {count} workers: ${job:.2f}{pricing.spot_note}")
    return found


def forgotten_words(pricing: Pricing, num_workers: int | None = None) -> str:
    """Say what a cluster costs that everybody forgets. `num_workers`: of the job that hangs; None: all that the file allows."""
    minutes, hours = (life(pricing.cluster, flag) for flag in ("--idle-minutes", "--max-hours"))
    busy = pricing.most if num_workers is None else pricing.with_workers(num_workers)
    if not minutes and not hours:
        return f"nothing ends a forgotten cluster: ${24 * 30 * pricing.idle:,.0f} a month idle"
    said = []
    if minutes:
        said.append(f"the idle cluster ends by itself after {minutes:g} minutes (${pricing.idle * minutes / 60:.2f})")
    if hours:
        with_all = f", ${pricing.most * hours:,.0f} with all workers" if busy < pricing.most else ""
        said.append(f"a busy one after {hours:g} hours (at most ${busy * hours:,.0f}{with_all})")
    return ", ".join(said)
