"""Checks of an AWS file that Ray's schema lets pass: instance types, images, disks, spot, open ports, roles."""

from __future__ import annotations

import difflib
import functools
import re
from typing import TYPE_CHECKING

from sst2_ray.cluster.clouds.aws_values import check_values
from sst2_ray.cluster.clouds.checks import check_machine
from sst2_ray.cluster.file import ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import ZONE_USD_PER_GB, machine_of, names_of
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

if TYPE_CHECKING:
    from botocore.model import Shape

# The deep-learning image takes 65 GB, torch with CUDA 8, a model's checkpoints and spilled objects the rest.
MIN_ROOT_GB = 100
_IMAGE = re.compile(r"^(ami-[0-9a-f]{8}([0-9a-f]{9})?|resolve:ssm:/?[\w.\-/]+(:\d+)?)$")
_ARM = re.compile(r"(g5g|[a-z]+\d+g[a-z]*)\.")
_LONGEST_ROLE = 64
_RAYS_OWN_KEYS = ("SubnetIds",)
_SCALARS: dict[str, type] = {"boolean": bool, "integer": int, "string": str}
"""Types of values by EC2's names for them."""
_WORLD = ("0.0.0.0/0", "::/0")  # nosec B104: looked for, not bound to


def check_file(cluster: ClusterFile, found: Findings) -> None:
    """Make every offline check of an AWS file."""
    _check_region(cluster, found)
    check_open_ports("provider.security_group", cluster.provider.section("security_group"), found)
    key = cluster.provider.section("key_pair").text("key_name")
    if re.search(r"[/~]|\.pem$", key):
        found.error(
            "provider.key_pair.key_name", f"{key!r} is a path, EC2 wants a name", "the name without folder and .pem"
        )
    _check_template(cluster, found)
    own_key = "ssh_private_key" in cluster.auth
    for node_type in cluster.node_types:
        config = node_type.config
        _check_instance(node_type, found)
        _check_keys(node_type, found)
        check_values(cluster, node_type, found)
        _check_image(config, found)
        _check_disk(config, found)
        if not (config.get("SecurityGroupIds") or config.get("LaunchTemplate") or config.get("NetworkInterfaces")):
            what = "no security group of its own: Ray makes one with port 22 open to the world, and leaves it"
            remedy = (
                "LaunchTemplate as in the repository's file (cluster/aws-account.yaml makes it), or SecurityGroupIds"
            )
            found.error(config.path, what, remedy)
        if node_type.is_head and not (config.get("IamInstanceProfile") or config.get("LaunchTemplate")):
            what = "no instance profile of its own: Ray makes a role with all of EC2 and S3"
            found.error(config.path, what, "LaunchTemplate as in the repository's file, or IamInstanceProfile")
        _check_market(node_type, found)
        if own_key and "KeyName" not in config and "UserData" not in config:
            what = "missing, and auth.ssh_private_key is set: nobody could log in"
            found.error(config.at("KeyName"), what, "name the EC2 key pair of that key")


@functools.cache
def _launch_shape() -> Shape | None:
    """Return what EC2's RunInstances takes, None without the AWS client library (the laptop's check says that it is missing)."""
    try:
        import botocore.session
    except ImportError:
        return None
    model = botocore.session.get_session().get_service_model("ec2")
    shape: Shape | None = model.operation_model("RunInstances").input_shape
    return shape


def _check_keys(node_type: NodeType, found: Findings) -> None:
    """Check keys and fixed values of node_config, at every depth, against what EC2's RunInstances takes."""
    shape = _launch_shape()
    if shape is None:
        return
    from botocore.model import ListShape, StringShape, StructureShape

    def visit(value: object, shape: Shape, path: str) -> None:
        if isinstance(shape, StructureShape) and isinstance(value, dict):
            for key, item in value.items():
                if key in shape.members:
                    visit(item, shape.members[key], f"{path}.{key}")
                elif key not in _RAYS_OWN_KEYS:
                    remedy = did_you_mean(str(key), shape.members)
                    found.error(f"{path}.{key}", "EC2 knows no such key, and refuses the launch", remedy)
        elif isinstance(shape, ListShape) and isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, shape.member, f"{path}[{index}]")
        elif isinstance(shape, (ListShape, StructureShape)):
            kind = "a list" if isinstance(shape, ListShape) else "a mapping"
            found.error(path, f"{value!r} is not what EC2 takes", f"{kind} is expected")
        elif type(value) is not _SCALARS.get(shape.type_name, type(value)):
            marks = "in quotation marks" if shape.type_name == "string" else "without quotation marks"
            found.error(path, f"{value!r} is not what EC2 takes", f"a value of type {shape.type_name}, {marks}")
        elif (
            isinstance(shape, StringShape)
            and shape.enum
            and str(value) not in shape.enum
            and "InstanceType" not in path
        ):
            found.error(path, f"{value!r} is none of EC2's values", did_you_mean(str(value), shape.enum))

    if isinstance(shape, StructureShape):
        visit(node_type.config.raw, shape, node_type.config.path)


def _check_template(cluster: ClusterFile, found: Findings) -> None:
    """Check that heads and workers have launch templates of their own: each carries a role."""
    named = {
        node_type.name: node_type.config.section("LaunchTemplate").text("LaunchTemplateName")
        for node_type in cluster.node_types
    }
    head = cluster.document.text("head_node_type")
    role = f"sst2-ray-{cluster.name}-{cluster.provider.text('region')}-worker"  # the longest name of the stack's
    if any(named.values()) and len(role) > _LONGEST_ROLE:
        what = f"role {role} of cluster/aws-account.yaml has {len(role)} letters, and IAM takes {_LONGEST_ROLE}"
        found.error("cluster_name", what, f"at most {len(cluster.name) - len(role) + _LONGEST_ROLE}")
    for node_type in cluster.node_types:
        name, where = named[node_type.name], node_type.config.at("LaunchTemplate")
        if not node_type.is_head and name and name == named.get(head):
            what = f"{name} is the head's: workers would get the right to start and end machines"
            found.error(where, what, "the template of the workers")
        template = node_type.config.section("LaunchTemplate")
        if {"LaunchTemplateName", "LaunchTemplateId"} <= template.raw.keys():
            found.error(where, "EC2 takes a name or an id, not both", "remove LaunchTemplateId")


@functools.cache
def known_regions() -> tuple[str, ...]:
    """Return the regions that the installed AWS client library knows, none without it."""
    try:
        import botocore.session
    except ImportError:
        return ()
    session = botocore.session.get_session()
    return tuple(
        name for part in ("aws", "aws-cn", "aws-us-gov") for name in session.get_available_regions("ec2", part)
    )


@functools.cache
def known_instance_types() -> frozenset[str]:
    """Return every instance type that the installed AWS client library or the price table knows."""
    names = set(names_of("aws"))
    try:
        import botocore.session

        model = botocore.session.get_session().get_service_model("ec2")
        names |= set(model.shape_for("InstanceType").enum)  # type: ignore[attr-defined]
    except ImportError:  # without boto3 the table has to do; the laptop's check says that it is missing
        pass
    return frozenset(names)


def _check_region(cluster: ClusterFile, found: Findings) -> None:
    region = cluster.provider.text("region")
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        found.error("provider.region", f"{region!r} is not a region", "e.g. us-west-2")
        return
    if known_regions() and region not in known_regions():
        found.error("provider.region", f"{region} does not exist", did_you_mean(region, known_regions()))
        return
    where = "provider.availability_zone"
    zones = cluster.zones
    wrong = [zone for zone in zones if not re.fullmatch(re.escape(region) + "[a-z]", zone)]
    if wrong:
        found.error(where, f"{', '.join(wrong)} not in {region}", f"e.g. {region}a,{region}b")
    elif not zones:
        what = f"all zones: workers of one run may sit in several, and traffic between them costs {ZONE_USD_PER_GB['aws']:g} US$ a GB"
        found.warning(where, what, f"{region}a,{region}b: one at a time, the next where capacity lacks")
    else:
        rest = f", then {', '.join(zones[1:])} where capacity lacks" if zones[1:] else ""
        found.ok("provider.region", f"{region}, one zone at a time: {zones[0]}{rest}")


def _check_instance(node_type: NodeType, found: Findings) -> None:
    where, name = node_type.config.at("InstanceType"), node_type.config.text("InstanceType")
    if name not in known_instance_types():
        near = difflib.get_close_matches(name, known_instance_types(), n=3)
        remedy = f"did you mean {' or '.join(near)}?" if near else "see aws ec2 describe-instance-types"
        found.error(where, f"{name!r} is not an instance type", remedy)
    elif _ARM.match(name):
        what = f"{name} is an Arm machine, the image and the wheels are x86-64"
        found.error(where, what, "choose the i or a variant, or g5/g6 for a GPU")
    else:
        has_gpu = bool(re.match(r"(p|g|gr)\d", name))
        check_machine(where, machine_of("aws", name), name, node_type, found, may_have_gpu=has_gpu)


def _check_image(config: Section, found: Findings) -> None:
    where, image = config.at("ImageId"), config.text("ImageId")
    if not image or image.lower() == "latest_dlami":
        what = "missing: Ray's default is Ubuntu 18.04 with CUDA 11.2, too old for this torch"
        found.error(where, what, "copy ImageId from the repository's ray_cluster.yaml")
    elif not _IMAGE.match(image):
        what = f"{image!r} is neither an image nor resolve:ssm:/PARAMETER"
        found.error(where, what, "ami- and 8 or 17 hex digits, or the repository's resolve:ssm: line")
    else:
        found.ok(where, "resolved by EC2 at launch" if image.startswith("resolve:") else image)


def _check_disk(config: Section, found: Findings) -> None:
    where, before = config.at("BlockDeviceMappings"), len(found)
    disks = config.sections("BlockDeviceMappings")
    root = next((disk.section("Ebs") for disk in disks if disk.text("DeviceName") in ("/dev/sda1", "/dev/xvda")), None)
    if root is None:
        what = "no root volume: the image's own has no room for torch and checkpoints"
        found.error(where, what, f"add /dev/sda1 with VolumeSize {MIN_ROOT_GB} or more")
        return
    size = root.whole("VolumeSize")
    if size is None or size < MIN_ROOT_GB:
        what = f"root volume of {root.get('VolumeSize')} GB: the image takes 65, torch with CUDA 8"
        found.error(where, what, f"VolumeSize {MIN_ROOT_GB} or more")
    if root.get("DeleteOnTermination") is False:
        found.error(where, "the disk stays, and bills, after its machine is gone", "DeleteOnTermination: true")
    if len(found) == before:
        found.ok(where, f"root volume of {size} GB, goes with its machine")


def _is_too_little(price: str, node_type: NodeType) -> bool:
    machine = machine_of("aws", node_type.config.text("InstanceType"))
    if not price:
        return False
    if not re.fullmatch(r"\d*\.?\d+", price):
        return True
    return bool(machine and machine.usd_per_hour and float(price) < 0.2 * machine.usd_per_hour)


def _check_market(node_type: NodeType, found: Findings) -> None:
    market = node_type.config.section("InstanceMarketOptions")
    value, options = node_type.config.get("InstanceMarketOptions"), market.section("SpotOptions")
    if not value:
        return
    if node_type.is_head:
        what = "the head is on spot: when it is taken every job ends"
        found.error(market.path, what, "remove it; the head is the cheap machine")
    elif _is_too_little(options.text("MaxPrice"), node_type):
        what = f"MaxPrice {options.text('MaxPrice')}: nothing is ever granted at that price"
        found.error(market.path, what, "remove it: never more than the list price is asked for")
    elif market.text("MarketType") != "spot":
        found.error(market.path, f"{value!r} is not a market", "MarketType: spot")
    elif options.text("SpotInstanceType") == "persistent" or (
        options.text("InstanceInterruptionBehavior") in ("stop", "hibernate")
    ):
        what = "a persistent request starts machines that Ray knows nothing of, and goes on after `ray down`"
        found.error(market.path, what, "SpotInstanceType: one-time, InstanceInterruptionBehavior: terminate")
    else:
        found.ok(market.path, "spot, ended when taken")


def check_open_ports(where: str, group: Section, found: Findings) -> None:
    """Check a security group's rules, as a file gives them or as EC2 describes them."""
    world = []
    for rule in group.sections("IpPermissions"):
        ranges = [
            item.text("CidrIp") or item.text("CidrIpv6")
            for key in ("IpRanges", "Ipv6Ranges")
            for item in rule.sections(key)
        ]
        if any(cidr in _WORLD or re.search(r"/[0-7]$", cidr) for cidr in ranges):
            world.append(rule.text("FromPort", "any"))
    if world:
        what = f"port {', '.join(world)} open to the whole internet"
        found.error(where, what, "name your own address as /32")
    elif "IpPermissions" in group:
        found.ok(where, "no rule is open to the world")
