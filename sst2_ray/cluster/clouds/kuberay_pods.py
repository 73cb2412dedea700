"""Checks of a KubeRay manifest's pods that need no schema: rights, storage, tolerations, ends, and what Ray is told at its start."""

from __future__ import annotations

import re

import yaml

from sst2_ray.cluster.clouds.kuberay_consistency import quantity
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.ray_private import start_value_problem
from sst2_ray.config.section import Section

_GPU = "nvidia.com/gpu"
_LONGEST_LIFE_S = 14 * 86400
_LEAST_READY_S = 60
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = ("hostNetwork", "hostPID", "hostIPC")
_SHAPES: dict[str, type] = {
    "securityContext": dict, "imagePullSecrets": list, "command": list, "args": list, "affinity": dict, "nodeSelector": dict,
    "resources": dict, "seccompProfile": dict, "capabilities": dict, "initContainers": list, "tolerations": list, "volumes": list,
    "dnsConfig": dict, "lifecycle": dict, "livenessProbe": dict, "readinessProbe": dict, "startupProbe": dict, "envFrom": list,
    "valueFrom": dict, "topologySpreadConstraints": list, "runtimeClassName": str, "serviceAccountName": str, "schedulerName": str,
    "priorityClassName": str, "mountPath": str, "subPath": str, "image": str, "drop": list, "add": list, "entrypoint": str,
    "runtimeEnvYAML": str, "serveConfigV2": str, "groupName": str, "claimName": str, "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int, "submitterPodTemplate": dict, "submitterConfig": dict,
}  # fmt: skip
"""Types by key, the same wherever the key stands."""
_AFFINITY = ("nodeAffinity", "podAffinity", "podAntiAffinity")


def check_pods(manifest: Section, ray_cluster: Section, pods: list[tuple[str, Section]], found: Findings) -> None:
    """Make every check of this module. `pods`: (name, group), the head first."""
    spec = manifest.section("spec")
    _check_shapes(spec.raw, "spec", found)
    for name, group in pods:
        pod = group.section("template").section("spec")
        _check_rights(name, pod, found)
        _check_tolerations(name, pod, found)
        _check_mounts(name, pod, found)
        _check_start(name, group, pod, found)
        if name != "head" and pod.get("terminationGracePeriodSeconds") in (0, 1, 2, 3, 4, 5):
            what = "a pod that is taken is killed before it can write a checkpoint"
            found.warning(f"{name}.terminationGracePeriodSeconds", what, "120")
    for group in ray_cluster.sections("workerGroupSpecs"):
        if not _LABEL.fullmatch(group.text("groupName")):
            what = f"{group.get('groupName')!r} is refused as a name"
            found.error(group.at("groupName"), what, "small letters, digits and hyphens")
    if manifest.text("kind") == "RayJob":
        _check_job(spec, found)
    for key in ("serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"):
        seconds = spec.whole(key)
        if seconds is not None and seconds < _LEAST_READY_S:
            what = f"{seconds} s: a replica that still loads its model is taken for a dead one"
            found.warning(f"spec.{key}", what, "300 or more")


def _check_shapes(value: object, path: str, found: Findings) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_shapes(item, f"{path}[{index}]", found)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        shape = _SHAPES.get(str(key))
        if shape is not None and item is not None and type(item) is not shape:
            kind = {dict: "a mapping", list: "a list", str: "a text", int: "a whole number"}[shape]
            found.error(f"{path}.{key}", f"{item!r} is not what the server takes", f"{kind} is expected")
        if str(key) == "affinity" and isinstance(item, dict):
            for wrong in item.keys() - set(_AFFINITY):
                found.error(f"{path}.affinity.{wrong}", "no such key", " or ".join(_AFFINITY))
        _check_shapes(item, f"{path}.{key}", found)


def _check_rights(name: str, pod: Section, found: Findings) -> None:
    for key in _HOST:
        if pod.get(key) is True:
            what = "the pod shares it with its node and with every other pod that does: Ray's ports collide"
            found.warning(f"{name}.{key}", what, "remove it")
    for secret in pod.items("imagePullSecrets"):
        if not isinstance(secret, dict):
            found.error(f"{name}.imagePullSecrets", f"{secret!r} is not a mapping", f"- name: {secret}")
    for container in pod.sections("containers"):
        _check_container(f"{name}.{container.text('name')}", container, found)


def _check_container(where: str, container: Section, found: Findings) -> None:
    context = container.section("securityContext")
    if container.text("name") and not _LABEL.fullmatch(container.text("name")):
        what = f"{container.text('name')!r} is refused as a name"
        found.error(where, what, "small letters, digits and hyphens")
    added = context.section("capabilities").texts("add")
    if added:
        what = f"adds {', '.join(added)}: training needs no right of the node"
        found.warning(f"{where}.securityContext", what, "remove add")
    written = [mount.text("mountPath").rstrip("/") for mount in container.sections("volumeMounts")]
    if context.get("readOnlyRootFilesystem") is True and "/tmp" not in written:  # nosec B108: a mount
        what = "Ray writes its session below /tmp, and does not start"
        found.error(f"{where}.securityContext", what, "a volume at /tmp, or without readOnlyRootFilesystem")
    if container.get("command") and not isinstance(container.get("command"), str):
        what = "KubeRay starts Ray by the container's command: with another one it never runs"
        found.warning(f"{where}.command", what, "remove it; spec.entrypoint is the run's command")
    for entry in container.sections("env"):
        if "value" in entry and "valueFrom" in entry:
            found.error(f"{where}.env", f"{entry.text('name')} has value and valueFrom", "one of them")


def _check_tolerations(name: str, pod: Section, found: Findings) -> None:
    tolerations = pod.sections("tolerations")
    for toleration in tolerations:
        if toleration.text("operator") == "Exists" and toleration.text("value"):
            found.error(f"{name}.tolerations", "Exists takes no value: the pod is refused", "remove value, or Equal")
        if "tolerationSeconds" in toleration and toleration.text("effect") != "NoExecute":
            found.error(f"{name}.tolerations", "tolerationSeconds goes with NoExecute alone", "remove it")
    limits = [container.section("resources").section("limits") for container in pod.sections("containers")]
    keys = {toleration.text("key") for toleration in tolerations}
    if any(_GPU in limit for limit in limits) and not keys & {_GPU, ""}:
        what = "GPU nodes are usually tainted with nvidia.com/gpu: the pod would wait for ever where nothing adds it"
        found.warning(f"{name}.tolerations", what, "{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}")


def _check_mounts(name: str, pod: Section, found: Findings) -> None:
    claims = [volume for volume in pod.sections("volumes") if "persistentVolumeClaim" in volume]
    context = pod.section("securityContext")
    if claims and context.whole("runAsUser") and "fsGroup" not in context:
        what = f"user {context.whole('runAsUser')} may not write to the claim of most kinds of storage"
        found.warning(f"{name}.securityContext", what, "fsGroup: 100")
    for volume in pod.sections("volumes"):
        if "hostPath" in volume:
            what = f"{volume.text('name')} is a folder of the node: every node has another one"
            found.warning(f"{name}.volumes", what, "a persistentVolumeClaim that many nodes can write")
        size = volume.section("emptyDir").get("sizeLimit")
        if size is not None and quantity(str(size)) is None:
            found.error(f"{name}.volumes", f"sizeLimit {size!r} is not a quantity", "e.g. 6Gi")
    for container in pod.sections("containers"):
        _check_paths(name, container, found)


def _check_paths(name: str, container: Section, found: Findings) -> None:
    for mount in container.sections("volumeMounts"):
        if mount.text("subPath").startswith("/") or ".." in mount.text("subPath").split("/"):
            found.error(f"{name}.volumeMounts", f"subPath {mount.text('subPath')} is refused", "a relative path")
    for key in ("livenessProbe", "readinessProbe"):
        port = container.section(key).section("httpGet").get("port")
        ports = {entry.get(part) for entry in container.sections("ports") for part in ("containerPort", "name")}
        if port is not None and port not in ports:
            what = f"asks port {port}, on which nothing listens: the pod is restarted for ever"
            found.error(f"{name}.{key}", what, "remove it: KubeRay adds its own")


def _check_start(name: str, group: Section, pod: Section, found: Findings) -> None:
    """Check values of `ray start` as Ray reads them, against the container."""
    start = group.section("rayStartParams")
    limits = [container.section("resources").section("limits") for container in pod.sections("containers")[:1]]
    for key, value in start.raw.items():
        problem = start_value_problem(f"--{key}", str(value)) if isinstance(value, str) and "$" not in value else ""
        if problem:
            found.error(start.at(str(key)), f"{value}: {problem}", "correct the value")
    told, has = start.text("num-cpus"), [quantity(limit.text("cpu", "0")) or 0 for limit in limits]
    if re.fullmatch(r"\d+", told) and has and int(told) > has[0] > 0:
        what = f"num-cpus {told}, and the container has {has[0]:g}: workers would share what they count on"
        found.error(start.at("num-cpus"), what, "remove it: Ray reads the limits")
    port = start.text("port")
    if name == "head" and port not in ("", "6379"):
        found.error(start.at("port"), f"{port}: KubeRay's service and the workers look at 6379", "remove it")


def _check_job(spec: Section, found: Findings) -> None:
    mode = spec.text("submissionMode", "K8sJobMode")
    unread = [key for key in ("submitterPodTemplate", "submitterConfig") if key in spec]
    if mode != "K8sJobMode" and unread:
        what = f"{' and '.join(unread)} are not read in {mode}, and there is no pod with the run's log and exit code"
        found.warning("spec.submissionMode", what, "K8sJobMode")
    if "clusterSelector" in spec:
        what = "the run goes to another cluster: this one is never made, and shutdownAfterJobFinishes is refused"
        found.error("spec.clusterSelector", what, "remove it")
    life = spec.whole("activeDeadlineSeconds")
    if life is not None and life > _LONGEST_LIFE_S:
        what = f"{life / 86400:g} days: what a forgotten run costs at most"
        found.warning("spec.activeDeadlineSeconds", what, "86400")
    if life is not None and life < 600:
        what = f"{life} s: a node with a GPU alone takes longer than that to start"
        found.error("spec.activeDeadlineSeconds", what, "86400")
    try:
        environment = Section(yaml.safe_load(spec.text("runtimeEnvYAML")) or {}, "spec.runtimeEnvYAML")
    except yaml.YAMLError as error:
        found.error("spec.runtimeEnvYAML", f"cannot be read: {' '.join(str(error).split())[:120]}", "indent it below |")
        return
    for key in environment.raw.keys() & {"pip", "conda", "uv", "container", "image_uri"}:
        what = f"{key}: packages are installed at every start, over those that the image was tested with"
        found.warning(environment.at(key), what, "into the image, by the lock")
