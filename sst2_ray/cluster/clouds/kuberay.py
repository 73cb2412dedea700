"""Kubernetes with the KubeRay operator. Never run on a real cluster: checked against the operator's own schema and the rules here."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import os
import re
from pathlib import Path

from sst2_ray.cluster.clouds.base import ForeignCloud
from sst2_ray.cluster.clouds.kuberay_consistency import CLUSTER_KEYS, check_consistency
from sst2_ray.cluster.clouds.kuberay_fields import check_fields
from sst2_ray.cluster.clouds.kuberay_pods import check_pods
from sst2_ray.cluster.clouds.kuberay_service import check_service
from sst2_ray.cluster.file import DASHBOARD_PORT, ClusterFile, is_pinned_image
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section

SCHEMAS_VARIABLE = "SST2_RAY_KUBERAY_SCHEMAS"
"""Folder with rayjob.v1.schema.json[.gz] and rayservice.v1.schema.json[.gz]: KubeRay's resource definitions as strict JSON schemas."""

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
"""Fields of a RayJob: the largest value without extra cost, the harm above it, and what to set instead."""


class KubeRay(ForeignCloud):
    """A RayJob, a cluster of its own for one run, or a RayService, a server."""

    platform = "kuberay"
    start_with = "kubectl create -f"
    end_with = "kubectl delete rayjob NAME"
    reached_by = (
        "a Kubernetes manifest has no head to tunnel to; run "
        f"`kubectl port-forward service/RAYCLUSTER-head-svc {DASHBOARD_PORT}` and pass --address http://127.0.0.1:{DASHBOARD_PORT}"
    )

    def check(self, cluster: ClusterFile) -> Findings:
        """Check the manifest against the operator's schema where it is at hand, then for what no schema sees."""
        found = Findings()
        manifest = cluster.document
        check_manifest_schema(manifest, found)
        kind = manifest.text("kind")
        if kind not in CLUSTER_KEYS:
            what = f"{manifest.get('kind')!r}: a run with a cluster of its own is a RayJob, a server a RayService"
            found.error("kind", what, "compare with cluster/kuberay-rayjob.yaml and cluster/kuberay-rayservice.yaml")
            return found
        spec = manifest.section("spec")
        ray_cluster = spec.section(CLUSTER_KEYS[kind])
        _check_token(ray_cluster, found)
        _check_scaling(ray_cluster, found)
        if kind == "RayJob":
            _check_ending(spec, found)
            _check_demand(spec, ray_cluster, found)
        head = ray_cluster.section("headGroupSpec")
        _check_head(head, found)
        pods = [
            ("head", head),
            *((group.text("groupName"), group) for group in ray_cluster.sections("workerGroupSpecs")),
        ]
        for name, group in pods:
            _check_pod(name, group, found)
        images = {container.text("image") for _, group in pods for container in _containers(group)}
        _check_versions(ray_cluster, images, found)
        check_consistency(manifest, ray_cluster, found)
        check_fields(manifest, ray_cluster, pods, found)
        check_pods(manifest, ray_cluster, pods, found)
        if kind == "RayService":
            check_service(spec, pods, found)
        return found


def check_manifest_schema(manifest: Section, found: Findings) -> None:
    """Check against KubeRay's own schema, if the folder named by SST2_RAY_KUBERAY_SCHEMAS has it."""
    import jsonschema

    folder = os.environ.get(SCHEMAS_VARIABLE)
    if not folder:
        remedy = (
            f"kubectl create --dry-run=server -f FILE does, where the operator runs; {SCHEMAS_VARIABLE}=FOLDER offline"
        )
        found.warning("schema", "not checked against KubeRay's own schema", remedy)
        return
    path = _schema(folder, manifest)
    if path is None and manifest.text("kind") == "RayService":  # its cluster is a RayCluster's
        cluster = {"spec": manifest.section("spec").get("rayClusterConfig"), "kind": "RayCluster"}
        manifest = Section({**manifest.raw, **cluster})
        path = _schema(folder, manifest)
        found.warning("schema", f"RayService has no schema in {folder}: its cluster alone is checked", "add it")
    if path is None:
        what = f"{manifest.get('apiVersion')} {manifest.get('kind')} has no schema in {folder}"
        found.error("kind", what, "is kind RayJob or RayService, and apiVersion ray.io/v1?")
        return
    schema = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    problems = list(jsonschema.Draft202012Validator(schema).iter_errors(manifest.raw))
    for problem in problems:
        where = ".".join(str(part) for part in problem.absolute_path) or "top level"
        remedy = "correct the key; unknown ones are dropped silently by the server"
        found.error(where, f"KubeRay's schema: {problem.message[:160]}", remedy)
    if not problems:
        found.ok("schema", "KubeRay's schema is satisfied")


def _schema(folder: str, manifest: Section) -> Path | None:
    """Find the schema of a manifest's kind and version."""
    stem = f"{manifest.text('kind').lower()}.{manifest.text('apiVersion').rpartition('/')[2]}.schema.json"
    return next((file for file in (Path(folder) / stem, Path(folder) / f"{stem}.gz") if file.is_file()), None)


def _pod_spec(group: Section) -> Section:
    return group.section("template").section("spec")


def _containers(group: Section) -> list[Section]:
    return _pod_spec(group).sections("containers")


def _gpus(group: Section) -> int:
    limits = [container.section("resources").section("limits") for container in _containers(group)]
    counts = [limit.text("nvidia.com/gpu", "0") for limit in limits]
    return sum(int(count) for count in counts if count.isdigit())


def _check_ending(spec: Section, found: Findings) -> None:
    before = len(found)
    if spec.get("shutdownAfterJobFinishes") is not True:
        what = "the cluster with its GPUs stays when the run has ended"
        found.error("spec.shutdownAfterJobFinishes", what, "set it to true")
    if spec.whole("activeDeadlineSeconds") is None:
        what = "missing: a run that hangs holds its GPUs for ever"
        found.error("spec.activeDeadlineSeconds", what, "e.g. 86400")
    for name, (most, harm, remedy) in _TOO_MUCH.items():
        value = spec.whole(name)
        if value is not None and value > most:
            found.warning(f"spec.{name}", f"{value}: {harm}", remedy)
    if len(found) == before:
        found.ok("spec", "the cluster goes when the run has ended, and in any case at its deadline")


def _check_token(ray_cluster: Section, found: Findings) -> None:
    where = ray_cluster.at("authOptions")
    if ray_cluster.section("authOptions").text("mode") != "token":
        what = "no token: any pod of the Kubernetes cluster can run code here"
        found.error(where, what, "authOptions: {mode: token}")
    else:
        found.ok(where, "token authentication on")


def _check_scaling(ray_cluster: Section, found: Findings) -> None:
    before = len(found)
    for group in ray_cluster.sections("workerGroupSpecs"):
        where = f"{ray_cluster.path}.workerGroupSpecs.{group.text('groupName')}"
        least, most, now = (group.whole(key) or 0 for key in ("minReplicas", "maxReplicas", "replicas"))
        if not least <= now <= most or most == 0:
            what = f"replicas {now} not between minReplicas {least} and maxReplicas {most}, or no replica at all"
            found.error(where, what, "e.g. 0, 0, 4")
        if least:
            found.warning(where, f"{least} workers run from start to end", "minReplicas: 0")
        if most > least and ray_cluster.get("enableInTreeAutoscaling") is not True:
            found.error(ray_cluster.at("enableInTreeAutoscaling"), "off: no worker is ever added", "set it to true")
    if len(found) == before:
        found.ok(f"{ray_cluster.path}.workerGroupSpecs", "workers scale from zero")


def _check_demand(spec: Section, ray_cluster: Section, found: Findings) -> None:
    asked = re.search(r"--num-workers[ =](\d+)", spec.text("entrypoint"))
    if asked is None:
        return
    groups = ray_cluster.sections("workerGroupSpecs")
    reachable = sum((group.whole("maxReplicas") or 0) * _gpus(group) for group in groups)
    if reachable and int(asked[1]) > reachable:
        what = f"--num-workers {asked[1]}, but the worker groups reach {reachable} GPUs: the run can never be placed"
        found.error("spec.entrypoint", what, "raise maxReplicas or ask for fewer")
    else:
        found.ok("spec.entrypoint", f"{asked[1]} workers, up to {reachable} GPUs")


def _check_head(head: Section, found: Findings) -> None:
    if head.section("rayStartParams").text("num-cpus") != "0":
        what = "work can land on the head and starve the autoscaler"
        found.error(head.at("rayStartParams"), what, 'num-cpus: "0"')
    service = head.text("serviceType", "ClusterIP")
    if service != "ClusterIP":
        what = f"{service} shows the dashboard, which runs jobs, outside the cluster"
        found.error(head.at("serviceType"), what, "ClusterIP; kubectl port-forward reaches it")
    if head.get("enableIngress"):
        found.error(head.at("enableIngress"), "an ingress shows the dashboard, which runs jobs", "remove it")


def _check_pod(name: str, group: Section, found: Findings) -> None:
    where, spec = f"{name}.containers", _pod_spec(group)
    for container in _containers(group):
        _check_container(where, container, found)
    memory = [volume for volume in spec.sections("volumes") if volume.section("emptyDir").text("medium") == "Memory"]
    if not memory:
        what = "no /dev/shm of its own: the default of 64 MB makes Ray's object store use the disk"
        found.warning(f"{name}.volumes", what, "emptyDir: {medium: Memory}")
    if name != "head" and not _gpus(group):
        found.warning(where, "no nvidia.com/gpu limit: training runs on CPUs", "limits: {nvidia.com/gpu: 1}")
    privileged = any(container.section("securityContext").get("privileged") for container in _containers(group))
    if privileged or spec.section("securityContext").get("runAsNonRoot") is not True:
        found.warning(f"{name}.securityContext", "the pod may run as root", "runAsNonRoot: true")


def _check_container(where: str, container: Section, found: Findings) -> None:
    image = container.text("image")
    if not is_pinned_image(image):
        what = f"image {image!r} is not pinned: head and workers may get different versions"
        found.error(where, what, "name a tag that does not move")
    limits = container.section("resources").section("limits")
    request = container.section("resources").section("requests").text("memory", limits.text("memory"))
    if "memory" not in limits or "cpu" not in limits:
        what = "no limits for cpu and memory: Ray takes the whole node's for its own"
        found.error(where, what, "limits equal to requests")
    elif request != limits.text("memory"):
        what = f"memory request {request} below its limit: the node may kill the pod first"
        found.warning(where, what, "the same value for both")
    for variable in container.sections("env"):
        if "value" in variable and re.search(r"TOKEN|SECRET|PASSWORD|_KEY$", variable.text("name")):
            what = f"{variable.text('name')} is written into the manifest"
            found.error(where, what, "valueFrom: {secretKeyRef: ...}")


def _check_versions(ray_cluster: Section, images: set[str], found: Findings) -> None:
    here, named, before = importlib.metadata.version("ray"), ray_cluster.text("rayVersion"), len(found)
    if named != here:
        what = f"{named}, this project runs on Ray {here}"
        found.error(ray_cluster.at("rayVersion"), what, f'rayVersion: "{here}", and the image to match')
    if len(images) > 1:
        what = f"head and workers have different images ({', '.join(sorted(images))})"
        found.error("containers", what, "one image for all: Ray refuses another Python or Ray")
    if len(found) == before:
        found.ok(ray_cluster.at("rayVersion"), f"Ray {named}, one image for all")
