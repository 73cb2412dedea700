"""What a cluster needs in an AWS account: the stack of cluster/aws-account.yaml, and what still runs. boto3 only inside functions."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sst2_ray.cluster.doctor.ray_file import node_config, node_types
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.errors import FailureClass, InputError, RunFailedError

TEMPLATE = Path("cluster/aws-account.yaml")
_ALIVE = ("pending", "running", "stopping", "stopped", "shutting-down")


def client(cluster: ClusterFile, service: str) -> Any:
    """A boto3 client for the file's region. Raises InputError without boto3."""
    try:
        import boto3
    except ImportError:
        raise InputError("boto3 is not installed, AWS cannot be asked; pip install boto3") from None
    return boto3.client(service, region_name=str(cluster.provider.get("region")))


@contextlib.contextmanager
def one_line_refusals() -> Iterator[None]:
    """What AWS refuses (no credentials, expired ones, no right) as an InputError, instead of pages of traceback."""
    try:
        yield
    except Exception as problem:
        if not type(problem).__module__.startswith("botocore"):
            raise
        text = " ".join(str(problem).split())[:300]
        raise InputError(f"AWS: {text}; aws configure, set AWS_PROFILE, or ask somebody with the right") from None


def missing_templates(cluster: ClusterFile) -> list[str]:
    """Launch templates that the file names and the account does not have."""
    named = [node_config(node_type).get("LaunchTemplate") for node_type in node_types(cluster).values()]
    names = {
        str(item["LaunchTemplateName"]) for item in named if isinstance(item, dict) and item.get("LaunchTemplateName")
    }
    if not names:
        return []
    pages = client(cluster, "ec2").get_paginator("describe_launch_templates").paginate()
    have = {template["LaunchTemplateName"] for page in pages for template in page["LaunchTemplates"]}
    return sorted(names - have)


def create_stack(cluster: ClusterFile, *, ssh_from: str, bucket: str, vpc: str | None, timeout_s: float = 600.0) -> str:
    """Create the stack and wait for it; returns its name. Raises InputError for wrong parameters, RunFailedError where AWS fails."""
    check_source(ssh_from)
    if not TEMPLATE.is_file():
        raise InputError(f"{TEMPLATE}: not found; run from the repository's root")
    stack = f"sst2-ray-{cluster.name}"
    parameters = {
        "VpcId": vpc or default_vpc(cluster),
        "SshFrom": ssh_from,
        "StorageBucket": bucket,
        "ClusterName": cluster.name,
    }
    cloudformation = client(cluster, "cloudformation")
    cloudformation.create_stack(
        StackName=stack, TemplateBody=TEMPLATE.read_text(encoding="utf-8"), Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )  # fmt: skip
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        if described["StackStatus"] == "CREATE_COMPLETE":
            return stack
        if "FAILED" in described["StackStatus"] or "ROLLBACK" in described["StackStatus"]:
            reason = described.get("StackStatusReason", "see the CloudFormation console")
            raise RunFailedError(f"stack {stack}: {described['StackStatus']}: {reason}", failure_class=FailureClass.BUG)
        time.sleep(2.0)
    raise RunFailedError(
        f"stack {stack}: not complete after {timeout_s:.0f} s; look at the CloudFormation console",
        failure_class=FailureClass.BUG,
    )


def delete_stack(cluster: ClusterFile) -> str:
    """Ask for the stack's deletion (it takes AWS a minute); returns its name."""
    stack = f"sst2-ray-{cluster.name}"
    client(cluster, "cloudformation").delete_stack(StackName=stack)
    return stack


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
    """Id of the region's default VPC. Raises InputError where there is none."""
    vpcs = client(cluster, "ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise InputError(f"{cluster.provider.get('region')} has no default VPC; pass --vpc vpc-...")
    return str(vpcs[0]["VpcId"])


def instances_of(cluster: ClusterFile) -> list[dict[str, Any]]:
    """Every instance of the cluster that is not terminated: stopped ones bill their disks."""
    pages = (
        client(cluster, "ec2")
        .get_paginator("describe_instances")
        .paginate(
            Filters=[
                {"Name": "tag:ray-cluster-name", "Values": [cluster.name]},
                {"Name": "instance-state-name", "Values": list(_ALIVE)},
            ]
        )
    )
    return [instance for page in pages for reservation in page["Reservations"] for instance in reservation["Instances"]]
