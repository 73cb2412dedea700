"""AWS: the verbs, and the stack that a cluster needs in an account."""

from __future__ import annotations

import ipaddress
import time
from datetime import datetime
from pathlib import Path

from sst2_ray.cluster.clouds.aws_account import check_account
from sst2_ray.cluster.clouds.aws_api import client, instances_of, missing_templates, one_line_refusals
from sst2_ray.cluster.clouds.aws_file import check_file
from sst2_ray.cluster.clouds.base import Cloud, CreateRequest, Instance, own_key
from sst2_ray.cluster.file import ClusterFile, NodeType, shipped
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.section import Section
from sst2_ray.errors import FailureClass, InputError, RunFailedError

TEMPLATE = Path("cluster/aws-account.yaml")
_STACK_TIMEOUT_S = 600.0


class Aws(Cloud):
    """Amazon EC2."""

    platform = "aws"
    price_list = "aws"
    client_library = ("boto3", "pip install boto3")
    sizes_from_cloud = True
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
        """Return the question before the stack is made, where launch templates of the file are missing."""
        with one_line_refusals():
            self._check_key_pair(cluster)
            missing = missing_templates(cluster)
        if not missing:
            return ""
        if not request.ssh_from or not request.bucket:
            raise InputError(
                f"the account has no launch template {', '.join(missing)} yet; give --ssh-from YOUR_ADDRESS/32 and --bucket NAME once, "
                "and the stack of cluster/aws-account.yaml is made (group, roles, templates; free of charge)"
            )
        check_source(request.ssh_from)
        return f"create the stack of {TEMPLATE} (SSH from {request.ssh_from}, bucket {request.bucket})?"

    def create(self, cluster: ClusterFile, request: CreateRequest) -> str:
        """Create the stack of cluster/aws-account.yaml and wait for it."""
        with one_line_refusals():
            return f"stack {create_stack(cluster, request)} is there"

    def key(self, cluster: ClusterFile) -> Path | None:
        """Return the file's key, or the .pem of its EC2 key pair."""
        name = cluster.provider.section("key_pair").text("key_name")
        region = cluster.provider.text("region")
        return own_key(cluster) or Path(f"~/.ssh/{name or f'ray-autoscaler_{region}'}.pem").expanduser()

    def status(self, cluster: ClusterFile) -> list[Instance]:
        """Return every instance that is not terminated: stopped ones bill their disks."""
        with one_line_refusals():
            return [_instance(instance) for instance in instances_of(cluster)]

    def machine_name(self, node_type: NodeType) -> str:
        """Return the instance type."""
        return node_type.config.text("InstanceType")

    def is_spot(self, node_type: NodeType) -> bool:
        """Return True where a market is named."""
        return bool(node_type.config.get("InstanceMarketOptions"))

    def _check_key_pair(self, cluster: ClusterFile) -> None:
        """Refuse a key pair that only EC2 or only this machine has: Ray would make another that `submit` does not find."""
        key = self.key(cluster)
        if key is None or own_key(cluster):
            return
        answer = client(cluster, "ec2").describe_key_pairs(Filters=[{"Name": "key-name", "Values": [key.stem]}])
        found = bool(answer["KeyPairs"])
        if found == key.exists():
            return
        what, remedy = (
            ("EC2 has it", "copy the .pem from whoever made it") if found else ("EC2 lacks it", f"remove {key}")
        )
        raise InputError(
            f"key pair {key.stem}: {what}, this machine {'lacks' if found else 'has'} {key}; {remedy}, or choose another "
            f"provider.key_pair.key_name in {cluster.path}"
        )


def stack_name(cluster: ClusterFile) -> str:
    """Return the name of the cluster's stack."""
    return f"sst2-ray-{cluster.name}"


def create_stack(cluster: ClusterFile, request: CreateRequest) -> str:
    """Create the stack and wait for it; return its name. Raises InputError for wrong parameters, RunFailedError where AWS fails."""
    check_source(str(request.ssh_from))
    template = shipped(TEMPLATE)
    if not template.is_file():
        raise InputError(f"{TEMPLATE}: not found; run from the repository's root")
    stack = stack_name(cluster)
    parameters = {
        "VpcId": request.vpc or default_vpc(cluster),
        "SshFrom": request.ssh_from,
        "StorageBucket": request.bucket,
        "ClusterName": cluster.name,
    }
    cloudformation = client(cluster, "cloudformation")
    cloudformation.create_stack(
        StackName=stack, TemplateBody=template.read_text(encoding="utf-8"), Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )  # fmt: skip
    deadline = time.monotonic() + _STACK_TIMEOUT_S
    while time.monotonic() < deadline:
        described = Section(cloudformation.describe_stacks(StackName=stack)["Stacks"][0])
        status = described.text("StackStatus")
        if status == "CREATE_COMPLETE":
            return stack
        if "FAILED" in status or "ROLLBACK" in status:
            reason = described.text("StackStatusReason", "see the CloudFormation console")
            raise RunFailedError(f"stack {stack}: {status}: {reason}", failure_class=FailureClass.BUG)
        time.sleep(2.0)
    raise RunFailedError(
        f"stack {stack}: not complete after {_STACK_TIMEOUT_S:.0f} s; look at the CloudFormation console",
        failure_class=FailureClass.BUG,
    )


def delete_stack(cluster: ClusterFile) -> str:
    """Ask for the stack's deletion, which takes AWS a minute; return its name."""
    with one_line_refusals():
        client(cluster, "cloudformation").delete_stack(StackName=stack_name(cluster))
    return stack_name(cluster)


def check_source(cidr: str) -> None:
    """Refuse what is not a small network. Raises InputError."""
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


def default_vpc(cluster: ClusterFile) -> str:
    """Return the id of the region's default VPC. Raises InputError where there is none."""
    vpcs = client(cluster, "ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise InputError(f"{cluster.provider.text('region')} has no default VPC; pass --vpc vpc-...")
    return str(vpcs[0]["VpcId"])


def _instance(instance: Section) -> Instance:
    launched = instance.get("LaunchTime")
    return Instance(
        id=instance.text("InstanceId"),
        state=instance.section("State").text("Name"),
        machine=instance.text("InstanceType"),
        spot=instance.text("InstanceLifecycle") == "spot",
        started_s=launched.timestamp() if isinstance(launched, datetime) else None,
    )
