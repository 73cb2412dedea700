"""Calls to AWS that read. boto3 is imported only inside functions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sst2_ray.cluster.file import ClusterFile
from sst2_ray.config.section import Section
from sst2_ray.errors import InputError

_ALIVE = ["pending", "running", "stopping", "stopped", "shutting-down"]


def client(cluster: ClusterFile, service: str) -> Any:
    """Return a boto3 client for the file's region. Raises InputError without boto3."""
    try:
        import boto3
    except ImportError:
        raise InputError("boto3 is not installed, AWS cannot be asked; pip install boto3") from None
    return boto3.client(service, region_name=cluster.provider.text("region"))


@contextlib.contextmanager
def one_line_refusals() -> Iterator[None]:
    """Turn what AWS refuses (no credentials, expired ones, no right) into an InputError of one line."""
    try:
        yield
    except Exception as problem:
        if not type(problem).__module__.startswith("botocore"):
            raise
        text = " ".join(str(problem).split())[:300]
        raise InputError(f"AWS: {text}; aws configure, set AWS_PROFILE, or ask somebody with the right") from None


def missing_templates(cluster: ClusterFile) -> list[str]:
    """Return the launch templates that the file names and the account does not have."""
    named = [node_type.config.section("LaunchTemplate").text("LaunchTemplateName") for node_type in cluster.node_types]
    names = {name for name in named if name}
    if not names:
        return []
    pages = client(cluster, "ec2").get_paginator("describe_launch_templates").paginate()
    have = {template["LaunchTemplateName"] for page in pages for template in page["LaunchTemplates"]}
    return sorted(names - have)


def instances_of(cluster: ClusterFile) -> list[Section]:
    """Return the cluster's instances as EC2 describes them, the terminated ones left out."""
    filters = [
        {"Name": "tag:ray-cluster-name", "Values": [cluster.name]},
        {"Name": "instance-state-name", "Values": _ALIVE},
    ]
    pages = client(cluster, "ec2").get_paginator("describe_instances").paginate(Filters=filters)
    reservations = [reservation for page in pages for reservation in Section(page).sections("Reservations")]
    return [instance for reservation in reservations for instance in reservation.sections("Instances")]
