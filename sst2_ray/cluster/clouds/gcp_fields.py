"""Keys and fixed values of a Google Cloud machine (Compute Engine's Instance), and what the image and the longest life must agree with."""

from __future__ import annotations

import re

from sst2_ray.cluster.clouds.checks import places
from sst2_ray.cluster.file import PLACEHOLDER, ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.life import life
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

_LISTS = (
    "networkInterfaces", "networkInterfaces.accessConfigs", "networkInterfaces.aliasIpRanges", "disks", "serviceAccounts",
    "serviceAccounts.scopes", "guestAccelerators", "metadata.items", "tags.items", "resourcePolicies", "scheduling.nodeAffinities",
)  # fmt: skip
_MAPPINGS = (
    "tags",
    "metadata",
    "labels",
    "shieldedInstanceConfig",
    "disks.initializeParams",
    "scheduling.maxRunDuration",
)
_DISK = re.compile(
    r"(.*/)?(pd-(standard|balanced|ssd|extreme)|hyperdisk-(balanced|extreme|throughput|ml|balanced-high-availability)|local-ssd)"
)
_KEY = re.compile(r"[a-z_][\w-]*:(ssh-(ed25519|rsa)|ecdsa-\S+|sk-\S+) [A-Za-z0-9+/=]{20,}")
_NO_STANDARD_DISK = ("g2-", "a3-", "a4-", "g4-", "c3-", "c3d-", "c4-", "n4-", "h3-")
"""Series that take no pd-standard, which is what a disk without diskType becomes."""
_CPU_PLATFORMS = (
    "Intel Sandy Bridge", "Intel Ivy Bridge", "Intel Haswell", "Intel Broadwell", "Intel Skylake", "Intel Cascade Lake", "Intel Ice Lake",
    "Intel Sapphire Rapids", "Intel Emerald Rapids", "Intel Granite Rapids", "AMD Rome", "AMD Milan", "AMD Genoa", "AMD Turin",
    "Ampere Altra", "AUTOMATIC",
)  # fmt: skip
_LARGEST_DISK_GB = 65536
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_PUBLIC_PROJECTS = (
    "deeplearning-platform-release",
    "ubuntu-os-cloud",
    "ubuntu-os-accelerator-images",
    "debian-cloud",
    "ml-images",
)
"""Projects whose images carry the date in their name: a name without it is a family's."""
_FIELDS: dict[str, dict[str, object]] = {
    "": dict.fromkeys(
        ("name", "description", "tags", "machineType", "canIpForward", "networkInterfaces", "disks", "metadata", "serviceAccounts",
         "scheduling", "labels", "guestAccelerators", "minCpuPlatform", "deletionProtection", "resourcePolicies", "shieldedInstanceConfig",
         "confidentialInstanceConfig", "advancedMachineFeatures", "reservationAffinity", "networkPerformanceConfig", "params", "hostname",
         "zone", "privateIpv6GoogleAccess", "sourceMachineImage", "keyRevocationActionType", "displayDevice", "eraseWindowsVssSignature")
    ),
    "networkInterfaces": {
        "network": None, "subnetwork": None, "networkIP": None, "accessConfigs": None, "aliasIpRanges": None, "name": None,
        "nicType": ("GVNIC", "VIRTIO_NET", "MRDMA", "IRDMA"), "stackType": ("IPV4_ONLY", "IPV4_IPV6", "IPV6_ONLY"), "queueCount": int,
        "ipv6AccessConfigs": None, "networkAttachment": None,
    },
    "networkInterfaces.accessConfigs": {
        "name": None, "type": ("ONE_TO_ONE_NAT", "DIRECT_IPV6"), "natIP": None, "networkTier": ("PREMIUM", "STANDARD"),
        "setPublicPtr": bool, "publicPtrDomainName": None, "externalIpv6": None,
    },
    "disks": {
        "boot": bool, "autoDelete": bool, "type": ("PERSISTENT", "SCRATCH"), "mode": ("READ_WRITE", "READ_ONLY"),
        "interface": ("SCSI", "NVME"), "initializeParams": None, "source": None, "deviceName": None, "index": int, "diskSizeGb": int,
        "diskEncryptionKey": None, "guestOsFeatures": None, "forceAttach": bool, "architecture": ("X86_64", "ARM64"),
    },
    "disks.initializeParams": {
        "diskName": None, "sourceImage": None, "diskSizeGb": int, "diskType": None, "labels": None, "description": None,
        "resourcePolicies": None, "provisionedIops": int, "provisionedThroughput": int, "onUpdateAction": None, "replicaZones": None,
        "sourceSnapshot": None, "architecture": ("X86_64", "ARM64"), "storagePool": None, "licenses": None,
        "sourceImageEncryptionKey": None, "sourceSnapshotEncryptionKey": None, "resourceManagerTags": None,
    },
    "scheduling": {
        "provisioningModel": None, "instanceTerminationAction": None, "onHostMaintenance": None, "automaticRestart": bool,
        "preemptible": bool, "maxRunDuration": None, "terminationTime": None, "nodeAffinities": None, "minNodeCpus": int,
        "localSsdRecoveryTimeout": None, "availabilityDomain": int, "onInstanceStopAction": None, "hostErrorTimeoutSeconds": int,
        "gracefulShutdown": None,
    },
    "serviceAccounts": {"email": None, "scopes": None},
    "guestAccelerators": {"acceleratorType": None, "acceleratorCount": int},
    "metadata": {"items": None, "fingerprint": None, "kind": None},
    "metadata.items": {"key": str, "value": str},
    "shieldedInstanceConfig": {"enableSecureBoot": bool, "enableVtpm": bool, "enableIntegrityMonitoring": bool},
}  # fmt: skip
"""Keys by their place; a tuple: the values that exist, a type: what the value must be, None: anything."""


def check_fields(cluster: ClusterFile, node_type: NodeType, found: Findings) -> None:
    """Check keys, fixed values and types at every depth, then image and longest life."""
    _visit(node_type.config.raw, "", node_type.config.path, found)
    for key, value in node_type.config.section("labels").raw.items():
        if not (_LABEL.fullmatch(key) and _LABEL.fullmatch(str(value))):
            found.error(node_type.config.at("labels"), f"{key}: {value!r} is refused", "small letters, digits, _ and -")
    for disk in node_type.config.sections("disks"):
        _check_family(disk.section("initializeParams"), found)
        _check_disk(node_type, disk, found)
    if node_type.config.get("deletionProtection") is True:
        found.error(node_type.config.at("deletionProtection"), "nothing can end the machine", "remove it")
    platform = node_type.config.text("minCpuPlatform")
    if platform and platform not in _CPU_PLATFORMS:
        found.error(
            node_type.config.at("minCpuPlatform"),
            f"{platform!r} does not exist",
            did_you_mean(platform, _CPU_PLATFORMS),
        )
    _check_life(cluster, node_type, found)
    _check_access(cluster, node_type, found)
    _check_network(cluster, node_type, found)


def _visit(value: object, place: str, path: str, found: Findings) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _visit(item, place, f"{path}[{index}]", found)
    known = _FIELDS.get(place)
    if not isinstance(value, dict) or known is None:
        return
    for key, item in value.items():
        where, inside = f"{path}.{key}", f"{place}.{key}".lstrip(".")
        if key not in known:
            what = "Compute Engine knows no such key, and refuses the launch"
            found.error(where, what, did_you_mean(str(key), known))
        elif remedy := _value_problem(item, known[key], inside):
            found.error(where, f"{item!r} is not what Compute Engine takes", remedy)
        _visit(item, inside, where, found)


def _value_problem(item: object, rule: object, place: str) -> str:
    """Return what the value should be; empty where it is right."""
    shape = list if place in _LISTS else dict if place in _MAPPINGS else object
    if not isinstance(item, shape):
        return f"a {'list' if shape is list else 'mapping'} is expected"
    if isinstance(rule, tuple):
        return "" if item in rule else did_you_mean(str(item), rule)
    if isinstance(rule, type) and type(item) is not rule:
        return "in quotation marks" if rule is str else f"a value of type {rule.__name__}, without quotation marks"
    return ""


def _check_disk(node_type: NodeType, disk: Section, found: Findings) -> None:
    """Check that the machine can start from the disk."""
    parameters, machine = disk.section("initializeParams"), node_type.config.text("machineType").rsplit("/", 1)[-1]
    kind, where = parameters.text("diskType"), parameters.at("diskType")
    if kind and "/" not in kind:
        what = f"{kind!r}: Compute Engine wants the kind with its zone, and refuses the launch"
        found.error(where, what, f"zones/ZONE/diskTypes/{kind}")
    if disk.get("boot") is True and machine.startswith(_NO_STANDARD_DISK):
        if not kind:
            what = f"missing: the default, pd-standard, cannot be had with {machine}, and the launch is refused"
            found.error(where, what, "zones/ZONE/diskTypes/pd-balanced")
        elif kind.endswith("pd-standard"):
            found.error(where, f"pd-standard cannot be had with {machine}", "zones/ZONE/diskTypes/pd-balanced")
    if disk.get("boot") is True and disk.text("type", "PERSISTENT") != "PERSISTENT":
        found.error(disk.at("type"), f"a machine cannot start from {disk.text('type')}", "PERSISTENT")
    if {"sourceImage", "sourceSnapshot"} <= parameters.raw.keys():
        found.error(parameters.at("sourceSnapshot"), "beside sourceImage: a disk is made from one of them", "remove it")
    if "diskName" in parameters:
        what = "a fixed name: the second machine is refused, since its disk exists"
        found.error(parameters.at("diskName"), what, "remove it")


def _check_family(parameters: Section, found: Findings) -> None:
    disk = parameters.text("diskType")
    if disk and not _DISK.fullmatch(disk):
        found.error(
            parameters.at("diskType"), f"{disk!r} is not a kind of disk", "pd-balanced, pd-ssd, hyperdisk-balanced"
        )
    if (parameters.whole("diskSizeGb") or 0) > _LARGEST_DISK_GB:
        found.error(
            parameters.at("diskSizeGb"), f"{parameters.whole('diskSizeGb')}: a disk takes {_LARGEST_DISK_GB}", "150"
        )
    image = parameters.text("sourceImage")
    if re.search(r"arm64|aarch64", image):
        found.error(
            parameters.at("sourceImage"), "an image for Arm, the machines and the wheels are x86-64", "without arm64"
        )
    named = re.search(r"projects/([^/]+)/global/images/(family/)?([^/]+)$", image)
    if not named or named[1] not in _PUBLIC_PROJECTS:
        return
    has_date = bool(re.search(r"v20\d{6}", named[3]))
    if has_date == bool(named[2]):
        kind = "an image's name, not a family's" if has_date else "a family's name, not an image's"
        right = f"images/{named[3]}" if has_date else f"images/family/{named[3]}"
        found.error(parameters.at("sourceImage"), f"{named[3]} is {kind}: it is not found", right)


def _check_access(cluster: ClusterFile, node_type: NodeType, found: Findings) -> None:
    """Check that workers have an account of their own, and that keys are whole."""
    heads = [other for other in cluster.node_types if other.is_head and not node_type.is_head]
    theirs = {account.text("email") for head in heads for account in head.config.sections("serviceAccounts")}
    for account in node_type.config.sections("serviceAccounts"):
        if account.text("email") in theirs:
            what = f"{account.text('email')} is the head's: workers would get the right to start and end machines"
            found.error(node_type.config.at("serviceAccounts"), what, "an account of the workers")
    for item in node_type.config.section("metadata").sections("items"):
        for line in item.text("value").splitlines() if item.text("key") == "ssh-keys" else ():
            if not PLACEHOLDER.search(line) and not _KEY.match(line):
                what = f"{line[:40]!r} is no public key with its user"
                found.error(node_type.config.section("metadata").path, what, "USER:ssh-ed25519 AAAA...")


def _check_network(cluster: ClusterFile, node_type: NodeType, found: Findings) -> None:
    config, interfaces = node_type.config, node_type.config.sections("networkInterfaces")
    named = [entry.text("subnetwork") or entry.text("network") for entry in interfaces]
    if not named or any(not name or name.endswith("/default") for name in named):
        what = "the default network lets the whole internet reach port 22"
        found.error(config.at("networkInterfaces"), what, "a network of its own, docs/cluster-gcp.md")
    public = any(entry.sections("accessConfigs") for entry in interfaces)
    if node_type.is_head and not public and not cluster.provider.get("use_internal_ips"):
        what = "the head has no public address, and neither `ray up` nor `submit` reaches it"
        remedy = "accessConfigs, or provider.use_internal_ips inside the network"
        found.error(config.at("networkInterfaces"), what, remedy)
    without = [zone for zone in cluster.zones if zone not in places("gcp_l4_zones")]
    if config.text("machineType").startswith("g2-") and without:
        remedy = "us-central1-a, -b or -c; gcloud compute accelerator-types list"
        found.error(config.at("machineType"), f"zone {', '.join(without)} has no L4", remedy)


def _check_life(cluster: ClusterFile, node_type: NodeType, found: Findings) -> None:
    """Check that Google and the watch on the machine agree on its longest life: Google would end a run in the middle."""
    seconds = node_type.config.section("scheduling").section("maxRunDuration").number("seconds")
    hours = life(cluster, "--max-hours")
    if seconds is not None and hours is not None and round(seconds) != round(3600 * hours):
        what = f"Google deletes the machine after {seconds / 3600:g} hours, autostop.sh says {hours:g}"
        found.warning(node_type.config.at("scheduling"), what, f"maxRunDuration: {{seconds: {3600 * hours:.0f}}}")
