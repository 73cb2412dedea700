"""The verbs that every cloud implements, with the checks of machines and the cost that are the same for all."""

from __future__ import annotations

import difflib
import functools
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sst2_ray import formatting
from sst2_ray.cluster.file import ClusterFile, NodeType, Platform
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import Cloud as PricedCloud
from sst2_ray.cluster.prices import Machine, machine_of, price_note
from sst2_ray.cluster.ssh import Host, host_of
from sst2_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A machine that the cloud still lists for a cluster."""

    id: str
    state: str
    machine: str
    """Machine type."""
    spot: bool = False
    started_s: float | None = None
    """Start in seconds since the epoch, None where the cloud does not say."""


@dataclass(frozen=True, kw_only=True)
class CreateRequest:
    """The user's answers that making an account's resources takes."""

    ssh_from: str | None = None
    bucket: str | None = None
    vpc: str | None = None


class Cloud(ABC):
    """A place to run clusters."""

    platform: ClassVar[Platform]
    price_list: ClassVar[PricedCloud | None] = None
    """Column of machines.csv; None where machines have no list price."""
    client_library: ClassVar[tuple[str, str] | None] = None
    """(module that `ray up` imports, how it is installed)."""
    starts_by_ray: ClassVar[bool] = True
    """False where `ray up` and `ray down` have nothing to start or end."""
    start_with: ClassVar[str] = ""
    end_with: ClassVar[str] = ""
    """Where Ray does not: the commands that do."""
    sizes_from_cloud: ClassVar[bool] = False
    """`ray up` asks the cloud for the resources of a machine type."""
    asks_account: ClassVar[bool] = False
    """`check_account` asks the cloud."""
    spot_remedy: ClassVar[str] = ""

    @abstractmethod
    def check(self, cluster: ClusterFile) -> Findings:
        """Check what Ray's schema cannot see in the file, without asking anybody."""

    def check_account(self, cluster: ClusterFile) -> Findings:
        """Ask the cloud, read-only and with the user's own credentials, about the file."""
        del cluster
        found = Findings()
        found.warning(
            f"{self.platform} account", "cannot be asked from here", f"docs/cluster-{self.platform}.md says how"
        )
        return found

    def check_create(self, cluster: ClusterFile, request: CreateRequest) -> str:
        """Return the question to ask before `create`, empty where nothing has to be made.

        Raises InputError where the request lacks something, or the account does not fit.
        """
        del cluster, request
        return ""

    def create(self, cluster: ClusterFile, request: CreateRequest) -> str:
        """Make what the account lacks; return one line that says what was made."""
        raise NotImplementedError(f"nothing is made on {self.platform}")

    @abstractmethod
    def key(self, cluster: ClusterFile) -> Path | None:
        """Return the private key that reaches the head: the file's own, or the one that `ray up` makes; None: ssh's default."""

    def head(self, cluster: ClusterFile) -> str:
        """Return the address of the running head, as the cloud tells it. Raises InputError where none runs."""
        from ray.autoscaler import sdk

        try:
            return str(sdk.get_head_node_ip(str(cluster.for_ray())))
        except Exception as error:  # each cloud's client library raises its own kinds
            detail = " ".join(str(error).split())[:200]
            raise InputError(
                f"{cluster.path}: no running head of cluster {cluster.name!r}: {detail}; start it with `sst2-ray up {cluster.path}`"
            ) from None

    def host(self, cluster: ClusterFile, address: str) -> Host:
        """Return the way by SSH to a machine of the cluster."""
        return host_of(cluster, address, self.key(cluster))

    def status(self, cluster: ClusterFile) -> list[Instance] | None:
        """Return every machine of the cluster that still bills; None where the cloud cannot be asked from here."""
        del cluster
        return None

    def end(self, cluster: ClusterFile) -> None:
        """End what `ray down` leaves running."""
        del cluster

    def machine_name(self, node_type: NodeType) -> str:
        """Return the machine type that a node type asks for."""
        return node_type.config.text("machineType")

    def is_spot(self, node_type: NodeType) -> bool:
        """Return True where a node type asks for machines that can be taken away."""
        del node_type
        return False

    def prices(
        self,
        cluster: ClusterFile,
        *,
        worker_price: float | None = None,
        hours: float | None = None,
        workers: int | None = None,
    ) -> Findings:
        """State dollars an hour, idle and at most, and of a job of `hours` with `workers` (None: all that the file allows).

        `worker_price`: dollars an hour of one worker, in place of the table's.
        """
        found = Findings()
        if self.price_list is None:
            return found
        head_price = next((self._price(node_type) for node_type in cluster.node_types if node_type.is_head), None)
        known, unknown = self._worker_prices(cluster, worker_price)
        if head_price is None:
            unknown.append("the head's machine")
        if head_price is None or unknown:
            remedy = "give --price-per-hour for one worker, or see the vendor's page"
            found.warning("cost", f"no price is recorded for {', '.join(unknown)}", remedy)
            return found
        self._state_cost(cluster, head_price, known, found, own_price=worker_price is not None)
        if hours and known:
            count = min(workers or cluster.max_workers, cluster.max_workers)
            job = hours * (head_price + count * min(price for _, price in known))
            cheaper = self._cheaper(known, own_price=worker_price is not None)
            found.ok("cost", f"a job of {hours:g} hours on {count} workers: ${job:.2f}{cheaper}")
        return found

    def _worker_prices(
        self, cluster: ClusterFile, own_price: float | None
    ) -> tuple[list[tuple[NodeType, float]], list[str]]:
        """Return (worker types with dollars an hour, machine types without)."""
        known, unknown = [], []
        for node_type in cluster.node_types:
            price = self._price(node_type) if own_price is None else own_price
            if node_type.is_head:
                continue
            if price is None:
                unknown.append(self.machine_name(node_type) or node_type.name)
            else:
                known.append((node_type, price))
        return known, unknown

    def _state_cost(
        self,
        cluster: ClusterFile,
        head: float,
        workers: list[tuple[NodeType, float]],
        found: Findings,
        *,
        own_price: bool,
    ) -> None:
        idle = head + sum(price * node_type.min_workers for node_type, price in workers)
        each = sorted((price for node_type, price in workers for _ in range(node_type.max_workers)), reverse=True)
        limit, most = cluster.max_workers, head + sum(each[: cluster.max_workers])
        cheaper = self._cheaper(workers, own_price=own_price)
        source = price_note(self.price_list) if self.price_list and not own_price else "your price for a worker"
        found.ok("cost", f"${idle:.2f} an hour idle, at most ${most:.2f} with {limit} workers{cheaper} ({source})")
        minutes, hours = cluster.life("--idle-minutes"), cluster.life("--max-hours")
        if minutes:
            what = f"forgotten, the idle cluster ends by itself after {minutes:g} minutes (${idle * minutes / 60:.2f})"
            most_of_all = f", a busy one after {hours:g} hours (at most ${most * hours:,.0f})" if hours else ""
            found.ok("cost", what + most_of_all)
        else:
            what = f"nothing ends a forgotten cluster: ${24 * 30 * idle:,.0f} a month idle"
            found.warning("cost", what, "autostop.sh in head_start_ray_commands, as in the repository's file")

    def _cheaper(self, workers: list[tuple[NodeType, float]], *, own_price: bool) -> str:
        spot = any(self.is_spot(node_type) for node_type, _ in workers)
        return ", spot workers below that" if spot and not own_price else ""

    def _price(self, node_type: NodeType) -> float | None:
        machine = machine_of(str(self.price_list), self.machine_name(node_type))
        return machine.usd_per_hour if machine else None

    def machines(self, cluster: ClusterFile) -> str:
        """Return the machines and the place of a cluster, for its plan."""
        named = [
            f"{self.machine_name(node_type)}{' (head)' if node_type.is_head else ' (spot)' if self.is_spot(node_type) else ''}"
            for node_type in cluster.node_types
        ]
        place = cluster.provider.text("availability_zone") or cluster.provider.text("location")
        return f"{', '.join(named) or formatting.count(len(cluster.hosts), 'machine') + ' of your own'}" + (
            f" in {place}" if place else ""
        )

    def warn_without_spot(self, cluster: ClusterFile, found: Findings) -> None:
        """Warn where no worker type asks for spot machines."""
        if not any(self.is_spot(node_type) for node_type in cluster.node_types if not node_type.is_head):
            found.warning(
                "available_node_types", "no worker type asks for spot: two to three times the price", self.spot_remedy
            )


@functools.cache
def places(kind: str) -> tuple[str, ...]:
    """Return the locations of a kind in places.json."""
    return tuple(json.loads((Path(__file__).parents[1] / "places.json").read_text())[kind])


def check_place(where: str, name: str, kind: str, found: Findings) -> None:
    """Check a region against the list of those that exist: near one it is a misspelling, else it may be newer than the list."""
    if name in places(kind):
        return
    near = difflib.get_close_matches(name, places(kind), n=3, cutoff=0.75)
    if near:
        found.error(where, f"{name!r} does not exist", f"did you mean {' or '.join(near)}?")
    else:
        found.warning(where, f"{name!r} is not among the locations known here", "is it spelled right?")


def own_key(cluster: ClusterFile) -> Path | None:
    """Return the private key that the file itself names."""
    key = cluster.auth.text("ssh_private_key")
    return Path(key).expanduser() if key else None


def check_machine(where: str, machine: Machine | None, name: str, node_type: NodeType, found: Findings) -> None:
    """Check GPU count, age of the GPU and memory. `machine`: None where the table does not hold the type."""
    if machine is None:
        what = f"{name} exists but is not in the table of prices: its GPUs, memory and cost are not checked"
        found.warning(where, what, "give --price-per-hour for the cost")
        return
    before = len(found)
    if node_type.is_head:
        _check_head(where, machine, found)
    else:
        _check_worker(where, machine, node_type, found)
    if machine.gpus and not machine.bf16:
        what = f"{machine.gpu} has neither bf16 nor fused attention: fp32, several times slower"
        found.warning(where, what, "L4, A10, A100 and newer have them")
    if len(found) == before:
        gpu = f"{machine.gpus} {machine.gpu}, " if machine.gpus else ""
        found.ok(where, f"{name}: {gpu}{machine.cpus} CPUs, {machine.memory_gib:g} GiB")


def _check_head(where: str, machine: Machine, found: Findings) -> None:
    if machine.gpus:
        what = f"the head is a GPU machine ({machine.gpus} {machine.gpu}), paid from `up` to `down`"
        found.warning(where, what, "a small machine without GPU does")
    if machine.memory_gib < 8:
        found.warning(where, f"{machine.memory_gib:g} GiB for Ray's services and the drivers", "16 GiB do")


def _check_worker(where: str, machine: Machine, node_type: NodeType, found: Findings) -> None:
    gpus, cpus = node_type.resources.whole("GPU"), node_type.resources.whole("CPU")
    if gpus is not None and gpus != machine.gpus:
        what = f"{machine.name} has {machine.gpus} GPUs, resources declare {gpus}: runs would wait for ever or leave GPUs idle"
        found.error(where, what, f"set resources.GPU to {machine.gpus}")
    if not machine.gpus:
        what = f"{machine.name} has no GPU: training runs on its CPUs"
        found.warning(where, what, "choose a machine with a GPU unless that is meant")
    if cpus is not None and cpus > machine.cpus:
        what = f"{machine.name} has {machine.cpus} CPUs, resources declare {cpus}"
        found.error(where, what, f"set resources.CPU to {machine.cpus}")
