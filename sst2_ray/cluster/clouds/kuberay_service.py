"""Checks of a RayService: what it serves, who may ask, and whether its workers can hold the replicas."""

from __future__ import annotations

import yaml

from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.section import Section

_IMPORT_PATH = "sst2_ray.serving.app:build"
_TOKEN = "SST2_RAY_SERVE_TOKEN"  # nosec B105: the name of a variable


def check_service(spec: Section, groups: list[tuple[str, Section]], found: Findings) -> None:
    """Check the Serve config of a RayService against the groups of its cluster, head first."""
    where, before = "spec.serveConfigV2", len(found)
    try:
        config = Section(yaml.safe_load(spec.text("serveConfigV2")), where)
    except yaml.YAMLError as error:
        found.error(where, f"cannot be read as YAML: {' '.join(str(error).split())[:160]}", "indent it below `|`")
        return
    applications = config.sections("applications")
    if not applications:
        found.error(where, "has no application: nothing is served", f"applications: [{{import_path: {_IMPORT_PATH}}}]")
    if config.section("http_options").text("host") in ("127.0.0.1", "localhost"):
        found.error(f"{where}.http_options.host", "the service cannot reach loopback", 'host: "0.0.0.0"')
    for application in applications:
        if application.text("import_path") != _IMPORT_PATH:
            what = f"{application.text('import_path')!r} is not the application of this project"
            found.warning(application.at("import_path"), what, _IMPORT_PATH)
            continue
        _check_application(application, groups, found)
    if len(found) == before:
        found.ok(where, f"{applications[0].section('args').text('model_dir')} behind a token")


def _check_application(application: Section, groups: list[tuple[str, Section]], found: Findings) -> None:
    args = application.section("args")
    if not args.text("model_dir"):
        found.error(args.at("model_dir"), "missing: there is nothing to serve", "the model's folder or URI")
    if args.get("require_token") is False:
        found.error(args.at("require_token"), "false: every pod of the cluster can ask", "remove it")
    else:
        for name, group in groups:
            containers = group.section("template").section("spec").sections("containers")
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


def _gpus(group: Section) -> float:
    containers = group.section("template").section("spec").sections("containers")
    limits = [container.section("resources").section("limits").text("nvidia.com/gpu", "0") for container in containers]
    return float(sum(int(limit) for limit in limits if limit.isdigit()))
