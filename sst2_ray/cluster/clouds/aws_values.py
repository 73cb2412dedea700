"""Checks of values in an AWS file's node_config that EC2 takes by their form: ids, volumes, the image for its machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from sst2_ray.cluster.clouds.checks import Limits, check_limits
from sst2_ray.cluster.file import ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import machine_of
from sst2_ray.config.section import Section

_IDS = {
    "SubnetIds": "subnet", "SubnetId": "subnet", "SecurityGroupIds": "sg", "Groups": "sg", "LaunchTemplateId": "lt",
    "NetworkInterfaceId": "eni", "SnapshotId": "snap", "CapacityReservationId": "cr", "HostId": "h",
}  # fmt: skip
"""Keys whose values are ids, and what those begin with."""
_PROFILE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:instance-profile/[\w+=,.@/-]+")
_VOLUMES: dict[str, Limits] = {
    "gp3": {"VolumeSize": (1, 65536), "Iops": (3000, 80000), "Throughput": (125, 2000)},
    "gp2": {"VolumeSize": (1, 16384), "Iops": None, "Throughput": None},
    "io1": {"VolumeSize": (4, 16384), "Iops": (100, 64000), "Throughput": None},
    "io2": {"VolumeSize": (4, 65536), "Iops": (100, 256000), "Throughput": None},
    "standard": {"VolumeSize": (1, 1024), "Iops": None, "Throughput": None},
}
"""Limits of EC2's volume types that can hold a system; None: the type takes no such value."""
_ROOT_NAMES = {"/dev/sda1": ("ubuntu", "debian"), "/dev/xvda": ("al2023", "amazon-linux", "amzn")}
"""Names of the root volume, and the images that have it under this name."""
_LEFT_TO_RAY = {
    "MinCount": "max_workers of the node type says how many",
    "MaxCount": "max_workers of the node type says how many",
    "SubnetId": "SubnetIds: [subnet-...], from which Ray takes one",
    "DryRun": "remove it: EC2 would start nothing",
    "ClientToken": "remove it: a second machine would be taken for the first",
    "PrivateIpAddress": "remove it: a second machine cannot have the same address",
}
"""Keys of RunInstances that do not belong into node_config, and what to do instead."""
_EFA_CPUS = 32
"""The smallest machines with an elastic fabric adapter have so many CPUs."""
_DRIVER = re.compile(r"nvidia|gpu|deeplearning|dlami|cuda", re.IGNORECASE)


def check_values(cluster: ClusterFile, node_type: NodeType, found: Findings) -> None:
    """Make every check of this module for one node type."""
    _check_ids(node_type.config, found)
    _check_volumes(node_type.config, found)
    _check_image(node_type, found)
    _check_template_kept(node_type, found)
    _check_left_to_ray(node_type.config, found)
    _check_options(node_type, found)
    zone = node_type.config.section("Placement").text("AvailabilityZone")
    if zone and cluster.zones and zone not in cluster.zones:
        what = f"{zone}, and the cluster lies in {', '.join(cluster.zones)}"
        found.error(node_type.config.at("Placement"), what, "remove it: provider.availability_zone says where")


def _check_left_to_ray(config: Section, found: Findings) -> None:
    """Check that the file leaves alone what Ray itself gives to each launch."""
    for key, remedy in _LEFT_TO_RAY.items():
        if key in config:
            found.error(config.at(key), "Ray sets it at every launch, or the launch cannot succeed", remedy)
    for part in config.sections("TagSpecifications"):
        names = [tag.text("Key") for tag in part.sections("Tags")]
        own = [name for name in names if name.startswith("ray-")]
        if own:
            what = f"{', '.join(own)}: Ray finds its machines by these tags, and would lose them"
            found.error(config.at("TagSpecifications"), what, "names of your own")


def _check_options(node_type: NodeType, found: Findings) -> None:
    """Check options that EC2 refuses for the machine, or that cost more than the file says."""
    config, is_spot = node_type.config, "InstanceMarketOptions" in node_type.config
    machine = machine_of("aws", config.text("InstanceType"))
    cores, threads = (config.section("CpuOptions").whole(key) or 1 for key in ("CoreCount", "ThreadsPerCore"))
    if machine and cores * threads > machine.cpus:
        what = f"{cores} cores of {threads} threads, and {machine.name} has {machine.cpus} CPUs"
        found.error(config.at("CpuOptions"), what, "remove it")
    if config.section("HibernationOptions").get("Configured") is True:
        what = "a hibernated machine keeps its disks, and their bill; Ray never wakes it"
        found.error(config.at("HibernationOptions"), what, "remove it")
    tenancy = config.section("Placement").text("Tenancy", "default")
    if tenancy != "default":
        add = found.error if tenancy == "host" and is_spot else found.warning
        what = f"Tenancy {tenancy}: a machine of one's own is billed beside the instance; spot has no hosts"
        add(config.section("Placement").at("Tenancy"), what, "remove it")
    if is_spot and "CapacityReservationSpecification" in config:
        what = "a spot machine cannot use a reservation: the launch is refused"
        found.error(config.at("CapacityReservationSpecification"), what, "remove one of the two")
    if machine and machine.cpus < _EFA_CPUS:
        for interface in config.sections("NetworkInterfaces"):
            if interface.text("InterfaceType").startswith("efa"):
                what = f"{machine.name} has no elastic fabric adapter: the launch is refused"
                found.error(interface.at("InterfaceType"), what, "remove it")
    _check_forms(config, found)


def _check_forms(config: Section, found: Findings) -> None:
    version = config.section("LaunchTemplate").text("Version", "$Default")
    if not re.fullmatch(r"\$Latest|\$Default|\d+", version):
        found.error(config.section("LaunchTemplate").at("Version"), f"{version!r} is no version", "$Default")
    for path, value in _numbers(config.raw, config.path):
        if value < 0:
            found.error(path, f"{value:g} is less than nothing", "0 or more")


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    """Yield (path, number) of every number."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}[{index}]")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def _check_template_kept(node_type: NodeType, found: Findings) -> None:
    """Check that the file does not undo what the launch template sets for safety and for the bill."""
    config = node_type.config
    by_template = "terminate" if "LaunchTemplate" in config else "stop"  # EC2's own default
    if config.text("InstanceInitiatedShutdownBehavior", by_template) != "terminate":
        what = "a machine that shuts itself down would stay, and its disks bill: autostop ends nothing"
        found.error(
            config.at("InstanceInitiatedShutdownBehavior"), what, "InstanceInitiatedShutdownBehavior: terminate"
        )
    if config.section("MetadataOptions").text("HttpEndpoint", "enabled") != "enabled":
        what = "without it a machine neither gets its role nor hears that its spot capacity is taken"
        found.error(config.at("MetadataOptions"), what, "remove it")
    if config.section("MetadataOptions").text("HttpTokens", "required") != "required":
        what = "whatever fetches a URL on the machine can read the keys of its role"
        found.error(config.at("MetadataOptions"), what, "remove it: the launch template says HttpTokens: required")
    beside = [key for key in ("SecurityGroupIds", "SubnetIds") if key in config]
    if "NetworkInterfaces" in config and beside:
        what = f"beside {' and '.join(beside)}: EC2 takes groups and subnets in one of the two places"
        found.error(config.at("NetworkInterfaces"), what, "inside NetworkInterfaces, or without it")
    profile = config.section("IamInstanceProfile")
    if profile and "LaunchTemplate" in config:
        what = "replaces the launch template's profile, whose rights are bound to this cluster"
        found.warning(profile.path, what, "remove it, or a launch template of your own")
    if not node_type.is_head and re.search(r"-head$", profile.text("Name") or profile.text("Arn")):
        what = "the head's: workers would get the right to start and end machines"
        found.error(profile.path, what, "the profile of the workers")


def _values(value: object, path: str, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (path, last key, text) of every text."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _values(item, f"{path}.{name}", str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values(item, f"{path}[{index}]", key)
    elif isinstance(value, str):
        yield path, key, value


def _check_ids(config: Section, found: Findings) -> None:
    if "SubnetIds" in config and not isinstance(
        config.get("SubnetIds"), list
    ):  # Ray's own key: EC2's rules do not name it
        found.error(config.at("SubnetIds"), "is not a list", f"[{config.text('SubnetIds')}]")
    for path, key, text in _values(config.raw, config.path):
        begin = _IDS.get(key)
        if begin and not re.fullmatch(rf"{begin}-[0-9a-f]{{8}}([0-9a-f]{{9}})?", text):
            found.error(path, f"{text!r} is not an id", f"{begin}- and 8 or 17 hex digits")
        if key == "Arn" and path.endswith("IamInstanceProfile.Arn") and not _PROFILE.fullmatch(text):
            found.error(path, f"{text!r} names no instance profile", "arn:aws:iam::ACCOUNT:instance-profile/NAME")
        if key == "KeyName" and re.search(r"[/~]|\.pem$", text):
            found.error(path, f"{text!r} is a path, EC2 wants a name", "the name without folder and .pem")


def _check_volumes(config: Section, found: Findings) -> None:
    disks = config.sections("BlockDeviceMappings")
    for name, times in Counter(disk.text("DeviceName") for disk in disks).items():
        if times > 1:
            found.error(config.at("BlockDeviceMappings"), f"{name} is mapped {times} times", "a name for each")
    image = config.text("ImageId").lower()
    for right, images in _ROOT_NAMES.items():
        wrong = [disk for disk in disks if disk.text("DeviceName") in _ROOT_NAMES.keys() - {right}]
        if wrong and any(word in image for word in images):
            what = f"{wrong[0].text('DeviceName')}: the image's root volume is {right}: this is a second disk beside a small one"
            found.error(config.at("BlockDeviceMappings"), what, f"DeviceName: {right}")
    for disk in disks:
        _check_volume(disk, found)


def _check_volume(disk: Section, found: Findings) -> None:
    volume = disk.section("Ebs")
    limits = _VOLUMES.get(volume.text("VolumeType", "gp2"))
    if volume.text("VolumeType") in ("io1", "io2") and "Iops" not in volume:
        found.error(volume.at("Iops"), "missing: these volumes are launched with a number", "gp3 needs none")
    if volume.text("VolumeType") == "standard":
        found.warning(volume.at("VolumeType"), "a magnetic disk: set-up takes many times longer", "gp3")
    if limits is not None:
        check_limits(volume, limits, f"a {volume.text('VolumeType', 'gp2')} volume", found)
    elif volume.text("VolumeType") in ("st1", "sc1") and disk.text("DeviceName") in _ROOT_NAMES:
        what = f"{volume.text('VolumeType')} cannot hold a system: the launch is refused"
        found.error(volume.at("VolumeType"), what, "gp3")


def _check_image(node_type: NodeType, found: Findings) -> None:
    """Check that a public parameter names an image for this machine: x86-64, with a driver where there is a GPU."""
    where, image = node_type.config.at("ImageId"), node_type.config.text("ImageId")
    if not image.startswith("resolve:ssm:"):
        return
    machine = machine_of("aws", node_type.config.text("InstanceType"))
    if re.search(r"/(arm64|aarch64)\b", image):
        found.error(where, "an image for Arm, the machines and the wheels are x86-64", "x86_64 in place of arm64")
    elif image.startswith("resolve:ssm:/aws/service/") and machine and machine.gpus and not _DRIVER.search(image):
        what = f"{image.removeprefix('resolve:ssm:')} brings no NVIDIA driver, and {machine.name} has a GPU"
        found.error(where, what, "the resolve:ssm: line of the repository's ray_cluster.yaml")
