"""AWS: the verbs."""

from __future__ import annotations

import ipaddress
import subprocess  # nosec B404: ssh-keygen, never through a shell
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sst2_ray.cluster.clouds.aws_account import check_account
from sst2_ray.cluster.clouds.aws_api import client, instances_of, one_line_refusals
from sst2_ray.cluster.clouds.aws_file import check_file
from sst2_ray.cluster.clouds.aws_stack import make_stack, stack_change
from sst2_ray.cluster.clouds.base import AccountCloud, CreateRequest, Instance, own_key
from sst2_ray.cluster.file import ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section
from sst2_ray.errors import InputError


class Aws(AccountCloud):
    """Amazon EC2."""

    platform = "aws"
    price_list = "aws"
    client_library = ("boto3", "pip install boto3")
    sizes_from_cloud = True
    asks_account = True
    spot_remedy = "add a type with InstanceMarketOptions: {MarketType: spot}"

    def check(self, cluster: ClusterFile) -> Findings:
        """Check region, instance types, images, disks, groups, roles and the spot market."""
        found = Findings()
        check_file(cluster, found)
        self.warn_without_spot(cluster, found)
        return found

    def check_account(self, cluster: ClusterFile) -> Findings:
        """Ask for instance types, image, launch templates and their group, quota, and what still runs."""
        return check_account(cluster, self)

    def check_create(self, cluster: ClusterFile, request: CreateRequest) -> str:
        """Return the question before the stack is made or changed, or a key is given to EC2."""
        request = _whole(request)
        with one_line_refusals():
            imports = self._key_to_import(cluster)
            change = stack_change(cluster, request)
        key = f"give EC2 the public half of {imports}" if imports else ""
        return " and ".join(part for part in (key, change) if part) + ("?" if key or change else "")

    def create(self, cluster: ClusterFile, request: CreateRequest) -> str:
        """Create or update the stack of cluster/aws-account.yaml and wait for it; import the key where EC2 lacks it."""
        request = _whole(request)
        with one_line_refusals():
            key = self._key_to_import(cluster)
            if key:
                import_key(cluster, key)
            return f"stack {make_stack(cluster, request)} is there"

    def key(self, cluster: ClusterFile) -> Path | None:
        """Return the file's key, or the .pem of its EC2 key pair."""
        name = cluster.provider.section("key_pair").text("key_name")
        region = cluster.provider.text("region")
        return own_key(cluster) or Path(f"~/.ssh/{name or f'ray-autoscaler_{region}'}.pem").expanduser()

    def status(self, cluster: ClusterFile) -> list[Instance]:
        """Return every instance that is not terminated: stopped ones bill their disks."""
        with one_line_refusals():
            return [_instance(instance) for instance in instances_of(cluster)]

    def end(self, cluster: ClusterFile) -> None:
        """Terminate machines that have stopped, of which `ray down` knows nothing."""
        with one_line_refusals():
            stopped = [one.id for one in self.status(cluster) if one.state in ("stopping", "stopped")]
            if stopped:
                client(cluster, "ec2").terminate_instances(InstanceIds=stopped)

    def machine_name(self, node_type: NodeType) -> str:
        """Return the instance type."""
        return node_type.config.text("InstanceType")

    def is_spot(self, node_type: NodeType) -> bool:
        """Return True where a market is named."""
        return bool(node_type.config.get("InstanceMarketOptions"))

    def _key_to_import(self, cluster: ClusterFile) -> Path | None:
        """Return the key that is here and not in EC2: another region, or an account that was cleaned up.

        Raises InputError for a key pair that EC2 alone has: Ray would make another that `submit` does not find.
        """
        key = self.key(cluster)
        if key is None or own_key(cluster):
            return None
        answer = client(cluster, "ec2").describe_key_pairs(Filters=[{"Name": "key-name", "Values": [key.stem]}])
        if not answer["KeyPairs"]:
            return key if key.exists() else None
        if not key.exists():
            raise InputError(
                f"key pair {key.stem}: EC2 has it, this machine lacks {key}; copy the .pem from whoever made it, or choose "
                f"another provider.key_pair.key_name in {cluster.path}"
            )
        return None


def import_key(cluster: ClusterFile, key: Path) -> None:
    """Give EC2 the public half of a private key. Raises InputError where the file is no key."""
    made = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if made.returncode != 0:
        raise InputError(
            f"{key}: not a private key ({' '.join(made.stderr.split())[:120]}); remove it, `ray up` makes a new pair"
        )
    client(cluster, "ec2").import_key_pair(KeyName=key.stem, PublicKeyMaterial=made.stdout.encode())


def _whole(request: CreateRequest) -> CreateRequest:
    """Return the request with its addresses as CloudFormation takes them."""
    return replace(request, ssh_from=check_source(request.ssh_from)) if request.ssh_from else request


def check_source(cidr: str) -> str:
    """Return a network with its length, /32 for one address. Raises InputError for what is not a small network."""
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError:
        raise InputError(
            f"--ssh-from {cidr}: must be an address range such as 203.0.113.7/32 (your own address with /32)"
        ) from None
    if network.version != 4 or network.prefixlen < 8:
        raise InputError(
            f"--ssh-from {cidr}: would open port 22 to {network.num_addresses:,} addresses; name your own with /32"
        )
    return str(network)


def _instance(instance: Section) -> Instance:
    launched = instance.get("LaunchTime")
    return Instance(
        id=instance.text("InstanceId"),
        state=instance.section("State").text("Name"),
        machine=instance.text("InstanceType"),
        spot=instance.text("InstanceLifecycle") == "spot",
        started_s=launched.timestamp() if isinstance(launched, datetime) else None,
    )
