"""Keys, types and fixed values of a KubeRay manifest, told without the operator's schema, and what head and workers must agree on."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from sst2_ray.cluster.clouds.checks import check_image_tag
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.ray_private import start_flags
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

_VALUES: dict[str, tuple[object, ...]] = {
    "tolerations.operator": ("Exists", "Equal"),
    "tolerations.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "serviceType": ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    "ports.protocol": ("TCP", "UDP", "SCTP"),
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "upscalingMode": ("Default", "Aggressive", "Conservative"),
    "autoscalerOptions.version": ("v1", "v2"),
    "emptyDir.medium": ("", "Memory", "HugePages", "HugePages-2Mi", "HugePages-1Gi"),
    "seccompProfile.type": ("RuntimeDefault", "Localhost", "Unconfined"),
    "authOptions.mode": ("token", "disabled"),
    "preemptionPolicy": ("PreemptLowerPriority", "Never"),
}
"""Fixed values by the end of their path."""
_WHOLE = re.compile(
    r"Seconds$|SecondThreshold$|Replicas$|^replicas$|^(container|host)Port$|^runAs(User|Group)$|^fsGroup$|^backoffLimit$|^numOfHosts$|^ttlSecondsAfterFinished$"
)
_TRUE_OR_FALSE = re.compile(
    r"^(enableInTreeAutoscaling|shutdownAfterJobFinishes|suspend|automountServiceAccountToken|runAsNonRoot|privileged|readOnly|"
    r"allowPrivilegeEscalation|readOnlyRootFilesystem|hostNetwork|hostPID|hostIPC)$"
)
_FREE = (
    "rayStartParams",
    "requests",
    "limits",
    "labels",
    "annotations",
    "nodeSelector",
    "matchLabels",
    "entrypointResources",
)
"""Mappings whose keys are the user's own; their values are texts or quantities."""
_TEXTS = ("rayStartParams", "labels", "annotations", "nodeSelector", "matchLabels")
_KEYS: dict[str, frozenset[str]] = {
    place: frozenset(keys.split())
    for place, keys in {
        "containers": "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy"
        " resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath"
        " terminationMessagePolicy tty volumeDevices volumeMounts workingDir",
        "containers.resources": "limits requests claims",
        "containers.ports": "containerPort hostIP hostPort name protocol",
        "containers.env": "name value valueFrom",
        "containers.volumeMounts": "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
        "template": "metadata spec",
        "template.spec": "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks"
        " ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets initContainers"
        " nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims resources"
        " restartPolicy runtimeClassName schedulerName schedulingGates schedulingGroup securityContext serviceAccount serviceAccountName"
        " setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes",
        "spec.volumes": "name awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI emptyDir ephemeral fc"
        " flexVolume flocker gcePersistentDisk glusterfs hostPath image iscsi nfs persistentVolumeClaim photonPersistentDisk"
        " portworxVolume projected quobyte rbd scaleIO secret storageos vsphereVolume",
        "tolerations": "key operator value effect tolerationSeconds",
        "emptyDir": "medium sizeLimit",
        "persistentVolumeClaim": "claimName readOnly",
        "secretKeyRef": "name key optional",
        "configMapKeyRef": "name key optional",
        "headGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources serviceType template",
        "workerGroupSpecs": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas"
        " resources scaleStrategy suspend template",
        "autoscalerOptions": "args command env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode"
        " version volumeMounts",
        "rayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec"
        " headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions upgradeStrategy"
        " workerGroupSpecs",
    }.items()
}
"""Keys by the end of the path; a place that is not named is not checked."""
_KEYS["rayClusterConfig"] = _KEYS["rayClusterSpec"]
_KEYS["submitterPodTemplate"] = _KEYS["template"]
_LISTS = ("containers", "initContainers", "volumes", "volumeMounts", "env", "ports", "tolerations", "workerGroupSpecs")
_MAPPINGS = (
    "spec", "template", "metadata", "resources", "limits", "requests", "emptyDir", "persistentVolumeClaim", "rayStartParams",
    "headGroupSpec", "rayClusterSpec", "rayClusterConfig", "autoscalerOptions", "securityContext", "nodeSelector", "secretKeyRef",
)  # fmt: skip
_NAMES = (
    "claimName",
    "serviceAccountName",
    "secretName",
    "namespace",
    "priorityClassName",
    "runtimeClassName",
    "secretKeyRef.name",
    "configMapKeyRef.name",
)
"""Keys whose values name other objects of Kubernetes."""
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LONGEST_IDLE_S = 1800
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def check_fields(manifest: Section, ray_cluster: Section, pods: list[tuple[str, Section]], found: Findings) -> None:
    """Check the whole manifest, then its pods. `pods`: (name, group), the head first."""
    if manifest.text("apiVersion") != "ray.io/v1":
        what = f"{manifest.text('apiVersion')}: the operator of today serves ray.io/v1"
        found.error("apiVersion", what, "apiVersion: ray.io/v1")
    for key in manifest.section("metadata").raw.keys() & {"namespace"}:
        _check_form("metadata", key, manifest.section("metadata").get(key), f"metadata.{key}", found)
    idle = ray_cluster.section("autoscalerOptions").whole("idleTimeoutSeconds") or 0
    if idle > _LONGEST_IDLE_S:
        where = ray_cluster.section("autoscalerOptions").at("idleTimeoutSeconds")
        found.warning(where, f"idle workers are paid for {idle} s", "120 keeps them between two trials")
    _visit(manifest.section("spec").raw, ("spec",), found)
    restart = manifest.section("spec").section("submitterPodTemplate").section("spec").text("restartPolicy", "Never")
    if restart == "Always":
        found.error("spec.submitterPodTemplate.spec.restartPolicy", "a Kubernetes job refuses Always", "Never")
    for name, group in pods:
        spec = group.section("template").section("spec")
        gpus = [
            container.section("resources").section("limits").text("nvidia.com/gpu", "0")
            for container in spec.sections("containers")
        ]
        if name == "head" and set(gpus) - {"0"}:
            what = "the head has a GPU, paid while it waits for workers, on which the work runs"
            found.warning("head.containers", what, "no nvidia.com/gpu on the head")
        _check_ports(name, spec, found)
        _check_names(name, spec, found)
        for flag in group.section("rayStartParams").raw:
            if f"--{flag}" not in start_flags():
                found.error(
                    f"{name}.rayStartParams", f"ray start has no --{flag}", did_you_mean(f"--{flag}", start_flags())
                )
        _check_shared_memory(name, spec, found)
        for container in spec.sections("containers"):
            check_image_tag(f"{name}.{container.text('name')}.image", container.text("image"), found)
    _check_claims(pods, found)


def _visit(value: Any, path: tuple[str, ...], found: Findings) -> None:
    if isinstance(value, list):
        for item in value:
            _visit(item, path, found)
    if not isinstance(value, dict):
        return
    places = (".".join(path[-2:]), path[-1])
    known = next((_KEYS[place] for place in places if place in _KEYS), None)
    for key, item in value.items():
        where = ".".join((*path, str(key)))
        if known is not None and key not in known:
            what = "no such key: the server drops it without a word, or refuses the manifest"
            found.error(where, what, did_you_mean(str(key), known))
        _check_value(path[-1], str(key), item, where, found)
        if path[-1] not in _FREE:
            _visit(item, (*path, str(key)), found)


def _check_value(parent: str, key: str, item: object, where: str, found: Findings) -> None:
    is_text = parent in _TEXTS or (parent, key) == ("env", "value") or key == "rayVersion"
    if is_text and item is not None and not isinstance(item, str):
        found.error(where, f"{item!r} is not a text: the server refuses it", f'"{item}", in quotation marks')
    if parent not in _FREE:
        _check_form(parent, key, item, where, found)


def _check_form(parent: str, key: str, item: object, where: str, found: Findings) -> None:
    """Check a value against those that exist for its key, or against the type that the key has everywhere."""
    shape, expected = (list, "a list") if key in _LISTS else (dict, "a mapping") if key in _MAPPINGS else (object, "")
    if item is not None and not isinstance(item, shape):
        found.error(where, f"{item!r} is not what the server takes", f"{expected} is expected")
    if (key in _NAMES or f"{parent}.{key}" in _NAMES) and not _OBJECT_NAME.fullmatch(str(item)):
        found.error(where, f"{item!r} is refused as a name", "small letters, digits, hyphens and dots")
    _check_kind(parent, key, item, where, found)


def _check_kind(parent: str, key: str, item: object, where: str, found: Findings) -> None:
    """Check a scalar."""
    allowed = _VALUES.get(f"{parent}.{key}") or _VALUES.get(key)
    if allowed is not None and isinstance(item, (str, int)) and item not in allowed:
        found.error(where, f"{item!r} does not exist", did_you_mean(str(item), map(str, allowed)))
    if _WHOLE.search(key) and not (type(item) is int and item >= 0):
        found.error(where, f"{item!r} is not a whole number", "a number without unit and quotation marks")
    if _TRUE_OR_FALSE.match(key) and not isinstance(item, bool):
        found.error(where, f"{item!r} is neither true nor false", "without quotation marks")


def _check_ports(name: str, spec: Section, found: Findings) -> None:
    ports = [port for container in spec.sections("containers") for port in container.sections("ports")]
    for key in ("name", "containerPort"):
        for value, times in Counter(port.text(key) for port in ports if key in port).items():
            if times > 1:
                found.error(f"{name}.ports", f"{key} {value} is given {times} times", "one of its own for each port")
    for port in ports:
        if "name" in port and not _PORT_NAME.fullmatch(port.text("name")):
            what = f"{port.text('name')!r} is refused as the name of a port"
            found.error(f"{name}.ports", what, "at most 15 small letters, digits and hyphens")
        if not 1 <= (port.whole("containerPort") or 0) <= 65535:
            found.error(f"{name}.ports", f"{port.get('containerPort')!r} is no port", "1 to 65535")


def _check_names(name: str, spec: Section, found: Findings) -> None:
    """Check that names are given once, and that mounts and references to secrets are complete."""
    containers = spec.sections("containers")
    named = [("volumes", spec.sections("volumes")), ("containers", containers)]
    named += [(f"{container.text('name')}.env", container.sections("env")) for container in containers]
    for place, entries in named:
        for value, times in Counter(entry.text("name") for entry in entries).items():
            if times > 1 or not value:
                what = f"{value!r} is given {times} times" if value else "an entry has no name"
                found.error(f"{name}.{place}", what, "a name of its own for each")
    for container in containers:
        _check_references(f"{name}.{container.text('name')}", container, found)


def _check_references(where: str, container: Section, found: Findings) -> None:
    for mount in container.sections("volumeMounts"):
        if not mount.text("mountPath").startswith("/"):
            found.error(f"{where}.volumeMounts", f"{mount.text('name')} has no absolute mountPath", "mountPath: /...")
    for entry in container.sections("env"):
        for kind in ("secretKeyRef", "configMapKeyRef"):
            source = entry.section("valueFrom").section(kind)
            if kind in entry.section("valueFrom") and not (source.text("name") and source.text("key")):
                what = f"{entry.text('name')}: {kind} needs name and key"
                found.error(f"{where}.env", what, f"{kind}: {{name: ..., key: ...}}")


def _check_shared_memory(name: str, spec: Section, found: Findings) -> None:
    memory = {v.text("name") for v in spec.sections("volumes") if v.section("emptyDir").text("medium") == "Memory"}
    if not memory:
        return  # told with the volumes
    for container in spec.sections("containers"):
        mounts = {
            mount.text("mountPath").rstrip("/"): mount.text("name") for mount in container.sections("volumeMounts")
        }
        if mounts.get("/dev/shm") not in memory:  # nosec B108: a mount in a pod
            what = "the volume in memory is not mounted at /dev/shm: 64 MB are left for Ray's object store"
            found.error(f"{name}.{container.text('name')}", what, "volumeMounts: [{name: shm, mountPath: /dev/shm}]")


def _check_claims(pods: list[tuple[str, Section]], found: Findings) -> None:
    """Check that a path means the same storage on every pod: what a worker writes, the head must find."""
    seen: dict[str, tuple[str, str]] = {}
    for name, group in pods:
        spec = group.section("template").section("spec")
        claims = {
            volume.text("name"): volume.section("persistentVolumeClaim").text("claimName")
            for volume in spec.sections("volumes")
            if "persistentVolumeClaim" in volume
        }
        for mount in (
            mount for container in spec.sections("containers") for mount in container.sections("volumeMounts")
        ):
            claim, path = claims.get(mount.text("name")), mount.text("mountPath")
            if claim is None:
                continue
            other = seen.setdefault(path, (name, claim))
            if other[1] != claim:
                what = f"{path} is claim {claim} here, and claim {other[1]} on {other[0]}: they do not see each other's files"
                found.error(f"{name}.volumes", what, "one claim for all pods")
            if mount.get("readOnly") is True:
                found.warning(f"{name}.volumeMounts", f"{path} cannot be written", "remove readOnly where runs store")
