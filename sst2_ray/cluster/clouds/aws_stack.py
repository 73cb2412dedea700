"""The CloudFormation stack that a cluster needs in an AWS account, in whatever state it is found."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sst2_ray.cluster.clouds.aws_api import client, missing_templates, one_line_refusals
from sst2_ray.cluster.clouds.base import CreateRequest
from sst2_ray.cluster.file import ClusterFile, shipped
from sst2_ray.config.section import Section
from sst2_ray.errors import FailureClass, InputError, RunFailedError

TEMPLATE = Path("cluster/aws-account.yaml")
_TIMEOUT_S = 600.0
_POLL_S = 2.0
_COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
_CAPABILITIES = ["CAPABILITY_NAMED_IAM"]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A stack as CloudFormation describes it; `status` is empty where there is none."""

    name: str
    status: str = ""
    reason: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Return True where everything of it exists."""
        return self.status in _COMPLETE

    @property
    def is_broken(self) -> bool:
        """Return True where it can only be deleted: its creation or its deletion has failed."""
        return self.status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")

    def allows(self, types: str) -> bool:
        """Return True where the head may start all of these instance types, given as the stack's parameter."""
        allowed = re.findall(r"[\w-]+\.[\w-]+", self.parameters.get("InstanceTypes", ""))
        return set(types.split(",")) <= set(allowed)


def stack_name(cluster: ClusterFile) -> str:
    """Return the name of the cluster's stack."""
    return f"sst2-ray-{cluster.name}"


def find_stack(cluster: ClusterFile) -> Stack:
    """Ask CloudFormation for the cluster's stack."""
    name = stack_name(cluster)
    cloudformation = client(cluster, "cloudformation")
    try:
        described = Section(cloudformation.describe_stacks(StackName=name)).sections("Stacks")[0]
    except cloudformation.exceptions.ClientError as problem:
        if "does not exist" not in str(problem):
            raise
        return Stack(name=name)
    parameters = {item.text("ParameterKey"): item.text("ParameterValue") for item in described.sections("Parameters")}
    status, reason = (
        described.text("StackStatus"),
        described.text("StackStatusReason", "see the CloudFormation console"),
    )
    return Stack(name=name, status="" if status == "DELETE_COMPLETE" else status, reason=reason, parameters=parameters)


def worker_types(cluster: ClusterFile) -> str:
    """Return the instance types that the head may start, as the stack's parameter."""
    types = {node_type.config.text("InstanceType") for node_type in cluster.node_types if not node_type.is_head}
    return ",".join(sorted(types))


def stack_change(cluster: ClusterFile, request: CreateRequest) -> str:
    """Return what has to be done to the stack, empty where nothing. Raises InputError where an answer of the user is missing."""
    named = [node_type.config.section("LaunchTemplate") for node_type in cluster.node_types]
    if not any(named):
        return ""  # the file brings groups and roles of its own
    stack = find_stack(cluster)
    missing = missing_templates(cluster)
    if stack.is_complete and not missing:
        updates = _updates(stack, cluster, request)
        said = [_UPDATE_WORDS[name].format(value) for name, value in updates.items()]
        return f"update stack {stack.name} ({', '.join(said)} then)" if updates else ""
    if not missing and not stack.status:
        return ""  # made by other means
    if not request.ssh_from or not request.bucket:
        raise InputError(
            f"the account has no launch template {', '.join(missing)} yet; give --ssh-from YOUR_ADDRESS/32 and --bucket NAME once, "
            "and the stack of cluster/aws-account.yaml is made (group, roles, templates; free of charge)"
        )
    source = f"SSH from {request.ssh_from}, bucket {request.bucket}"
    if stack.is_complete:
        raise InputError(
            f"stack {stack.name} is complete, and launch template {', '.join(missing)} is not there: it is not the stack's, or was "
            f"deleted by hand; correct LaunchTemplateName in {cluster.path}, or delete the stack with `sst2-ray down --delete-stack`"
        )
    if stack.is_broken:
        return f"delete stack {stack.name}, which is {stack.status} ({stack.reason}), and create it anew ({source})"
    if stack.status.endswith("IN_PROGRESS"):
        return f"wait for stack {stack.name}, which is {stack.status} ({source})"
    return f"create the stack of {TEMPLATE} ({source})"


_UPDATE_WORDS = {"InstanceTypes": "its head may start {}", "SshFrom": "SSH from {}", "StorageBucket": "bucket {}"}
"""Parameters that can be changed in a complete stack, in words."""


def _updates(stack: Stack, cluster: ClusterFile, request: CreateRequest) -> dict[str, str]:
    """Return the parameters of a complete stack that have to change. Raises InputError for another VPC: it would be a new stack."""
    if request.vpc and request.vpc != stack.parameters.get("VpcId"):
        raise InputError(
            f"--vpc {request.vpc}: stack {stack.name} lies in {stack.parameters.get('VpcId')}; delete it with "
            f"`sst2-ray down {cluster.path} --delete-stack` first"
        )
    types = worker_types(cluster)
    wanted = {
        "InstanceTypes": "" if stack.allows(types) else types,
        "SshFrom": request.ssh_from or "",
        "StorageBucket": request.bucket or "",
    }
    return {name: value for name, value in wanted.items() if value and value != stack.parameters.get(name)}


def make_stack(cluster: ClusterFile, request: CreateRequest) -> str:
    """Bring the stack to completion from whatever state it is in; return its name.

    Raises InputError for wrong parameters, RunFailedError where AWS fails.
    """
    template = shipped(TEMPLATE)
    if not template.is_file():
        raise InputError(f"{TEMPLATE}: not found; run from the repository's root")
    cloudformation = client(cluster, "cloudformation")
    stack = _wait(cluster, lambda stack: not stack.status.endswith("IN_PROGRESS"))
    if stack.is_broken:
        cloudformation.delete_stack(StackName=stack.name)
        stack = _wait(cluster, lambda stack: not stack.status or stack.status == "DELETE_FAILED")
        if stack.status:
            raise _failed(stack)
    body = template.read_text(encoding="utf-8")
    if stack.is_complete:
        updates = _updates(stack, cluster, request)
        if not updates:
            return stack.name
        kept = [{"ParameterKey": key, "UsePreviousValue": True} for key in stack.parameters if key not in updates]
        changed = [{"ParameterKey": key, "ParameterValue": value} for key, value in updates.items()]
        cloudformation.update_stack(
            StackName=stack.name, TemplateBody=body, Capabilities=_CAPABILITIES, Parameters=[*kept, *changed]
        )
    else:
        parameters = {
            "VpcId": request.vpc or default_vpc(cluster),
            "SshFrom": str(request.ssh_from),
            "StorageBucket": str(request.bucket),
            "ClusterName": cluster.name,
            "InstanceTypes": worker_types(cluster),
        }
        values = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        cloudformation.create_stack(
            StackName=stack.name, TemplateBody=body, Capabilities=_CAPABILITIES, Parameters=values
        )
    stack = _wait(cluster, lambda stack: not stack.status.endswith("IN_PROGRESS"))
    if not stack.is_complete or stack.status == "UPDATE_ROLLBACK_COMPLETE":
        raise _failed(stack)
    return stack.name


def _wait(cluster: ClusterFile, done: Callable[[Stack], bool]) -> Stack:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        stack = find_stack(cluster)
        if done(stack):
            return stack
        if time.monotonic() > deadline:
            raise RunFailedError(
                f"stack {stack.name}: still {stack.status} after {_TIMEOUT_S:.0f} s; look at the CloudFormation console",
                failure_class=FailureClass.BUG,
            )
        time.sleep(_POLL_S)


def _failed(stack: Stack) -> RunFailedError:
    return RunFailedError(f"stack {stack.name}: {stack.status}: {stack.reason}", failure_class=FailureClass.BUG)


def delete_stack(cluster: ClusterFile) -> str:
    """Ask for the stack's deletion, which takes AWS a minute; return its name."""
    with one_line_refusals():
        client(cluster, "cloudformation").delete_stack(StackName=stack_name(cluster))
    return stack_name(cluster)


def default_vpc(cluster: ClusterFile) -> str:
    """Return the id of the region's default VPC. Raises InputError where there is none."""
    vpcs = client(cluster, "ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise InputError(f"{cluster.provider.text('region')} has no default VPC; pass --vpc vpc-...")
    return str(vpcs[0]["VpcId"])
