"""Checks of the docker section: containers in which `ray up` runs everything, and of keys that no provider reads."""

from __future__ import annotations

import re

from sst2_ray.cluster.clouds.checks import check_gpu_image, check_harmful, check_image_tag
from sst2_ray.cluster.doctor.commands import commands_of
from sst2_ray.cluster.file import ClusterFile, is_pinned_image
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

_OPTIONS = (
    (r"^(-p|--publish)\b", "the container shares the machine's network: ports are not published", "remove it"),
    (r"^--privileged\b", "a job in it has the whole machine", "remove it"),
    (r"^(-v|--volume)[ =]/(:|etc|root|var/run/docker)", "a job in it can change the machine", "a folder of its own"),
    (r"^--net(work)?\b(?![ =]host)", "Ray's nodes talk by the machine's own address", "remove it"),
    (r"^(--rm|-d|--detach|-it|--name)\b", "`ray up` starts, names and keeps the container itself", "remove it"),
    (r"^(-m|--memory)[ =]\S*[kKmM]\b", "too little memory for Ray", "remove it"),
)
"""Options of `docker run` that do not fit: pattern, harm, remedy."""
_PROVIDER_KEYS = {
    "aws": "region availability_zone cache_stopped_nodes key_pair security_group use_internal_ips aws_credentials cloudwatch",
    "gcp": "region availability_zone project_id cache_stopped_nodes gcp_credentials use_internal_ips",
    "azure": "location resource_group subscription_id availability_zone cache_stopped_nodes use_internal_ips use_external_head_ip"
    " msi_name msi_resource_group msi_identity_id msi_identity_principal_id subnet_id subnet_mask unique_id tags subnet nsg msi",
    "local": "head_ip worker_ips external_head_ip coordinator_address",
}  # fmt: skip
"""Keys that Ray's providers read; all take type, module and disable_node_updaters."""


def check_container(cluster: ClusterFile, found: Findings) -> None:
    """Check images, name and options of the containers."""
    docker = cluster.document.section("docker")
    images = {key: docker.text(key) for key in ("image", "head_image", "worker_image") if docker.get(key)}
    for key, image in images.items():
        if not is_pinned_image(image):
            what = f"{image} is not pinned: two nodes may get two versions"
            found.error(docker.at(key), what, "name a tag or digest that does not move")
        check_image_tag(docker.at(key), image, found)
    name = docker.text("container_name")
    if images and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name):
        found.error(docker.at("container_name"), f"{name!r} is not a container's name", "e.g. ray")
    _check_options(docker, found)
    for path, command in commands_of(cluster):
        if images and "autostop.sh" in command:
            _check_watch(cluster, path, found)
    worker = images.get("worker_image") or images.get("image", "")
    has_gpu = any((node_type.resources.number("GPU") or 0) > 0 for node_type in cluster.node_types)
    if has_gpu or cluster.platform == "aws":
        check_gpu_image("docker.image", worker, found)


def _check_watch(cluster: ClusterFile, path: str, found: Findings) -> None:
    """Check that a watch is not started where it is missing, or can end nothing: Google alone is asked to delete the machine."""
    remedy = "remove it, then only `down` ends the cluster; or the docker section, since set-up installs all"
    if path.startswith("initialization_commands"):
        found.error(path, "runs beside the container, which alone has the mounts: set-up fails", remedy)
    elif cluster.platform != "gcp":
        found.error(path, "autostop.sh in a container cannot shut its machine down: nothing ends it", remedy)


def _check_options(docker: Section, found: Findings) -> None:
    for key in ("run_options", "head_run_options", "worker_run_options"):
        for option in docker.texts(key):
            check_harmful(docker.at(key), option, _OPTIONS, found, prefix=f"{option}: ")


def check_provider_keys(cluster: ClusterFile, found: Findings) -> None:
    """Check that the provider section holds nothing that is silently ignored, and mappings where Ray reads mappings."""
    provider = cluster.provider
    known = ["type", "module", "disable_node_updaters", *_PROVIDER_KEYS.get(cluster.platform, "").split()]
    for key in provider.raw:
        if key not in known:
            found.error(provider.at(key), f"{cluster.platform} reads no such key", did_you_mean(str(key), known))
    for key in ("key_pair", "security_group", "aws_credentials", "gcp_credentials"):
        if key in provider and not isinstance(provider.get(key), dict):
            found.error(provider.at(key), f"{provider.get(key)!r} is not a mapping", f"{key}: {{...}}")
    for node_type in cluster.node_types:
        for name in node_type.resources.raw:
            for right in ("CPU", "GPU", "memory", "object_store_memory"):
                if str(name).lower() == right.lower() and name != right:
                    what = f"{name} is a resource of that name, not the machine's {right}"
                    found.error(node_type.resources.at(str(name)), what, right)
