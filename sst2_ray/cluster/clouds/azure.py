"""Azure. Never run against the real cloud: checked against Ray's schema, Ray's machine template and the tables here."""

from __future__ import annotations

import re
from pathlib import Path

from sst2_ray.cluster.clouds.base import Cloud, own_key
from sst2_ray.cluster.clouds.checks import check_machine, check_place
from sst2_ray.cluster.file import PLACEHOLDER, ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import machine_of, names_of
from sst2_ray.cluster.ray_private import azure_template_parameters, generated_key
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

MIN_ROOT_GB = 100
# Images with the NVIDIA driver; an own one by imageId is believed.
_GPU_OFFERS = ("ubuntu-hpc", "ubuntu-2204", "ubuntu-2404")
_HPC_SKUS = {"ubuntu-hpc": ("2204", "2404")}
"""First digits of the SKUs with a driver that is new enough."""
_IMAGE_KEYS = ("imagePublisher", "imageOffer", "imageSku", "imageVersion")
_OTHER_SIZES = re.compile(r"^Standard_[BDEF]\d+[a-z]*(_v\d)?$")


class Azure(Cloud):
    """Azure virtual machines."""

    platform = "azure"
    price_list = "azure"
    client_library = ("azure.mgmt.compute", "install the versions that docs/cluster-azure.md names")
    spot_remedy = "priority: Spot, evictionPolicy: Delete"

    def check(self, cluster: ClusterFile) -> Findings:
        """Check location, sizes, images, disks and priorities."""
        found = Findings()
        _check_place(cluster, found)
        for node_type in cluster.node_types:
            parameters = _parameters(node_type)
            if not isinstance(node_type.config.get("azure_arm_parameters"), dict):
                found.error(parameters.path, "missing", "copy it from the repository's file")
                continue
            known = azure_template_parameters()
            for name in parameters.raw.keys() - known.keys():
                what = f"Ray's machine template has no such parameter; {did_you_mean(name, known)}"
                found.error(parameters.at(name), what, "Azure would refuse the deployment")
            for key in node_type.config.raw.keys() - {"azure_arm_parameters", "tags"}:
                found.error(node_type.config.at(key), "is not read here", "put it into azure_arm_parameters")
            _check_types(parameters, known, found)
            _check_size(parameters, node_type, found)
            _check_spot(parameters, node_type, found)
        self.warn_without_spot(cluster, found)
        return found

    def key(self, cluster: ClusterFile) -> Path | None:
        """Return the file's key, or the one that `ray up` makes for this resource group."""
        location, group = cluster.provider.text("location"), cluster.provider.text("resource_group")
        user = cluster.auth.text("ssh_user", "ubuntu")
        return own_key(cluster) or generated_key("azure", None, location, group, user)

    def machine_name(self, node_type: NodeType) -> str:
        """Return the VM size."""
        return _parameters(node_type).text("vmSize")

    def is_spot(self, node_type: NodeType) -> bool:
        """Return True for Spot priority."""
        return _parameters(node_type).text("priority") == "Spot"


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "securestring": (str,), "int": (int,), "bool": (bool,), "object": (dict,), "array": (list,),
}  # fmt: skip


def _check_types(parameters: Section, known: dict[str, str], found: Findings) -> None:
    """Check the types of the template's parameters: Azure takes no number in place of a text."""
    for name, value in parameters.raw.items():
        kind = known.get(name, "")
        if kind in _TYPES and type(value) not in _TYPES[kind]:
            remedy = "in quotation marks" if kind == "string" else "without quotation marks and unit"
            found.error(parameters.at(name), f"{value!r} is no {kind}, and the template takes nothing else", remedy)
    price = parameters.section("billingProfile")
    for key in price.raw.keys() - {"maxPrice"}:
        found.error(price.at(key), "Azure knows no such key", did_you_mean(str(key), ["maxPrice"]))
    if "maxPrice" in price and price.number("maxPrice") is None:
        found.error(price.at("maxPrice"), f"{price.get('maxPrice')!r} is no number", "-1, without quotation marks")


def _parameters(node_type: NodeType) -> Section:
    return node_type.config.section("azure_arm_parameters")


def _check_place(cluster: ClusterFile, found: Findings) -> None:
    location = cluster.provider.text("location")
    if not re.fullmatch(r"[a-z]+\d?", location):
        found.error(
            "provider.location", f"{location!r} is not a location", "e.g. westus2; az account list-locations -o table"
        )
    else:
        check_place("provider.location", location, "azure", found)
    zone = cluster.provider.text("availability_zone")
    if zone and not re.fullmatch(r"none|auto|[1-3](\s*,\s*[1-3])*", zone):
        found.error("provider.availability_zone", f"{zone!r} is not a zone of Azure", '"1", "1,2" or none')
    _check_group(cluster, found)
    _check_exposure(cluster, found)
    if ("ssh_private_key" in cluster.auth) != ("ssh_public_key" in cluster.auth):
        found.error("auth", "one half of the key pair only", "give ssh_private_key and ssh_public_key, or neither")


def _check_group(cluster: ClusterFile, found: Findings) -> None:
    subscription, group = cluster.provider.text("subscription_id"), cluster.provider.text("resource_group")
    if not PLACEHOLDER.search(subscription) and not re.fullmatch(
        r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", subscription
    ):
        what = f"{subscription!r} is not a subscription's id"
        found.error("provider.subscription_id", what, "az account show --query id -o tsv")
    if group and not re.fullmatch(r"[\w.()-]{0,89}[\w()-]", group):
        what = f"{group!r} is refused as a name: letters, digits, _ . ( ) and -"
        found.error("provider.resource_group", what, "e.g. sst2-ray")
    if not cluster.provider.get("resource_group"):
        remedy = "a group of its own, so that deleting it removes everything"
        found.error("provider.resource_group", "missing", remedy)


def _check_exposure(cluster: ClusterFile, found: Findings) -> None:
    if cluster.provider.get("use_internal_ips") and not cluster.provider.get("use_external_head_ip"):
        what = "the head has no public address, and neither `ray up` nor `submit` reaches it"
        found.error(
            "provider.use_external_head_ip", what, "use_external_head_ip: True, unless you are inside the network"
        )
    if not cluster.provider.get("use_internal_ips"):
        what = "every machine gets a public address, and Ray's template opens port 22 of all to the internet"
        found.error("provider.use_internal_ips", what, "use_internal_ips: True and use_external_head_ip: True")
    what = "Ray gives the identity that may manage the resource group to every machine, workers included"
    found.warning("identity", what, "a resource group of its own, with nothing else in it")
    what = (
        "new networks get no way out by default: set-up needs one (a NAT gateway) on machines without a public address"
    )
    found.warning("network", what, "docs/cluster-azure.md")
    remedy = "close it right after `ray up`: az network nsg rule update, docs/cluster-azure.md"
    found.warning("network", "Ray's template opens port 22 of the head to the internet", remedy)


def _check_size(parameters: Section, node_type: NodeType, found: Findings) -> None:
    size, where = parameters.text("vmSize"), parameters.at("vmSize")
    machine = machine_of("azure", size)
    if re.match(r"Standard_[A-Z]+\d+[a-z]*p[a-z]*_", size):
        found.error(
            where,
            f"{size} is an Arm machine, the image and the wheels are x86-64",
            "a size without p, e.g. Standard_D4s_v5",
        )
        return
    if machine is None and not _OTHER_SIZES.match(size):
        what = f"{size!r} is not a size known here; {did_you_mean(size, names_of('azure'))}"
        found.error(where, what, "see az vm list-sizes")
        return
    if re.match(r"Standard_NV\d+(ads|as|s)_", size):
        what = (
            f"{size} takes NVIDIA's GRID drivers, the image brings the data-center driver: the GPU would not be found"
        )
        found.error(where, what, "an NC or ND size, e.g. Standard_NC24ads_A100_v4")
    check_machine(where, machine, size, node_type, found, may_have_gpu=not _OTHER_SIZES.match(size))
    if node_type.resources.whole("CPU") is None:
        what = "Ray reads no sizes from Azure: without resources nothing is ever scheduled here"
        found.error(node_type.path, what, "set CPU and GPU")
    disk = parameters.whole("osDiskSize")
    if disk is not None and disk > 4095:
        found.error(parameters.at("osDiskSize"), f"{disk} GB, an OS disk takes 4095", "256")
    if disk is None or disk < MIN_ROOT_GB:
        what = f"{parameters.get('osDiskSize')} GB: the image takes 40, torch with CUDA 8"
        found.error(parameters.at("osDiskSize"), what, f"{MIN_ROOT_GB} or more")
    else:
        found.ok(parameters.at("osDiskSize"), f"{disk} GB")
    if not parameters.get("imageId"):
        _check_image(parameters, found, has_gpu=bool(machine and machine.gpus))


def _check_image(parameters: Section, found: Findings, *, has_gpu: bool) -> None:
    publisher, offer, sku, version = (parameters.text(key) for key in _IMAGE_KEYS)
    if any(key not in parameters for key in _IMAGE_KEYS):
        found.error(parameters.path, "no image", f"{', '.join(_IMAGE_KEYS)}, or imageId")
    elif offer in _GPU_OFFERS and publisher != "microsoft-dsvm":
        what = f"{publisher} publishes no {offer}"
        found.error(parameters.at("imagePublisher"), what, "microsoft-dsvm")
    elif not re.fullmatch(r"latest|\d+(\.\d+)+", version):
        what = f"{version!r} is not a version"
        found.error(parameters.at("imageVersion"), what, "latest, or the numbers of one")
    elif offer in _HPC_SKUS and re.match(r"\d+", sku) and sku[:4] not in _HPC_SKUS[offer]:
        what = f"{offer} {sku} is none of the images whose driver fits torch's CUDA 13"
        found.error(parameters.at("imageSku"), what, f'"{_HPC_SKUS[offer][0]}"')
    elif has_gpu and parameters.text("imageOffer") not in _GPU_OFFERS:
        what = f"{parameters.text('imageOffer')!r} brings no NVIDIA driver"
        found.error(parameters.at("imageOffer"), what, "microsoft-dsvm ubuntu-hpc 2204")


def _check_spot(parameters: Section, node_type: NodeType, found: Findings) -> None:
    priority, where = parameters.text("priority", "Regular"), parameters.at("priority")
    most, machine = (
        parameters.section("billingProfile").number("maxPrice"),
        machine_of("azure", parameters.text("vmSize")),
    )
    price = machine.usd_per_hour if machine else None
    for key in ("evictionPolicy", "billingProfile"):
        if key in parameters and priority == "Regular":
            found.error(parameters.at(key), "Azure takes it with spot machines only", "remove it, or priority: Spot")
    if most is not None and most != -1 and price and most < 0.1 * price:
        what = f"at most {most:g} US$ an hour, where the list price is {price:g}: nothing is ever granted"
        found.error(parameters.at("billingProfile"), what, "maxPrice: -1")
    if priority not in ("Spot", "Regular"):
        remedy = "Spot or Regular (the autoscaler's own priority stands beside node_config)"
        found.error(where, f"{priority!r} is not a priority", remedy)
    elif priority == "Spot" and node_type.is_head:
        what = "the head is on spot: when it is taken every job ends"
        found.error(where, what, "remove it; the head is the cheap machine")
    elif priority == "Spot" and parameters.text("evictionPolicy", "Delete") != "Delete":
        what = "a taken machine stays deallocated, and its disk bills"
        found.error(parameters.at("evictionPolicy"), what, "evictionPolicy: Delete")
    elif priority == "Spot":
        found.ok(where, "spot, deleted when taken")
