"""The parts of an Azure file that Ray's schema lets pass."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.machines import check_machine, is_spot
from sst2_ray.cluster.doctor.ray_file import node_config, node_types
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.prices import machine_of, names_of
from sst2_ray.errors import did_you_mean

MIN_ROOT_GB = 100
# Images with the NVIDIA driver; an own one by imageId is believed.
_GPU_OFFERS = ("ubuntu-hpc", "ubuntu-2204", "ubuntu-2404")
_OTHER_SIZES = re.compile(r"^Standard_[BDEF]\d+[a-z]*(_v\d)?$")


def check_azure(cluster: ClusterFile) -> list[Finding]:
    """Every offline check of an Azure file."""
    findings = _place(cluster)
    head = cluster.config.get("head_node_type")
    spot = False
    for name, node_type in node_types(cluster).items():
        where = f"available_node_types.{name}"
        parameters = node_config(node_type).get("azure_arm_parameters")
        where = f"{where}.node_config.azure_arm_parameters"
        if not isinstance(parameters, dict):
            findings.append(error(where, "missing", "copy it from the repository's file"))
            continue
        findings += _parameters(where, parameters)
        findings += _machine(where, parameters, node_type, is_head=name == head)
        findings += _spot(where, parameters, is_head=name == head)
        spot = spot or (is_spot(cluster, node_type) and name != head)
    if not spot:
        findings.append(
            warning(
                "available_node_types",
                "no worker type asks for spot: two to three times the price",
                "priority: Spot, evictionPolicy: Delete",
            )
        )
    return findings


@functools.cache
def template_parameters() -> frozenset[str]:
    """What Ray's own machine template takes; anything else is refused by Azure at the deployment, minutes in."""
    import ray.autoscaler._private as private

    path = Path(private.__file__ or "").parent / "_azure" / "azure-vm-template.json"
    return frozenset(json.loads(path.read_text())["parameters"]) | {"availability_zone"}


def _place(cluster: ClusterFile) -> list[Finding]:
    provider = cluster.provider
    findings = []
    if not re.fullmatch(r"[a-z]+\d?", str(provider.get("location", ""))):
        findings.append(
            error(
                "provider.location",
                f"{provider.get('location')!r} is not a location",
                "e.g. westus2; az account list-locations -o table",
            )
        )
    if not provider.get("resource_group"):
        findings.append(
            error("provider.resource_group", "missing", "a group of its own, so that deleting it removes everything")
        )
    if not provider.get("use_internal_ips"):
        findings.append(
            error(
                "provider.use_internal_ips",
                "every machine gets a public address, and Ray's template opens port 22 of all to the internet",
                "use_internal_ips: True and use_external_head_ip: True",
            )
        )
    findings.append(warning("network", "Ray's template opens port 22 of the head to the internet",
                            "close it right after `ray up`: az network nsg rule update, docs/cluster-azure.md"))  # fmt: skip
    auth = cluster.config.get("auth") or {}
    if ("ssh_private_key" in auth) != ("ssh_public_key" in auth):
        findings.append(
            error("auth", "one half of the key pair only", "give ssh_private_key and ssh_public_key, or neither")
        )
    return findings


def _parameters(where: str, parameters: dict[str, Any]) -> list[Finding]:
    return [
        error(
            f"{where}.{name}",
            f"Ray's machine template has no such parameter; {did_you_mean(name, template_parameters())}",
            "Azure would refuse the deployment",
        )
        for name in parameters
        if name not in template_parameters()
    ]


def _machine(where: str, parameters: dict[str, Any], node_type: dict[str, Any], *, is_head: bool) -> list[Finding]:
    size = str(parameters.get("vmSize", ""))
    machine = machine_of("azure", size)
    if machine is None and not _OTHER_SIZES.match(size):
        return [
            error(
                f"{where}.vmSize",
                f"{size!r} is not a size known here; {did_you_mean(size, names_of('azure'))}",
                "see az vm list-sizes",
            )
        ]
    findings = check_machine(f"{where}.vmSize", machine, size, node_type, is_head=is_head)
    if not isinstance((node_type.get("resources") or {}).get("CPU"), int):
        findings.append(
            error(
                f"{where}",
                "Ray reads no sizes from Azure: without resources nothing is ever scheduled here",
                "set CPU and GPU",
            )
        )
    disk = parameters.get("osDiskSize")
    if not isinstance(disk, int) or disk < MIN_ROOT_GB:
        findings.append(
            error(f"{where}.osDiskSize", f"{disk} GB: the image takes 40, torch with CUDA 8", f"{MIN_ROOT_GB} or more")
        )
    else:
        findings.append(ok(f"{where}.osDiskSize", f"{disk} GB"))
    offer = str(parameters.get("imageOffer", ""))
    if (
        not parameters.get("imageId")
        and not {"imagePublisher", "imageOffer", "imageSku", "imageVersion"} <= parameters.keys()
    ):
        findings.append(error(where, "no image", "imagePublisher, imageOffer, imageSku and imageVersion, or imageId"))
    elif machine and machine.gpus and not parameters.get("imageId") and offer not in _GPU_OFFERS:
        findings.append(
            error(f"{where}.imageOffer", f"{offer!r} brings no NVIDIA driver", "microsoft-dsvm ubuntu-hpc 2204")
        )
    return findings


def _spot(where: str, parameters: dict[str, Any], *, is_head: bool) -> list[Finding]:
    priority = parameters.get("priority", "Regular")
    if priority not in ("Spot", "Regular", "Low"):
        return [
            error(
                f"{where}.priority",
                f"{priority!r} is not a priority",
                "Spot or Regular (the autoscaler's own priority stands beside node_config)",
            )
        ]
    if priority != "Spot":
        return []
    if is_head:
        return [
            error(
                f"{where}.priority",
                "the head is on spot: when it is taken every job ends",
                "remove it; the head is the cheap machine",
            )
        ]
    if parameters.get("evictionPolicy", "Delete") != "Delete":
        return [
            error(
                f"{where}.evictionPolicy",
                "a taken machine stays deallocated, and its disk bills",
                "evictionPolicy: Delete",
            )
        ]
    return [ok(f"{where}.priority", "spot, deleted when taken")]
