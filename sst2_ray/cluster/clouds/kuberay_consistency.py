"""Checks of a RayJob or a RayService against itself: volumes, sizes, deadlines, versions, and the command that it runs."""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from pathlib import PurePosixPath

from sst2_ray.cluster.file import shipped
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.flags import parse
from sst2_ray.config.section import Section
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError, did_you_mean

JOBS = ("train.py", "sweep.py", "predict.py", "report.py")
CLUSTER_KEYS = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
"""Kinds of manifests, and the key of their cluster."""
_BARE = ("--dry-run", "--calibrate", "--json", "--help", "-h")
_UNITS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_GPU = "nvidia.com/gpu"
_LEAST_BYTES = 2**26
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_consistency(manifest: Section, ray_cluster: Section, found: Findings) -> None:
    """Make every check of a manifest against itself."""
    spec, is_job = manifest.section("spec"), manifest.text("kind") == "RayJob"
    head, groups = ray_cluster.section("headGroupSpec"), ray_cluster.sections("workerGroupSpecs")
    pods = [("head", head), *((group.text("groupName"), group) for group in groups)]
    _check_names(manifest, groups, found)
    if is_job:
        _check_deadlines(spec, found)
    for name, group in pods:
        _check_pod(name, group.section("template").section("spec"), found)
    for name, group in pods:
        _check_start(name, group, found)
    reserved = max(spec.number("entrypointNumGpus") or 0, spec.number("entrypointNumCpus") or 0)
    if reserved:
        what = f"the command itself reserves {reserved:g}, beside what its workers ask for; the head offers none"
        found.warning("spec.entrypointNumCpus", what, "remove entrypointNumCpus and entrypointNumGpus")
    head_spec = head.section("template").section("spec")
    if ray_cluster.get("enableInTreeAutoscaling") and head_spec.get("automountServiceAccountToken") is False:
        what = "the autoscaler's container cannot talk to the API server: no worker is ever added"
        found.error("head.automountServiceAccountToken", what, "true on the head")
    _check_restricted(ray_cluster, [*pods, *([("submitter", _submitter(spec))] if is_job else [])], found)
    _check_tags(ray_cluster, [group for _, group in pods], found)
    if is_job:
        _check_entrypoint(spec, [group for _, group in pods], found)


def _check_names(manifest: Section, groups: list[Section], found: Findings) -> None:
    metadata = manifest.section("metadata")
    for key in ("name", "generateName"):
        name = metadata.text(key).rstrip("-")
        if key in metadata and not _NAME.fullmatch(name):
            found.error(
                metadata.at(key), f"{metadata.text(key)!r} is refused as a name", "small letters, digits and hyphens"
            )
    if "name" not in metadata and "generateName" not in metadata:
        found.error(metadata.path, "has neither name nor generateName", "generateName: sst2-train-")
    for name, times in Counter(group.text("groupName") for group in groups).items():
        if times > 1:
            where = "spec.rayClusterSpec.workerGroupSpecs"
            found.error(where, f"groupName {name!r} is given {times} times", "a name of its own for each group")


def _check_start(name: str, group: Section, found: Findings) -> None:
    """Check what Ray is told at its start against the pod's limits."""
    start, spec = group.section("rayStartParams"), group.section("template").section("spec")
    limits = [container.section("resources").section("limits") for container in spec.sections("containers")]
    gpus = next((limit.text("nvidia.com/gpu") for limit in limits if "nvidia.com/gpu" in limit), "0")
    told = start.text("num-gpus")
    if told and told != gpus:
        what = f"num-gpus {told}, and the pod has {gpus}"
        found.error(f"{name}.rayStartParams", what, "remove it: Ray counts them")
    host = start.text("dashboard-host")
    if name == "head" and host and host != "0.0.0.0":  # nosec B104: compared, not bound to
        what = f"the dashboard listens on {host}: the submitter, a pod of its own, cannot reach it"
        found.error("head.rayStartParams", what, 'dashboard-host: "0.0.0.0"; the service keeps it inside the cluster')
    for volume in spec.sections("volumes"):
        if "persistentVolumeClaim" in volume and not volume.section("persistentVolumeClaim").text("claimName"):
            found.error(
                f"{name}.volumes", f"{volume.text('name')} names no claim", "persistentVolumeClaim: {claimName: ...}"
            )


def _check_deadlines(spec: Section, found: Findings) -> None:
    before, whole = spec.whole("preRunningDeadlineSeconds"), spec.whole("activeDeadlineSeconds")
    if before is not None and whole is not None and before >= whole:
        what = f"{before} s to start, and the whole run may take {whole} s"
        found.error("spec.preRunningDeadlineSeconds", what, "less than activeDeadlineSeconds")
    if spec.get("suspend") is True:
        found.error("spec.suspend", "the run never starts", "remove it")


def quantity(text: str) -> float | None:
    """Return the value of one of Kubernetes' quantities, e.g. 500m or 28Gi; None where it is none."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text)
    return float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else None


def _check_pod(name: str, spec: Section, found: Findings) -> None:
    volumes = [volume.text("name") for volume in spec.sections("volumes")]
    containers = [*spec.sections("containers"), *spec.sections("initContainers")]
    if not spec.sections("containers"):
        found.error(f"{name}.containers", "there is none", "copy it from cluster/kuberay-rayjob.yaml")
    for container in containers:
        where, mounts = f"{name}.{container.text('name')}", container.sections("volumeMounts")
        for mount in mounts:
            if mount.text("name") not in volumes:
                found.error(
                    f"{where}.volumeMounts",
                    f"{mount.text('name')!r} is no volume of the pod",
                    did_you_mean(mount.text("name"), volumes),
                )
        for path, times in Counter(mount.text("mountPath") for mount in mounts).items():
            if times > 1:
                found.error(f"{where}.volumeMounts", f"{path} is mounted {times} times", "a path of its own for each")
        _check_sizes(where, container, spec, found)
    security = spec.section("securityContext")
    if security.get("runAsNonRoot") is True and security.whole("runAsUser") == 0:
        found.error(f"{name}.securityContext", "runAsUser 0 is root, and runAsNonRoot refuses it", "runAsUser: 1000")


def _check_sizes(where: str, container: Section, spec: Section, found: Findings) -> None:
    requests, limits = (container.section("resources").section(key) for key in ("requests", "limits"))
    for key in requests.raw:
        asked, most = quantity(requests.text(key)), quantity(limits.text(key))
        if asked is None:
            found.error(f"{where}.requests.{key}", f"{requests.text(key)!r} is not a quantity", "e.g. 28Gi, 500m, 4")
        elif most is not None and asked > most:
            what = f"{requests.text(key)} is more than its limit {limits.text(key)}: the pod is refused"
            found.error(f"{where}.requests.{key}", what, "the same value for both")
        elif key == _GPU and asked != most:
            what = "GPUs cannot be shared: request and limit must be equal"
            found.error(f"{where}.requests.{key}", what, "the same value for both")
    for key in limits.raw:
        if quantity(limits.text(key)) is None:
            found.error(f"{where}.limits.{key}", f"{limits.text(key)!r} is not a quantity", "e.g. 28Gi, 500m, 4")
    _check_amounts(where, {**requests.raw, **limits.raw}, found)
    memory = quantity(limits.text("memory"))
    for volume in spec.sections("volumes"):
        size = quantity(volume.section("emptyDir").text("sizeLimit", "0"))
        if volume.section("emptyDir").text("medium") == "Memory" and size and memory and size >= memory:
            taken = volume.section("emptyDir").text("sizeLimit")
            what = f"{volume.text('name')} may take {taken} of memory, the container has {limits.text('memory')}"
            found.error(f"{where}.volumes", what, "a quarter of the memory")


def _check_amounts(where: str, amounts: dict[str, object], found: Findings) -> None:
    """Check that amounts are ones with which a container can start."""
    for key, value in amounts.items():
        amount = quantity(str(value))
        if amount is None:
            continue
        if key == _GPU and amount != int(amount):
            found.error(f"{where}.limits.{key}", "GPUs cannot be shared: a whole number", "1")
        if key in ("memory", "ephemeral-storage") and amount < _LEAST_BYTES:
            found.error(f"{where}.limits.{key}", f"{amount:g} bytes: nothing starts in them", "with a unit, e.g. 24Gi")


def _submitter(spec: Section) -> Section:
    """Return the group of a RayJob's submitter, with the bare container that KubeRay makes where none is described."""
    if "submitterPodTemplate" in spec or spec.text("submissionMode", "K8sJobMode") != "K8sJobMode":
        return Section({"template": spec.get("submitterPodTemplate")})
    return Section({"template": {"spec": {"containers": [{"name": "submitterPodTemplate"}]}}})


def _check_restricted(ray_cluster: Section, pods: list[tuple[str, Section]], found: Findings) -> None:
    """Warn of containers that a namespace with the `restricted` standard refuses."""
    containers = [
        (f"{name}.{container.text('name')}", container)
        for name, group in pods
        for container in group.section("template").section("spec").sections("containers")
    ]
    if ray_cluster.get("enableInTreeAutoscaling"):
        containers.append(("autoscalerOptions", ray_cluster.section("autoscalerOptions")))
    for where, container in containers:
        context = container.section("securityContext")
        dropped = context.section("capabilities").texts("drop")
        if context.get("allowPrivilegeEscalation") is not False or "ALL" not in dropped:
            what = "namespaces with the `restricted` standard refuse a container without a security context of its own"
            found.warning(
                f"{where}.securityContext", what, "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
            )


def _check_tags(ray_cluster: Section, groups: list[Section], found: Findings) -> None:
    named = ray_cluster.text("rayVersion")
    for group in groups:
        for container in group.section("template").section("spec").sections("containers"):
            tag = re.search(r":(\d+\.\d+\.\d+)[^:/]*$", container.text("image"))
            if tag and tag[1] != named:
                what = f"the image's tag says {tag[1]}, rayVersion {named}"
                found.error(f"{container.text('name')}.image", what, "the image of this version of Ray")


def _check_entrypoint(spec: Section, groups: list[Section], found: Findings) -> None:
    where = "spec.entrypoint"
    try:
        words = shlex.split(spec.text("entrypoint"))
    except ValueError as error:
        found.error(where, f"cannot be read: {error}", "close the quotation")
        return
    if not words:
        found.error(where, "is empty: nothing is run", "python /home/ray/sst2-ray/jobs/train.py ...")
    elif words[0].endswith(".py"):
        found.error(where, f"{words[0]} is not executable", f"python {words[0]} ...")
    _check_project(spec, groups, found)
    scripts = [PurePosixPath(word) for word in words if word.endswith(".py")]
    _check_scripts(scripts, found)
    if scripts and scripts[0].name == "train.py":
        given = [word for word in words[words.index(str(scripts[0])) + 1 :] if word not in _BARE]
        try:
            parse(TrainConfig, given, prog="jobs/train.py")
        except InputError as error:
            found.error(where, str(error), "the run would end at once with exit code 2")
    _check_storage(words, groups, found)


def _check_scripts(scripts: list[PurePosixPath], found: Findings) -> None:
    """Check that the scripts are those of the image, where it has them."""
    where, folder = "spec.entrypoint", _image_folder()
    for script in scripts:
        if folder and "sst2" in str(script) and not script.is_relative_to(folder):
            what = f"{script}: the image of cluster/Dockerfile has the project in {folder}"
            found.warning(where, what, f"{folder}/jobs/{script.name}")
        if script.parent.name == "jobs" and script.name not in JOBS:
            found.error(where, f"the image has no jobs/{script.name}", did_you_mean(script.name, JOBS))


def _image_folder() -> str:
    """Return the folder of the project in the image of cluster/Dockerfile; empty where that does not lie here."""
    path = shipped("cluster/Dockerfile")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    named = re.search(r"^COPY\b.* jobs (/\S+)/jobs$", text, re.MULTILINE)
    return named[1] if named else ""


def _check_project(spec: Section, groups: list[Section], found: Findings) -> None:
    """Check that the image holds the project that the command runs."""
    specs = [group.section("template").section("spec") for group in groups]
    images = [container.text("image") for pod in specs for container in pod.sections("containers")]
    own = [image for image in images if re.match(r"(docker\.io/)?rayproject/ray", image)]
    if own and re.search(r"sst2|jobs/", spec.text("entrypoint")) and "runtimeEnvYAML" not in spec:
        what = f"{own[0]} is Ray's own image, without this project"
        found.error("spec.entrypoint", what, "the image of cluster/Dockerfile")


def _check_storage(words: list[str], groups: list[Section], found: Findings) -> None:
    pairs = dict(itertools.pairwise(word for pair in words for word in pair.split("=", 1)))
    path = pairs.get("--storage-path", "")
    if re.match(r"[a-z0-9]+:/?[^/]", path):
        found.error("spec.entrypoint", f"--storage-path {path} is no URI", path.replace(":/", "://", 1))
    if not path.startswith("/"):
        return
    for group in groups:
        if not _is_kept(path, group, found):
            return


def _is_kept(path: str, group: Section, found: Findings) -> bool:
    """Return True where the pods of a group find the path on a volume that outlives them."""
    pod = group.section("template").section("spec")
    mounts = [mount for container in pod.sections("containers") for mount in container.sections("volumeMounts")]
    own = [volume.text("name") for volume in pod.sections("volumes") if "emptyDir" in volume]
    holding = [mount for mount in mounts if _holds(mount, path)]
    if not holding:
        what = f"--storage-path {path} lies on no volume of {group.text('groupName', 'the head')}: it goes with the pod"
        mounted = ", ".join(mount.text("mountPath") for mount in mounts)
        found.error("spec.entrypoint", what, f"a path below one of {mounted}")
        return False
    if any(mount.text("name") in own for mount in holding):
        what = f"--storage-path {path} lies on an emptyDir: each pod has one of its own, and it goes with the pod"
        found.error("spec.entrypoint", what, "a persistentVolumeClaim, s3:// or gs://")
        return False
    return True


def _holds(mount: Section, path: str) -> bool:
    return bool(mount.text("mountPath")) and PurePosixPath(path).is_relative_to(mount.text("mountPath"))
