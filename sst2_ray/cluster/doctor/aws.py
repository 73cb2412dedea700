"""The parts of an AWS file that Ray's schema lets pass: instance types, images, disks, spot, open ports, roles."""

from __future__ import annotations

import difflib
import functools
import re
from typing import Any

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.machines import check_machine
from sst2_ray.cluster.doctor.ray_file import node_config, node_types
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.prices import machine_of, names_of

# The deep-learning image takes 65 GB, torch with CUDA 8, a model's checkpoints and spilled objects the rest.
MIN_ROOT_GB = 100
_IMAGE = re.compile(r"^(ami-[0-9a-f]{8}([0-9a-f]{9})?|resolve:ssm:/?[\w.\-/]+(:\d+)?)$")
_WORLD = ("0.0.0.0/0", "::/0")  # nosec B104: looked for, not bound to


def check_aws(cluster: ClusterFile) -> list[Finding]:
    """Every offline check of an AWS file."""
    findings = [
        *_region(cluster),
        *_open_ports(cluster.provider.get("security_group") or {}, "provider.security_group"),
    ]
    head = cluster.config.get("head_node_type")
    spot = False
    for name, node_type in node_types(cluster).items():
        where, config = f"available_node_types.{name}", node_config(node_type)
        is_head = name == head
        instance = str(config.get("InstanceType", ""))
        findings += _instance(where, instance, node_type, is_head=is_head)
        findings += _image(where, config)
        findings += _disk(where, config)
        findings += _group(where, config)
        if is_head:
            findings += _head_rights(where, config)
        market = config.get("InstanceMarketOptions")
        spot = spot or (bool(market) and not is_head)
        findings += _market(where, market, is_head=is_head)
        if "ssh_private_key" in (cluster.config.get("auth") or {}) and not {"KeyName", "UserData"} & config.keys():
            findings.append(
                error(
                    f"{where}.node_config.KeyName",
                    "missing, and auth.ssh_private_key is set: nobody could log in",
                    "name the EC2 key pair of that key",
                )
            )
    if not spot:
        findings.append(
            warning(
                "available_node_types",
                "no worker type asks for spot: two to three times the price",
                "add a type with InstanceMarketOptions: {MarketType: spot}",
            )
        )
    return findings


@functools.cache
def known_instance_types() -> frozenset[str]:
    """Every instance type that the installed AWS client library has heard of, with those of the price table."""
    names = set(names_of("aws"))
    try:
        import botocore.session

        model = botocore.session.get_session().get_service_model("ec2")
        names |= set(model.shape_for("InstanceType").enum)  # type: ignore[attr-defined]
    except ImportError:  # without boto3 the table has to do; check_laptop says that it is missing
        pass
    return frozenset(names)


def _region(cluster: ClusterFile) -> list[Finding]:
    region = str(cluster.provider.get("region", ""))
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        return [error("provider.region", f"{region!r} is not a region", "e.g. us-west-2")]
    zones = [zone.strip() for zone in str(cluster.provider.get("availability_zone", "")).split(",") if zone.strip()]
    wrong = [zone for zone in zones if not re.fullmatch(re.escape(region) + "[a-z]", zone)]
    if wrong:
        return [error("provider.availability_zone", f"{', '.join(wrong)} not in {region}", f"e.g. {region}a,{region}b")]
    if len(zones) == 1:
        return [
            warning(
                "provider.availability_zone",
                "one zone only: its spot capacity runs out first",
                f"list more, e.g. {region}a,{region}b",
            )
        ]
    return [ok("provider.region", f"{region}, {len(zones) or 'all'} zones")]


def _instance(where: str, instance: str, node_type: dict[str, Any], *, is_head: bool) -> list[Finding]:
    where = f"{where}.node_config.InstanceType"
    if instance not in known_instance_types():
        near = difflib.get_close_matches(instance, known_instance_types(), n=3)
        return [
            error(
                where,
                f"{instance!r} is not an instance type",
                f"did you mean {' or '.join(near)}?" if near else "see aws ec2 describe-instance-types",
            )
        ]
    if re.match(r"(g5g|[a-z]+\d+g[a-z]*)\.", instance):
        return [
            error(
                where,
                f"{instance} is an Arm machine, the image and the wheels are x86-64",
                "choose the i or a variant, or g5/g6 for a GPU",
            )
        ]
    return check_machine(where, machine_of("aws", instance), instance, node_type, is_head=is_head)


def _image(where: str, config: dict[str, Any]) -> list[Finding]:
    where, image = f"{where}.node_config.ImageId", str(config.get("ImageId", ""))
    if not image or image.lower() == "latest_dlami":
        return [
            error(
                where,
                "missing: Ray's default is Ubuntu 18.04 with CUDA 11.2, too old for this torch",
                "copy ImageId from the repository's ray_cluster.yaml",
            )
        ]
    if not _IMAGE.match(image):
        return [
            error(
                where,
                f"{image!r} is neither an image nor resolve:ssm:/PARAMETER",
                "ami- and 8 or 17 hex digits, or the repository's resolve:ssm: line",
            )
        ]
    return [ok(where, "resolved by EC2 at launch" if image.startswith("resolve:") else image)]


def _disk(where: str, config: dict[str, Any]) -> list[Finding]:
    where = f"{where}.node_config.BlockDeviceMappings"
    disks = [disk for disk in config.get("BlockDeviceMappings") or [] if isinstance(disk, dict)]
    root = next((disk.get("Ebs") or {} for disk in disks if disk.get("DeviceName") in ("/dev/sda1", "/dev/xvda")), None)
    if root is None:
        return [
            error(
                where,
                "no root volume: the image's own has no room for torch and checkpoints",
                f"add /dev/sda1 with VolumeSize {MIN_ROOT_GB} or more",
            )
        ]
    findings = []
    size = root.get("VolumeSize")
    if not isinstance(size, int) or size < MIN_ROOT_GB:
        findings.append(
            error(
                where,
                f"root volume of {size} GB: the image takes 65, torch with CUDA 8",
                f"VolumeSize {MIN_ROOT_GB} or more",
            )
        )
    if root.get("DeleteOnTermination") is False:
        findings.append(
            error(where, "the disk stays, and bills, after its machine is gone", "DeleteOnTermination: true")
        )
    return findings or [ok(where, f"root volume of {size} GB, goes with its machine")]


def _group(where: str, config: dict[str, Any]) -> list[Finding]:
    if config.get("SecurityGroupIds") or config.get("LaunchTemplate") or config.get("NetworkInterfaces"):
        return []
    return [
        error(f"{where}.node_config", "no security group of its own: Ray makes one with port 22 open to the world, and leaves it",
              "LaunchTemplate as in the repository's file (cluster/aws-account.yaml makes it), or SecurityGroupIds")
    ]  # fmt: skip


def _head_rights(where: str, config: dict[str, Any]) -> list[Finding]:
    if config.get("IamInstanceProfile") or config.get("LaunchTemplate"):
        return []
    return [
        error(
            f"{where}.node_config",
            "no instance profile of its own: Ray makes a role with all of EC2 and S3",
            "LaunchTemplate as in the repository's file, or IamInstanceProfile",
        )
    ]


def _market(where: str, market: Any, *, is_head: bool) -> list[Finding]:
    if not market:
        return []
    where = f"{where}.node_config.InstanceMarketOptions"
    if is_head:
        return [
            error(
                where,
                "the head is on spot: when it is taken every job ends",
                "remove it; the head is the cheap machine",
            )
        ]
    if not isinstance(market, dict) or market.get("MarketType") != "spot":
        return [error(where, f"{market!r} is not a market", "MarketType: spot")]
    options = market.get("SpotOptions") or {}
    if options.get("SpotInstanceType") == "persistent" or options.get("InstanceInterruptionBehavior") in (
        "stop",
        "hibernate",
    ):
        return [
            error(
                where,
                "a persistent request starts machines that Ray knows nothing of, and goes on after `ray down`",
                "SpotInstanceType: one-time, InstanceInterruptionBehavior: terminate",
            )
        ]
    return [ok(where, "spot, ended when taken")]


def _open_ports(group: dict[str, Any], where: str) -> list[Finding]:
    open_rules = []
    for rule in group.get("IpPermissions") or []:
        ranges = [
            str(item.get("CidrIp") or item.get("CidrIpv6"))
            for item in [*(rule.get("IpRanges") or []), *(rule.get("Ipv6Ranges") or [])]
        ]
        if any(cidr in _WORLD for cidr in ranges):
            open_rules.append(f"port {rule.get('FromPort', 'any')}")
    if open_rules:
        return [error(where, f"{', '.join(open_rules)} open to the whole internet", "name your own address as /32")]
    if group and "IpPermissions" in group:
        return [ok(where, "no rule is open to the world")]
    return []
