"""Answers of AWS itself about a file (`--ask-cloud`): only calls that read, with the user's own credentials."""

from __future__ import annotations

import re

from sst2_ray.cluster.clouds.aws_api import client, instances_of, missing_templates
from sst2_ray.cluster.clouds.aws_file import check_open_ports
from sst2_ray.cluster.clouds.base import Cloud
from sst2_ray.cluster.file import ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import machine_of
from sst2_ray.config.section import Section

# Service quotas of EC2 in vCPUs: (name of the families, their instance types, on demand, spot)
_QUOTAS = (("G and VT", r"^(g|vt)\d", "L-DB2E81BA", "L-3819A6DF"), ("P", r"^p\d", "L-417A185B", "L-7212CCBC"))


def check_account(cluster: ClusterFile, cloud: Cloud) -> Findings:
    """Check instance types, image, launch templates and their group, quota, and what still runs."""
    found = Findings()
    checks = {
        "types": lambda: _check_types(cluster, found),
        "images": lambda: _check_images(cluster, found),
        "templates": lambda: _check_templates(cluster, found),
        "quota": lambda: _check_quotas(cluster, cloud, found),
        "running": lambda: _check_running(cluster, found),
    }
    for name, check in checks.items():
        try:
            check()
        except Exception as problem:  # no credentials, no right to ask: said, and the next check is tried
            text = " ".join(str(problem).split())[:160]
            found.warning(f"AWS {name}", f"could not be asked: {text}", "aws configure, or ask somebody with the right")
    return found


def _check_types(cluster: ClusterFile, found: Findings) -> None:
    names = sorted({node_type.config.text("InstanceType") for node_type in cluster.node_types})
    zones = [cluster.zone] if cluster.zones else []
    filters = [{"Name": "instance-type", "Values": names}, *([{"Name": "location", "Values": zones}] if zones else [])]
    kind = "availability-zone" if zones else "region"
    answer = client(cluster, "ec2").describe_instance_type_offerings(LocationType=kind, Filters=filters)
    offered = {offer["InstanceType"] for offer in answer["InstanceTypeOfferings"]}
    places = ", ".join(zones) or cluster.provider.text("region")
    for name in names:
        if name in offered:
            found.ok("AWS instance types", f"{name} is offered")
        else:
            found.error("AWS instance types", f"{name} is offered in none of {places}", "another zone, region or type")


def _check_images(cluster: ClusterFile, found: Findings) -> None:
    for image in sorted({node_type.config.text("ImageId") for node_type in cluster.node_types}):
        resolved = image
        if image.startswith("resolve:ssm:"):
            name = re.sub(r":\d+$", "", image.removeprefix("resolve:ssm:"))
            resolved = client(cluster, "ssm").get_parameter(Name=name)["Parameter"]["Value"]
        described = Section(client(cluster, "ec2").describe_images(ImageIds=[resolved])).sections("Images")
        if not described:
            what = f"{resolved} does not exist in {cluster.provider.text('region')}"
            found.error("AWS image", what, "an image of this region")
            continue
        disks = described[0].sections("BlockDeviceMappings")
        root = [disk for disk in disks if disk.text("DeviceName") == described[0].text("RootDeviceName")]
        size = root[0].section("Ebs").text("VolumeSize", "?") if root else "?"
        found.ok("AWS image", f"{resolved} {described[0].text('Name')} ({size} GB)")


def _check_templates(cluster: ClusterFile, found: Findings) -> None:
    missing = missing_templates(cluster)
    if missing:
        remedy = "sst2-ray up FILE --ssh-from YOUR_ADDRESS/32 --bucket NAME makes them"
        found.error("AWS launch templates", f"{', '.join(missing)} not in this account", remedy)
        return
    ec2 = client(cluster, "ec2")
    groups: set[str] = set()
    for node_type in cluster.node_types:
        name = node_type.config.section("LaunchTemplate").text("LaunchTemplateName")
        if name:
            answer = ec2.describe_launch_template_versions(LaunchTemplateName=name, Versions=["$Default"])
            (version,) = Section(answer).sections("LaunchTemplateVersions")[:1]
            groups |= set(version.section("LaunchTemplateData").texts("SecurityGroupIds"))
        groups |= set(node_type.config.texts("SecurityGroupIds"))
    for group in sorted(groups):
        described = Section(ec2.describe_security_groups(GroupIds=[group])).sections("SecurityGroups")[0]
        check_open_ports(f"AWS group {described.text('GroupName')}", described, found)


def _check_quotas(cluster: ClusterFile, cloud: Cloud, found: Findings) -> None:
    for node_type in cluster.node_types:
        _check_quota(cluster, node_type, found, spot=cloud.is_spot(node_type))


def _check_quota(cluster: ClusterFile, node_type: NodeType, found: Findings, *, spot: bool) -> None:
    instance = node_type.config.text("InstanceType")
    machine = machine_of("aws", instance)
    family = next((row for row in _QUOTAS if re.match(row[1], instance)), None)
    if machine is None or family is None:
        return
    market, code = ("spot", family[3]) if spot else ("on demand", family[2])
    quota = client(cluster, "service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
    allowed, wanted = float(quota["Value"]), machine.cpus * min(cluster.max_workers, node_type.max_workers)
    where, vcpus = f"AWS quota of {node_type.name}", f"{allowed:g} vCPUs of {family[0]} {market}"
    if allowed < machine.cpus:
        what = f"{vcpus}: not one {instance} ({machine.cpus})"
        found.error(where, what, f"ask for {wanted} (quota {code}); it takes hours to days")
    elif allowed < wanted:
        what = f"{vcpus}: {int(allowed // machine.cpus)} workers, not {wanted // machine.cpus}"
        found.warning(where, what, f"ask for {wanted} (quota {code})")
    else:
        found.ok(where, f"{allowed:g} vCPUs {market}, {wanted} needed at most")


def _check_running(cluster: ClusterFile, found: Findings) -> None:
    left = instances_of(cluster)
    found.ok("AWS instances", f"{len(left) or 'none'} of cluster {cluster.name}")
    stopped = [i.text("InstanceId") for i in left if i.section("State").text("Name") in ("stopped", "stopping")]
    if stopped:
        what = f"{', '.join(stopped)} stopped: their disks bill"
        found.warning("AWS instances", what, "sst2-ray down, or terminate them")
