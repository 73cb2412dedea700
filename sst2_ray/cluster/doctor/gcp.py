"""The parts of a Google Cloud file that Ray's schema lets pass."""

from __future__ import annotations

import re
from typing import Any

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.machines import check_machine, is_spot
from sst2_ray.cluster.doctor.ray_file import node_config, node_types
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.prices import Machine, machine_of, names_of
from sst2_ray.errors import did_you_mean

MIN_ROOT_GB = 80
# Series whose GPU belongs to the machine; n1 attaches one by guestAccelerators.
_BUILT_IN = ("g2-", "a2-", "a3-", "a4-", "g4-")
_ACCELERATORS = {"nvidia-tesla-t4": "T4", "nvidia-tesla-v100": "V100", "nvidia-tesla-p100": "P100"}
_OTHER_SERIES = re.compile(
    r"^(e2|n1|n2|n2d|n4|c2|c2d|c3|c3d|c4|t2d|m1|m2|m3)-(standard|highmem|highcpu|custom)-\d+(-\d+)?$"
)


def check_gcp(cluster: ClusterFile) -> list[Finding]:
    """Every offline check of a Google Cloud file."""
    findings = _place(cluster)
    head = cluster.config.get("head_node_type")
    spot = False
    for name, node_type in node_types(cluster).items():
        where, config = f"available_node_types.{name}", node_config(node_type)
        is_head = name == head
        machine, problems = _machine(where, config)
        findings += problems
        if not problems:
            findings += check_machine(
                f"{where}.node_config.machineType", machine, str(config.get("machineType")), node_type, is_head=is_head
            )
        has_gpu = bool(machine and machine.gpus)
        findings += _disk(where, config, has_gpu=has_gpu)
        findings += _network(where, config)
        findings += _scheduling(cluster, where, node_type, has_gpu=has_gpu, is_head=is_head)
        spot = spot or (is_spot(cluster, node_type) and not is_head)
        if not isinstance((node_type.get("resources") or {}).get("CPU"), int):
            findings.append(
                error(
                    f"{where}.resources",
                    "Ray reads no sizes from Google Cloud: without them nothing is ever scheduled here",
                    "set CPU and GPU",
                )
            )
        if is_head and not config.get("serviceAccounts"):
            findings.append(
                error(
                    f"{where}.node_config.serviceAccounts",
                    "missing: Ray's default account may administer all of compute and storage",
                    "an account of its own, docs/cluster-gcp.md",
                )
            )
    if not spot:
        findings.append(
            warning(
                "available_node_types",
                "no worker type asks for spot: two to three times the price",
                "scheduling: {provisioningModel: SPOT, ...}",
            )
        )
    return findings


def _place(cluster: ClusterFile) -> list[Finding]:
    region, zone = str(cluster.provider.get("region", "")), str(cluster.provider.get("availability_zone", ""))
    findings = []
    if not re.fullmatch(re.escape(region) + "-[a-z]", zone) or not re.fullmatch(r"[a-z]+-[a-z]+\d+", region):
        findings.append(
            error(
                "provider.availability_zone",
                f"{zone!r} is not a zone of region {region!r}",
                "e.g. us-central1 and us-central1-a",
            )
        )
    if not cluster.provider.get("project_id"):
        findings.append(error("provider.project_id", "missing", "the id (not the name) of your project"))
    return findings or [ok("provider.availability_zone", zone)]


def _machine(where: str, config: dict[str, Any]) -> tuple[Machine | None, list[Finding]]:
    where, name = f"{where}.node_config", str(config.get("machineType", ""))
    machine = machine_of("gcp", name)
    attached = [entry for entry in config.get("guestAccelerators") or [] if isinstance(entry, dict)]
    if machine is None and not _OTHER_SERIES.match(name):
        return None, [
            error(
                f"{where}.machineType",
                f"{name!r} is not a machine type known here; {did_you_mean(name, names_of('gcp'))}",
                "see gcloud compute machine-types list",
            )
        ]
    if attached and name.startswith(_BUILT_IN):
        return machine, [
            error(
                f"{where}.guestAccelerators",
                f"{name} brings its GPU, naming one again is refused at launch",
                "remove guestAccelerators",
            )
        ]
    if attached and machine is not None:
        kind = str(attached[0].get("acceleratorType", "")).rsplit("/", 1)[-1]
        count = int(attached[0].get("acceleratorCount", 0))
        if kind not in _ACCELERATORS:
            return machine, [
                error(
                    f"{where}.guestAccelerators", f"{kind!r} cannot be attached", f"one of {', '.join(_ACCELERATORS)}"
                )
            ]
        return Machine(
            cloud="gcp",
            name=name,
            cpus=machine.cpus,
            memory_gib=machine.memory_gib,
            gpus=count,
            gpu=_ACCELERATORS[kind],
        ), []
    return machine, []


def _disk(where: str, config: dict[str, Any], *, has_gpu: bool) -> list[Finding]:
    where = f"{where}.node_config.disks"
    boot = next((disk for disk in config.get("disks") or [] if isinstance(disk, dict) and disk.get("boot")), None)
    if boot is None:
        return [error(where, "no boot disk", "copy disks from the repository's file")]
    findings = []
    parameters = boot.get("initializeParams") or {}
    size, image = parameters.get("diskSizeGb"), str(parameters.get("sourceImage", ""))
    if not isinstance(size, int) or size < MIN_ROOT_GB:
        findings.append(
            error(
                where,
                f"boot disk of {size} GB: the image takes 50, torch with CUDA 8",
                f"diskSizeGb {MIN_ROOT_GB} or more",
            )
        )
    if boot.get("autoDelete") is not True:
        findings.append(error(where, "the disk stays, and bills, after its machine is gone", "autoDelete: true"))
    if not re.search(r"^(https://.*/)?projects/[^/]+/global/images/(family/)?[^/]+$", image):
        findings.append(error(where, f"{image!r} is not an image", "projects/PROJECT/global/images/family/FAMILY"))
    elif has_gpu and not re.search(r"-cu\d|nvidia|gpu", image):
        findings.append(
            error(
                where, f"{image.rsplit('/', 1)[-1]} brings no NVIDIA driver", "a family with -cu or nvidia in its name"
            )
        )
    return findings or [ok(where, f"boot disk of {size} GB, goes with its machine")]


def _network(where: str, config: dict[str, Any]) -> list[Finding]:
    interfaces = [entry for entry in config.get("networkInterfaces") or [] if isinstance(entry, dict)]
    named = [str(entry.get("subnetwork") or entry.get("network") or "") for entry in interfaces]
    if not named or any(not name or name.endswith("/default") for name in named):
        return [
            error(
                f"{where}.node_config.networkInterfaces",
                "the default network lets the whole internet reach port 22",
                "a network of its own, docs/cluster-gcp.md",
            )
        ]
    return []


def _scheduling(
    cluster: ClusterFile, where: str, node_type: dict[str, Any], *, has_gpu: bool, is_head: bool
) -> list[Finding]:
    where, scheduling = f"{where}.node_config.scheduling", node_config(node_type).get("scheduling")
    entry: dict[str, Any] = {}
    for part in scheduling if isinstance(scheduling, list) else [scheduling]:
        entry.update(part if isinstance(part, dict) else {})
    findings = []
    if is_head and is_spot(cluster, node_type):
        findings.append(
            error(
                where,
                "the head is on spot: when it is taken every job ends",
                "remove it; the head is the cheap machine",
            )
        )
    if has_gpu and entry.get("onHostMaintenance") != "TERMINATE":
        findings.append(
            error(
                where,
                "machines with a GPU cannot be moved while they run: the launch is refused",
                "onHostMaintenance: TERMINATE",
            )
        )
    if entry.get("provisioningModel") == "SPOT" and entry.get("instanceTerminationAction") != "DELETE":
        findings.append(
            error(
                where, "a taken machine stays as a stopped one, and its disk bills", "instanceTerminationAction: DELETE"
            )
        )
    return findings
