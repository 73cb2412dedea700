"""The verbs that every cloud implements, with the checks of machines and the cost that are the same for all."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sst2_ray.cluster.file import ClusterFile, NodeType, Platform
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.life import with_life
from sst2_ray.cluster.prices import Cloud as PricedCloud
from sst2_ray.cluster.ssh import Host, host_of
from sst2_ray.errors import InputError

_NO_HEAD = r"Head node of cluster .* not found|ResourceGroupNotFound"
"""What Ray, or Azure, says where there is none."""


class NoHeadError(InputError):
    """The cloud was asked, and no head of the cluster runs."""


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
    zone: str = ""
    """Zone, where the cloud's own list of a cluster's machines is that of a zone."""


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
    """Commands that end a cluster where Ray does not."""
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
            if not re.search(_NO_HEAD, detail):  # expired credentials, no network
                raise InputError(f"{cluster.path}: cannot ask for the head of {cluster.name!r}: {detail}") from None
            raise NoHeadError(
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

    def limit_life(self, cluster: ClusterFile, limits: Mapping[str, float]) -> ClusterFile:
        """Return the file with other times after which its machines end, by themselves or by the cloud (see `with_life`)."""
        return with_life(cluster, limits)

    def machine_name(self, node_type: NodeType) -> str:
        """Return the machine type that a node type asks for."""
        return node_type.config.text("machineType")

    def is_spot(self, node_type: NodeType) -> bool:
        """Return True where a node type asks for machines that can be taken away."""
        del node_type
        return False

    def warn_without_spot(self, cluster: ClusterFile, found: Findings) -> None:
        """Warn where no worker type asks for spot machines."""
        if not any(self.is_spot(node_type) for node_type in cluster.node_types if not node_type.is_head):
            found.warning(
                "available_node_types", "no worker type asks for spot: two to three times the price", self.spot_remedy
            )


class AccountCloud(Cloud):
    """A place where a cluster needs resources in the user's account, made once."""

    @abstractmethod
    def check_create(self, cluster: ClusterFile, request: CreateRequest) -> str:
        """Return the question to ask before `create`, empty where nothing has to be made.

        Raises InputError where the request lacks something, or the account does not fit.
        """

    @abstractmethod
    def create(self, cluster: ClusterFile, request: CreateRequest) -> str:
        """Make what the account lacks; return one line that says what was made."""


class ForeignCloud(Cloud):
    """A place whose clusters somebody else starts and ends: Ray does not, and no SSH reaches them."""

    starts_by_ray = False
    reached_by: ClassVar[str]
    """Reason why there is no head to tunnel to, and what to do instead."""

    def key(self, cluster: ClusterFile) -> Path | None:
        """Return nothing: no SSH reaches it."""
        del cluster
        return None

    def head(self, cluster: ClusterFile) -> str:
        """Refuse. Raises InputError."""
        raise InputError(f"{cluster.path}: {self.reached_by.format(path=cluster.path)}")


def own_key(cluster: ClusterFile) -> Path | None:
    """Return the private key that the file itself names."""
    key = cluster.auth.text("ssh_private_key")
    return Path(key).expanduser() if key else None
