"""Checks of a RayService: what it serves, who may ask, and whether its workers can hold the replicas."""

from __future__ import annotations

from sst2_ray.cluster.clouds.kuberay_consistency import quantity
from sst2_ray.cluster.clouds.serve_config import IMPORT_PATH, check_serve_config, read_serve_config
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section

_TOKEN = "SST2_RAY_SERVE_TOKEN"  # nosec B105: the name of a variable


def check_service(spec: Section, groups: list[tuple[str, Section]], found: Findings) -> None:
    """Check the Serve config of a RayService against the groups of its cluster, head first."""
    where, before = "spec.serveConfigV2", len(found)
    config = read_serve_config(spec.text("serveConfigV2"), where, found)
    if config is None:
        return
    check_serve_config(config, found)
    if config.section("http_options").text("host") in ("127.0.0.1", "localhost"):
        found.error(f"{where}.http_options.host", "the service cannot reach loopback", 'host: "0.0.0.0"')
    _check_port(config.section("http_options"), groups, found)
    applications = config.sections("applications")
    for application in applications:
        if application.text("import_path") == IMPORT_PATH:
            _check_application(application, groups, found)
    if len(found) == before:
        found.ok(where, f"{applications[0].section('args').text('model_dir')} behind a token")


def _containers(group: Section) -> list[Section]:
    return group.section("template").section("spec").sections("containers")


def _check_port(options: Section, groups: list[tuple[str, Section]], found: Findings) -> None:
    """Check that KubeRay's service, which looks for a port of this name, leads to where the proxies listen."""
    told = options.whole("port") or 8000
    for name, group in groups:
        ports = [port for container in _containers(group) for port in container.sections("ports")]
        named = [port.whole("containerPort") for port in ports if port.text("name") == "serve"]
        if named != [told]:
            what = f"the proxies listen on {told}, the port named `serve` is {named[0] if named else 'missing'}"
            found.error(f"{name}.ports", what, f"{{containerPort: {told}, name: serve}}")


def _check_application(application: Section, groups: list[tuple[str, Section]], found: Findings) -> None:
    args = application.section("args")
    _check_room(args, groups[1:], found)
    if args.get("require_token") is not False:
        for name, group in groups:
            containers = _containers(group)
            names = {entry.text("name") for container in containers for entry in container.sections("env")}
            if _TOKEN not in names:
                what = f"{_TOKEN} is missing: the application does not start without a token"
                found.error(f"{name}.env", what, "valueFrom: {secretKeyRef: {name: sst2-serve-token, key: token}}")
    wanted = args.number("gpus_per_replica") or 0
    replicas = args.whole("num_replicas") or 1
    room = sum((group.whole("maxReplicas") or 0) * _gpus(group) for _, group in groups[1:])
    if wanted and wanted * replicas > room:
        what = f"{replicas} replicas of {wanted:g} GPUs, but the worker groups reach {room:g}: not all can be placed"
        found.error(args.at("num_replicas"), what, "raise maxReplicas or ask for fewer")


def _check_room(args: Section, workers: list[tuple[str, Section]], found: Findings) -> None:
    """Check that one pod of some group can hold one replica."""
    for key, resource, default in (("cpus_per_replica", "cpu", 1.0), ("gpus_per_replica", "nvidia.com/gpu", 0.0)):
        asked = args.number(key)
        asked = default if asked is None else asked
        sizes = [
            quantity(container.section("resources").section("limits").text(resource, "0")) or 0.0
            for _, group in workers
            for container in _containers(group)[:1]
        ]
        if sizes and asked > max(sizes):
            what = f"{asked:g}, the largest pod has {max(sizes):g}: no replica can ever be placed"
            found.error(args.at(key), what, f"at most {max(sizes):g}")


def _gpus(group: Section) -> float:
    containers = _containers(group)
    limits = [container.section("resources").section("limits").text("nvidia.com/gpu", "0") for container in containers]
    return float(sum(int(limit) for limit in limits if limit.isdigit()))
