"""What AWS itself says of a file (`--ask-cloud`): only calls that read, with the user's own credentials."""

from __future__ import annotations

import re
from typing import Any

from sst2_ray.cluster.aws_account import client, instances_of, missing_templates
from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.machines import is_spot
from sst2_ray.cluster.doctor.ray_file import node_config, node_types
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.prices import machine_of

# Service quotas of EC2 in vCPUs: (name of the families, on demand, spot)
_QUOTAS = (("G and VT", r"^(g|vt)\d", "L-DB2E81BA", "L-3819A6DF"), ("P", r"^p\d", "L-417A185B", "L-7212CCBC"))


def check_account(cluster: ClusterFile) -> list[Finding]:
    """Instance types, image, launch templates and their group, quota, and what still runs."""
    checks = (_types, _images, _templates, _quota, _running)
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(cluster)
        except Exception as problem:  # no credentials, no right to ask: said, and the next check is tried
            text = " ".join(str(problem).split())[:160]
            findings.append(
                warning(
                    f"AWS {check.__name__.strip('_')}",
                    f"could not be asked: {text}",
                    "aws configure, or ask somebody with the right",
                )
            )
    return findings


def _types(cluster: ClusterFile) -> list[Finding]:
    names = sorted({str(node_config(node_type).get("InstanceType")) for node_type in node_types(cluster).values()})
    zones = [zone.strip() for zone in str(cluster.provider.get("availability_zone") or "").split(",") if zone.strip()]
    filters = [{"Name": "instance-type", "Values": names}, *([{"Name": "location", "Values": zones}] if zones else [])]
    kind = "availability-zone" if zones else "region"
    offers = client(cluster, "ec2").describe_instance_type_offerings(LocationType=kind, Filters=filters)[
        "InstanceTypeOfferings"
    ]
    places = ", ".join(zones) or cluster.provider.get("region")
    offered = {offer["InstanceType"] for offer in offers}
    return [
        ok("AWS instance types", f"{name} is offered") if name in offered
        else error("AWS instance types", f"{name} is offered in none of {places}", "another zone, region or type")
        for name in names
    ]  # fmt: skip


def _images(cluster: ClusterFile) -> list[Finding]:
    findings = []
    for image in sorted({str(node_config(node_type).get("ImageId")) for node_type in node_types(cluster).values()}):
        found = image
        if image.startswith("resolve:ssm:"):
            name = re.sub(r":\d+$", "", image.removeprefix("resolve:ssm:"))
            found = client(cluster, "ssm").get_parameter(Name=name)["Parameter"]["Value"]
        described = client(cluster, "ec2").describe_images(ImageIds=[found])["Images"]
        if not described:
            findings.append(
                error(
                    "AWS image",
                    f"{found} does not exist in {cluster.provider.get('region')}",
                    "an image of this region",
                )
            )
            continue
        root: dict[str, Any] = next(
            (
                d["Ebs"]
                for d in described[0].get("BlockDeviceMappings", [])
                if d.get("DeviceName") == described[0].get("RootDeviceName") and "Ebs" in d
            ),
            {},
        )
        findings.append(ok("AWS image", f"{found} {described[0].get('Name', '')} ({root.get('VolumeSize', '?')} GB)"))
    return findings


def _templates(cluster: ClusterFile) -> list[Finding]:
    missing = missing_templates(cluster)
    if missing:
        return [
            error(
                "AWS launch templates",
                f"{', '.join(missing)} not in this account",
                "sst2-ray up FILE --ssh-from YOUR_ADDRESS/32 --bucket NAME makes them",
            )
        ]
    ec2 = client(cluster, "ec2")
    groups: set[str] = set()
    for node_type in node_types(cluster).values():
        template = node_config(node_type).get("LaunchTemplate")
        if isinstance(template, dict):
            version = ec2.describe_launch_template_versions(
                LaunchTemplateName=template["LaunchTemplateName"], Versions=["$Default"]
            )["LaunchTemplateVersions"][0]
            groups |= set(version["LaunchTemplateData"].get("SecurityGroupIds", []))
        groups |= set(node_config(node_type).get("SecurityGroupIds") or [])
    return [
        finding
        for group in sorted(groups)
        for finding in check_group(ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0])
    ]


def check_group(group: dict[str, Any]) -> list[Finding]:
    """Rules of one security group as EC2 describes it."""
    where = f"AWS group {group['GroupName']}"
    world = [
        rule
        for rule in group["IpPermissions"]
        if any(r.get("CidrIp") == "0.0.0.0/0" for r in rule.get("IpRanges", []))
        or any(r.get("CidrIpv6") == "::/0" for r in rule.get("Ipv6Ranges", []))
    ]
    if world:
        ports = ", ".join(str(rule.get("FromPort", "all")) for rule in world)
        return [error(where, f"port {ports} is open to the whole internet", "allow your own address only")]
    return [ok(where, "no rule is open to the world")]


def _quota(cluster: ClusterFile) -> list[Finding]:
    findings = []
    quotas = client(cluster, "service-quotas")
    limit = int(cluster.config.get("max_workers") or 0)
    for name, node_type in node_types(cluster).items():
        instance = str(node_config(node_type).get("InstanceType"))
        machine = machine_of("aws", instance)
        family = next((row for row in _QUOTAS if re.match(row[1], instance)), None)
        if machine is None or family is None:
            continue
        code = family[3] if is_spot(cluster, node_type) else family[2]
        allowed = float(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
        wanted = machine.cpus * min(limit, int(node_type.get("max_workers") or 0))
        market = "spot" if is_spot(cluster, node_type) else "on demand"
        where = f"AWS quota of {name}"
        if allowed < machine.cpus:
            findings.append(
                error(
                    where,
                    f"{allowed:g} vCPUs of {family[0]} {market}: not one {instance} ({machine.cpus})",
                    f"ask for {wanted} (quota {code}); it takes hours to days",
                )
            )
        elif allowed < wanted:
            findings.append(
                warning(
                    where,
                    f"{allowed:g} vCPUs of {family[0]} {market}: {int(allowed // machine.cpus)} workers, not {wanted // machine.cpus}",
                    f"ask for {wanted} (quota {code})",
                )
            )
        else:
            findings.append(ok(where, f"{allowed:g} vCPUs {market}, {wanted} needed at most"))
    return findings


def _running(cluster: ClusterFile) -> list[Finding]:
    left = instances_of(cluster)
    if not left:
        return [ok("AWS instances", f"none of cluster {cluster.name}")]
    stopped = [instance["InstanceId"] for instance in left if instance["State"]["Name"] in ("stopped", "stopping")]
    findings = [ok("AWS instances", f"{len(left)} of cluster {cluster.name}")]
    if stopped:
        findings.append(
            warning(
                "AWS instances", f"{', '.join(stopped)} stopped: their disks bill", "sst2-ray down, or terminate them"
            )
        )
    return findings
