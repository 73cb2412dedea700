"""Checks of a KubeRay RayJob: the operator's own schema where it is at hand, then what no schema sees."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import Any

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.ray_file import pinned_image, placeholders, secrets
from sst2_ray.cluster.file import ClusterFile

SCHEMAS_VARIABLE = "SST2_RAY_KUBERAY_SCHEMAS"
"""Folder with rayjob.v1.schema.json[.gz]: KubeRay's resource definitions as strict JSON schemas."""


def check_kuberay(cluster: ClusterFile) -> list[Finding]:
    """Every check of a manifest."""
    manifest = cluster.config
    findings = [*check_manifest_schema(manifest), *placeholders(manifest), *secrets(manifest)]
    if manifest.get("kind") != "RayJob":
        return [
            *findings,
            error(
                "kind",
                f"{manifest.get('kind')!r}: a cluster of its own that goes with the run is a RayJob",
                "compare with cluster/kuberay-rayjob.yaml",
            ),
        ]
    spec = _mapping(manifest, "spec")
    cluster_spec = _mapping(spec, "rayClusterSpec")
    findings += _ending(spec)
    findings += _token(cluster_spec)
    findings += _scaling(cluster_spec)
    findings += _demand(spec, cluster_spec)
    head = _mapping(cluster_spec, "headGroupSpec")
    findings += _head(head)
    pods = [("head", head), *((str(group.get("groupName")), group) for group in _workers(cluster_spec))]
    images = set()
    for name, group in pods:
        findings += _pod(name, group)
        images |= {str(container.get("image")) for container in _containers(group)}
    findings += _versions(cluster_spec, images)
    return findings


def check_manifest_schema(manifest: dict[str, Any]) -> list[Finding]:
    """KubeRay's own schema, if the folder named by SST2_RAY_KUBERAY_SCHEMAS has it."""
    import jsonschema

    folder = os.environ.get(SCHEMAS_VARIABLE)
    if not folder:
        return [
            warning(
                "schema",
                "not checked against KubeRay's own schema",
                f"kubectl create --dry-run=server -f FILE does, where the operator runs; {SCHEMAS_VARIABLE}=FOLDER offline",
            )
        ]
    stem = (
        f"{str(manifest.get('kind', '')).lower()}.{str(manifest.get('apiVersion', '')).rpartition('/')[2]}.schema.json"
    )
    path = next((file for file in (Path(folder) / stem, Path(folder) / f"{stem}.gz") if file.is_file()), None)
    if path is None:
        return [
            error(
                "kind",
                f"{manifest.get('apiVersion')} {manifest.get('kind')} has no schema in {folder}",
                "is kind RayJob and apiVersion ray.io/v1?",
            )
        ]
    schema = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    problems = list(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    return [
        error(
            ".".join(str(part) for part in problem.absolute_path) or "top level",
            f"KubeRay's schema: {problem.message[:160]}",
            "correct the key; unknown ones are dropped silently by the server",
        )
        for problem in problems
    ] or [ok("schema", "KubeRay's schema is satisfied")]


def _mapping(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _workers(cluster_spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in cluster_spec.get("workerGroupSpecs") or [] if isinstance(group, dict)]


def _pod_spec(group: dict[str, Any]) -> dict[str, Any]:
    return _mapping(_mapping(group, "template"), "spec")


def _containers(group: dict[str, Any]) -> list[dict[str, Any]]:
    return [container for container in _pod_spec(group).get("containers") or [] if isinstance(container, dict)]


def _gpus(group: dict[str, Any]) -> int:
    limits = [_mapping(_mapping(container, "resources"), "limits") for container in _containers(group)]
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits if str(limit.get("nvidia.com/gpu", 0)).isdigit())


_TOO_MUCH = {
    "ttlSecondsAfterFinished": (
        3600,
        "GPUs are held for so many seconds after the run",
        "600 are enough to read the log",
    ),
    "backoffLimit": (
        0,
        "KubeRay repeats a run that failed, of wrong input as well, on a new cluster",
        "backoffLimit: 0; submitterConfig: {backoffLimit: 1} tries the submitter again",
    ),
}
"""Of a RayJob's fields: from what value on they cost money, how, and what to set instead."""


def _ending(spec: dict[str, Any]) -> list[Finding]:
    findings = []
    if spec.get("shutdownAfterJobFinishes") is not True:
        findings.append(
            error(
                "spec.shutdownAfterJobFinishes",
                "the cluster with its GPUs stays when the run has ended",
                "set it to true",
            )
        )
    if not isinstance(spec.get("activeDeadlineSeconds"), int):
        findings.append(
            error("spec.activeDeadlineSeconds", "missing: a run that hangs holds its GPUs for ever", "e.g. 86400")
        )
    for name, (most, harm, remedy) in _TOO_MUCH.items():
        value = spec.get(name, 0)
        if isinstance(value, int) and value > most:
            findings.append(warning(f"spec.{name}", f"{value}: {harm}", remedy))
    return findings or [ok("spec", "the cluster goes when the run has ended, and in any case at its deadline")]


def _token(cluster_spec: dict[str, Any]) -> list[Finding]:
    if _mapping(cluster_spec, "authOptions").get("mode") != "token":
        return [
            error(
                "spec.rayClusterSpec.authOptions",
                "no token: any pod of the Kubernetes cluster can run code here",
                "authOptions: {mode: token}",
            )
        ]
    return [ok("spec.rayClusterSpec.authOptions", "token authentication on")]


def _scaling(cluster_spec: dict[str, Any]) -> list[Finding]:
    findings = []
    for group in _workers(cluster_spec):
        where = f"spec.rayClusterSpec.workerGroupSpecs.{group.get('groupName')}"
        least, most, now = (int(group.get(key) or 0) for key in ("minReplicas", "maxReplicas", "replicas"))
        if not least <= now <= most or most == 0:
            findings.append(
                error(
                    where,
                    f"replicas {now} not between minReplicas {least} and maxReplicas {most}, or no replica at all",
                    "e.g. 0, 0, 4",
                )
            )
        if least:
            findings.append(warning(where, f"{least} workers run from start to end", "minReplicas: 0"))
        if most > least and cluster_spec.get("enableInTreeAutoscaling") is not True:
            findings.append(
                error("spec.rayClusterSpec.enableInTreeAutoscaling", "off: no worker is ever added", "set it to true")
            )
    return findings or [ok("spec.rayClusterSpec.workerGroupSpecs", "workers scale from zero")]


def _demand(spec: dict[str, Any], cluster_spec: dict[str, Any]) -> list[Finding]:
    asked = re.search(r"--num-workers[ =](\d+)", str(spec.get("entrypoint", "")))
    if asked is None:
        return []
    reachable = sum(int(group.get("maxReplicas") or 0) * _gpus(group) for group in _workers(cluster_spec))
    if reachable and int(asked[1]) > reachable:
        return [
            error(
                "spec.entrypoint",
                f"--num-workers {asked[1]}, but the worker groups reach {reachable} GPUs: the run can never be placed",
                "raise maxReplicas or ask for fewer",
            )
        ]
    return [ok("spec.entrypoint", f"{asked[1]} workers, up to {reachable} GPUs")]


def _head(head: dict[str, Any]) -> list[Finding]:
    findings = []
    if str(_mapping(head, "rayStartParams").get("num-cpus")) != "0":
        findings.append(
            error(
                "spec.rayClusterSpec.headGroupSpec.rayStartParams",
                "work can land on the head and starve the autoscaler",
                'num-cpus: "0"',
            )
        )
    service = head.get("serviceType", "ClusterIP")
    if service != "ClusterIP":
        findings.append(
            error(
                "spec.rayClusterSpec.headGroupSpec.serviceType",
                f"{service} shows the dashboard, which runs jobs, outside the cluster",
                "ClusterIP; kubectl port-forward reaches it",
            )
        )
    if head.get("enableIngress"):
        findings.append(
            error(
                "spec.rayClusterSpec.headGroupSpec.enableIngress",
                "an ingress shows the dashboard, which runs jobs",
                "remove it",
            )
        )
    return findings


def _pod(name: str, group: dict[str, Any]) -> list[Finding]:
    where, findings = f"{name}.containers", []
    spec = _pod_spec(group)
    for container in _containers(group):
        image = str(container.get("image", ""))
        if not pinned_image(image):
            findings.append(
                error(
                    where,
                    f"image {image!r} is not pinned: head and workers may get different versions",
                    "name a tag that does not move",
                )
            )
        resources = _mapping(container, "resources")
        limits, requests = _mapping(resources, "limits"), _mapping(resources, "requests")
        if "memory" not in limits or "cpu" not in limits:
            findings.append(
                error(
                    where,
                    "no limits for cpu and memory: Ray takes the whole node's for its own",
                    "limits equal to requests",
                )
            )
        elif requests.get("memory", limits["memory"]) != limits["memory"]:
            findings.append(
                warning(
                    where,
                    f"memory request {requests.get('memory')} below its limit: the node may kill the pod first",
                    "the same value for both",
                )
            )
        for variable in container.get("env") or []:
            if (
                isinstance(variable, dict)
                and "value" in variable
                and re.search(r"TOKEN|SECRET|PASSWORD|_KEY$", str(variable.get("name")))
            ):
                findings.append(
                    error(where, f"{variable['name']} is written into the manifest", "valueFrom: {secretKeyRef: ...}")
                )
    shm = [
        volume
        for volume in spec.get("volumes") or []
        if isinstance(volume, dict) and _mapping(volume, "emptyDir").get("medium") == "Memory"
    ]
    if not shm:
        findings.append(
            warning(
                f"{name}.volumes",
                "no /dev/shm of its own: the default of 64 MB makes Ray's object store use the disk",
                "emptyDir: {medium: Memory}",
            )
        )
    if name != "head" and not _gpus(group):
        findings.append(warning(where, "no nvidia.com/gpu limit: training runs on CPUs", "limits: {nvidia.com/gpu: 1}"))
    privileged = [c for c in _containers(group) if _mapping(c, "securityContext").get("privileged")]
    if privileged or _mapping(spec, "securityContext").get("runAsNonRoot") is not True:
        findings.append(warning(f"{name}.securityContext", "the pod may run as root", "runAsNonRoot: true"))
    return findings


def _versions(cluster_spec: dict[str, Any], images: set[str]) -> list[Finding]:
    here, named = importlib.metadata.version("ray"), str(cluster_spec.get("rayVersion"))
    findings = []
    if named != here:
        findings.append(
            error(
                "spec.rayClusterSpec.rayVersion",
                f"{named}, this project runs on Ray {here}",
                f'rayVersion: "{here}", and the image to match',
            )
        )
    if len(images) > 1:
        findings.append(
            error(
                "containers",
                f"head and workers have different images ({', '.join(sorted(images))})",
                "one image for all: Ray refuses another Python or Ray",
            )
        )
    return findings or [ok("spec.rayClusterSpec.rayVersion", f"Ray {named}, one image for all")]
