"""Google Cloud. Never run against the real cloud: checked against Ray's schema and the tables here."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sst2_ray.cluster.clouds.base import Cloud, Instance, own_key
from sst2_ray.cluster.clouds.checks import check_machine, check_place
from sst2_ray.cluster.clouds.gcp_api import end_instances, instances_of
from sst2_ray.cluster.clouds.gcp_fields import check_fields
from sst2_ray.cluster.file import PLACEHOLDER, ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import Machine, machine_of, names_of
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

MIN_ROOT_GB = 80
OLDEST_DRIVER = 580
_OLDEST_CUDA = 129  # the first of Google's image families that came with driver 580
# Series whose GPU belongs to the machine; n1 attaches one by guestAccelerators.
_BUILT_IN = ("g2-", "a2-", "a3-", "a4-", "g4-")
_ACCELERATORS = {"nvidia-tesla-t4": "T4", "nvidia-tesla-v100": "V100", "nvidia-tesla-p100": "P100"}
_OTHER_SERIES = re.compile(
    r"^(e2|n1|n2|n2d|n4|c2|c2d|c3|c3d|c4|t2d|m1|m2|m3)-(standard|highmem|highcpu|custom)-\d+(-\d+)?$"
)
_SCHEDULING = {
    "provisioningModel": ("STANDARD", "SPOT"),
    "onHostMaintenance": ("MIGRATE", "TERMINATE"),
    "instanceTerminationAction": ("STOP", "DELETE"),
}
_IMAGE = re.compile(r"^(https://.*/)?projects/[^/]+/global/images/(family/)?[^/]+$")


class Gcp(Cloud):
    """Google Compute Engine."""

    platform = "gcp"
    price_list = "gcp"
    client_library = ("googleapiclient", "pip install google-api-python-client google-auth-httplib2 cryptography")
    sizes_from_cloud = True
    spot_remedy = "scheduling: {provisioningModel: SPOT, ...}"

    def check(self, cluster: ClusterFile) -> Findings:
        """Check zone, machine types, images, disks, network, scheduling and accounts."""
        found = Findings()
        _check_place(cluster, found)
        for node_type in cluster.node_types:
            machine, known = _machine(node_type.config, found)
            if known:
                name = node_type.config.text("machineType")
                where, series = node_type.config.at("machineType"), _OTHER_SERIES.match(name)
                check_machine(where, machine, name, node_type, found, may_have_gpu=not series)
            check_fields(cluster, node_type, found)
            has_gpu = bool(machine and machine.gpus)
            _check_disk(node_type.config, found, has_gpu=has_gpu)
            _check_references(cluster, node_type, found)
            _check_keys(cluster, node_type, found)
            self._check_scheduling(node_type, found, has_gpu=has_gpu)
            if node_type.resources.whole("CPU") is None:
                what = "Ray reads no sizes from Google Cloud: without them nothing is ever scheduled here"
                found.error(node_type.section.at("resources"), what, "set CPU and GPU")
            if not node_type.config.items("serviceAccounts"):
                where, remedy = node_type.config.at("serviceAccounts"), "an account of its own, docs/cluster-gcp.md"
                if node_type.is_head:
                    found.error(
                        where, "missing: Ray's default account may administer all of compute and storage", remedy
                    )
                else:
                    found.warning(where, "workers without an account reach no bucket", remedy)
        self.warn_without_spot(cluster, found)
        return found

    def key(self, cluster: ClusterFile) -> Path | None:
        """Return the file's key, or the first one that `ray up` makes for this project."""
        from sst2_ray.cluster.ray_private import generated_key

        region, project = cluster.provider.text("region"), cluster.provider.text("project_id")
        return own_key(cluster) or generated_key("gcp", 0, region, project, cluster.auth.text("ssh_user", "ubuntu"))

    def status(self, cluster: ClusterFile) -> list[Instance] | None:
        """Return the cluster's machines in every zone of its region: Ray lists those of one zone."""
        return instances_of(cluster)

    def end(self, cluster: ClusterFile) -> None:
        """Delete what lies in other zones, or has stopped."""
        end_instances(cluster)

    def limit_life(self, cluster: ClusterFile, limits: Mapping[str, float]) -> ClusterFile:
        """Change `maxRunDuration` as well, after which Google deletes a machine without anybody's right."""
        cluster, max_hours = super().limit_life(cluster, limits), limits.get("--max-hours")
        if max_hours is None:
            return cluster
        document = copy.deepcopy(cluster.document.raw)
        for _, node_type in Section(document).section("available_node_types").named():
            scheduling = node_type.section("node_config").section("scheduling").raw
            if "maxRunDuration" in scheduling and max_hours:
                scheduling["maxRunDuration"] = {"seconds": round(3600 * max_hours)}
            elif "maxRunDuration" in scheduling:
                del scheduling["maxRunDuration"]
                if scheduling.get("provisioningModel") != "SPOT":
                    scheduling.pop("instanceTerminationAction", None)
        return replace(cluster, document=Section(document))

    def is_spot(self, node_type: NodeType) -> bool:
        """Return True for preemptible machines, in the old or the new spelling."""
        scheduling = _scheduling(node_type.config)
        return bool(scheduling.get("preemptible")) or scheduling.text("provisioningModel") == "SPOT"

    def _check_scheduling(self, node_type: NodeType, found: Findings, *, has_gpu: bool) -> None:
        where, scheduling = node_type.config.at("scheduling"), _scheduling(node_type.config)
        for key, allowed in _SCHEDULING.items():
            if key in scheduling and scheduling.text(key) not in allowed:
                found.error(where, f"{key} {scheduling.text(key)!r} does not exist", f"one of {', '.join(allowed)}")
        if self.is_spot(node_type) and scheduling.get("automaticRestart") is True:
            found.error(where, "spot machines cannot be restarted, the launch is refused", "automaticRestart: false")
        if node_type.is_head and self.is_spot(node_type):
            what = "the head is on spot: when it is taken every job ends"
            found.error(where, what, "remove it; the head is the cheap machine")
        if has_gpu and scheduling.text("onHostMaintenance") != "TERMINATE":
            what = "machines with a GPU cannot be moved while they run: the launch is refused"
            found.error(where, what, "onHostMaintenance: TERMINATE")
        _check_life(scheduling, where, found, is_spot=self.is_spot(node_type))
        if scheduling.text("provisioningModel") == "SPOT" and scheduling.text("instanceTerminationAction") != "DELETE":
            what = "a taken machine stays as a stopped one, and its disk bills"
            found.error(where, what, "instanceTerminationAction: DELETE")


def _check_life(scheduling: Section, where: str, found: Findings, *, is_spot: bool) -> None:
    """Check that Google itself deletes the machine after its longest life."""
    limited = "maxRunDuration" in scheduling
    if limited and scheduling.section("maxRunDuration").whole("seconds") is None:
        found.error(where, "maxRunDuration is no duration", "maxRunDuration: {seconds: 259200}")
    if "instanceTerminationAction" in scheduling and not limited and not is_spot:
        what = "instanceTerminationAction is for spot machines and those with maxRunDuration: the launch is refused"
        found.error(where, what, "maxRunDuration: {seconds: 259200} beside it")
    if limited and scheduling.text("instanceTerminationAction") != "DELETE":
        what = "after maxRunDuration the machine stays as a stopped one, and its disk bills"
        found.error(where, what, "instanceTerminationAction: DELETE")
    if not limited:
        what = "Google itself never ends the machine: only the watch on it does"
        found.warning(where, what, "maxRunDuration: {seconds: 259200}, instanceTerminationAction: DELETE")


def _scheduling(config: Section) -> Section:
    """Return the scheduling section; Ray's older files write it as a list of mappings."""
    merged: dict[str, object] = {}
    for part in config.sections("scheduling"):
        merged.update(part.raw)
    return Section({**config.section("scheduling").raw, **merged}, config.at("scheduling"))


def _check_place(cluster: ClusterFile, found: Findings) -> None:
    region, zones = cluster.provider.text("region"), cluster.zones
    wrong = [zone for zone in zones or ("",) if not re.fullmatch(re.escape(region) + "-[a-z]", zone)]
    if wrong or not re.fullmatch(r"[a-z]+-[a-z]+\d+", region):
        what = f"{', '.join(wrong)!r} is not a zone of region {region!r}"
        found.error("provider.availability_zone", what, "e.g. us-central1 and us-central1-a")
    else:
        check_place("provider.region", region, "gcp", found)
    project = cluster.provider.text("project_id")
    if not project:
        found.error("provider.project_id", "missing", "the id (not the name) of your project")
    elif not PLACEHOLDER.search(project) and not re.fullmatch(r"([a-z.]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", project):
        what = f"{project!r} is not a project's id: 6 to 30 small letters, digits and hyphens"
        found.error("provider.project_id", what, "gcloud projects list")
    if not found:
        found.ok("provider.availability_zone", ", then ".join(zones))


def _machine(config: Section, found: Findings) -> tuple[Machine | None, bool]:
    """Return (machine with its attached GPUs, None where the table lacks it; False where an error was found)."""
    name = config.text("machineType")
    machine = machine_of("gcp", name)
    attached = config.sections("guestAccelerators")
    if machine is None and not _OTHER_SERIES.match(name):
        what = f"{name!r} is not a machine type known here; {did_you_mean(name, names_of('gcp'))}"
        found.error(config.at("machineType"), what, "see gcloud compute machine-types list")
        return None, False
    where = config.at("guestAccelerators")
    if attached and name.startswith(_BUILT_IN):
        found.error(where, f"{name} brings its GPU, naming one again is refused at launch", "remove guestAccelerators")
        return machine, False
    if attached and machine is not None:
        kind = attached[0].text("acceleratorType").rsplit("/", 1)[-1]
        if kind not in _ACCELERATORS:
            found.error(where, f"{kind!r} cannot be attached", f"one of {', '.join(_ACCELERATORS)}")
            return machine, False
        count = attached[0].whole("acceleratorCount") or 0
        with_gpu = Machine(
            cloud="gcp",
            name=name,
            cpus=machine.cpus,
            memory_gib=machine.memory_gib,
            gpus=count,
            gpu=_ACCELERATORS[kind],
        )
        return with_gpu, True
    return machine, True


def _check_references(cluster: ClusterFile, node_type: NodeType, found: Findings) -> None:
    """Check that zones, regions and projects inside node_config are those of the provider section."""
    provider = cluster.provider
    mine = {"zones": cluster.zones, "regions": (provider.text("region"),), "projects": (provider.text("project_id"),)}
    for path, text in node_type.config.strings():
        for kind, name in re.findall(r"\b(zones|regions|projects)/([\w.:-]+)", text):
            if name not in mine[kind] and not (kind == "projects" and path.endswith("sourceImage")):
                what = f"{kind}/{name}, and the cluster is in {', '.join(mine[kind])}"
                found.error(path, what, "the same as in the provider section")
    where, before = node_type.config.at("serviceAccounts"), len(found)
    for account in node_type.config.sections("serviceAccounts"):
        email, scopes = account.text("email"), account.texts("scopes")
        owner = re.fullmatch(r"[\w-]+@([\w.-]+)\.iam\.gserviceaccount\.com", email)
        if not owner and not email.endswith("developer.gserviceaccount.com"):
            found.error(where, f"{email!r} is not a service account", "NAME@PROJECT.iam.gserviceaccount.com")
        elif owner and owner[1] not in mine["projects"]:
            what = f"{email} belongs to another project than {', '.join(mine['projects'])}"
            found.error(where, what, "an account of this project")
        if not any(scope.endswith("/auth/cloud-platform") for scope in scopes):
            what = "without the scope cloud-platform the account's roles do not count here"
            found.error(where, what, 'scopes: ["https://www.googleapis.com/auth/cloud-platform"]')
    if len(found) == before:
        found.ok(where, "accounts and places are those of the project")


def _check_keys(cluster: ClusterFile, node_type: NodeType, found: Findings) -> None:
    """Check that the cluster's key, and no key of the project, opens the machines."""
    where = node_type.config.section("metadata").at("items")
    items = {item.text("key"): item.text("value") for item in node_type.config.section("metadata").sections("items")}
    if own_key(cluster) is None:
        what = "`ray up` puts a key into the metadata of the project: it opens every machine of it"
        found.warning("auth.ssh_private_key", what, "a key of this cluster, docs/cluster-gcp.md")
        return
    user = cluster.auth.text("ssh_user", "ubuntu")
    if not any(line.startswith(f"{user}:") for line in items.get("ssh-keys", "").splitlines()):
        what = f"no ssh-keys for {user}, and auth.ssh_private_key is set: nobody could log in"
        found.error(where, what, f'{{key: ssh-keys, value: "{user}:PUBLIC KEY"}}')
    if items.get("block-project-ssh-keys", "").upper() != "TRUE":
        what = "keys of the project open this machine, too"
        found.warning(where, what, '{key: block-project-ssh-keys, value: "TRUE"}')


def _check_disk(config: Section, found: Findings, *, has_gpu: bool) -> None:
    where, before = config.at("disks"), len(found)
    boot = next((disk for disk in config.sections("disks") if disk.get("boot")), None)
    if boot is None:
        found.error(where, "no boot disk", "copy disks from the repository's file")
        return
    if sum(bool(disk.get("boot")) for disk in config.sections("disks")) > 1:
        found.error(where, "two boot disks, the launch is refused", "boot: true on the first only")
    parameters = boot.section("initializeParams")
    size, image = parameters.whole("diskSizeGb"), parameters.text("sourceImage")
    if size is None or size < MIN_ROOT_GB:
        what = f"boot disk of {parameters.get('diskSizeGb')} GB: the image takes 50, torch with CUDA 8"
        found.error(where, what, f"diskSizeGb {MIN_ROOT_GB} or more")
    if boot.get("autoDelete") is not True:
        found.error(where, "the disk stays, and bills, after its machine is gone", "autoDelete: true")
    _check_image(where, image, found, has_gpu=has_gpu)
    if len(found) == before:
        found.ok(where, f"boot disk of {size} GB, goes with its machine")


def _check_image(where: str, image: str, found: Findings, *, has_gpu: bool) -> None:
    if not _IMAGE.search(image):
        found.error(where, f"{image!r} is not an image", "projects/PROJECT/global/images/family/FAMILY")
    elif has_gpu and not re.search(r"-cu\d|nvidia|gpu", image):
        what = f"{image.rsplit('/', 1)[-1]} brings no NVIDIA driver"
        found.error(where, what, "a family with -cu or nvidia in its name")
    cuda = re.search(r"-cu(\d{3})\b", image)
    driver = re.search(r"-nvidia-(\d{3})\b", image)
    if has_gpu and cuda and not driver and int(cuda[1]) < _OLDEST_CUDA:
        what = f"the driver of {image.rsplit('/', 1)[-1]} is too old for torch's CUDA 13"
        found.error(where, what, f"a family with -nvidia-{OLDEST_DRIVER}")
    if has_gpu and driver and int(driver[1]) < OLDEST_DRIVER:
        what = f"the image brings driver {driver[1]}, torch's CUDA 13 needs {OLDEST_DRIVER}"
        found.error(where, what, f"a family with -nvidia-{OLDEST_DRIVER}")
