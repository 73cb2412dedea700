"""Checks of a `ray up` file that hold on every platform: Ray's own schema, then what the schema cannot see."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from sst2_ray.cluster.doctor.commands import check_pins, check_start_commands
from sst2_ray.cluster.doctor.consistency import check_consistency
from sst2_ray.cluster.doctor.container import check_container, check_provider_keys
from sst2_ray.cluster.doctor.mounts import check_mounts
from sst2_ray.cluster.doctor.node_scripts import check_node_scripts
from sst2_ray.cluster.doctor.shell_commands import check_shell_commands
from sst2_ray.cluster.file import PLACEHOLDER, ClusterFile, NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.ray_private import schema_problem
from sst2_ray.cluster.secret_scan import holds_secret

_INLINE_SECRET = re.compile(r"\b\w*(?:TOKEN|SECRET|PASSWORD|ACCESS_KEY)\w*=(?!\$)[^\s'\"]{6,}")
_REFERENCE = "see https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html"


def check_text(cluster: ClusterFile) -> Findings:
    """Check any cluster file for values that are still the user's to give, and for secrets; their values are never repeated."""
    found, named = Findings(), set[str]()
    for path, text in cluster.document.strings():
        for name in PLACEHOLDER.findall(text):
            if name not in named:
                named.add(name)
                found.error(path, f"{name} stands for a value of yours", f"replace {name} everywhere in the file")
        if holds_secret(text) or _INLINE_SECRET.search(text):
            what = "holds a secret, and the file is copied to every node"
            found.error(path, what, "put it into a file of mode 600 and list that under file_mounts")
    return found


def check_ray_file(cluster: ClusterFile, *, sizes_from_cloud: bool) -> Findings:
    """Make every platform-independent check of a `ray up` file."""
    found = Findings()
    _check_schema(cluster, found, sizes_from_cloud=sizes_from_cloud)
    check_mounts(cluster, found)
    check_pins(cluster, found)
    check_start_commands(cluster, found)
    check_consistency(cluster, found)
    check_node_scripts(cluster, found)
    check_shell_commands(cluster, found)
    if cluster.platform != "local":
        _check_idle(cluster, found)
        for node_type in cluster.node_types:
            _check_node_type(node_type, found)
    _check_private_key(cluster, found)
    check_container(cluster, found)
    check_provider_keys(cluster, found)
    return found


def _check_schema(cluster: ClusterFile, found: Findings, *, sizes_from_cloud: bool) -> None:
    problem = schema_problem(cluster.document.raw, sizes_from_cloud=sizes_from_cloud)
    if problem is None:
        found.ok("schema", "Ray's schema is satisfied")
    elif problem[0]:
        found.error(problem[0], f"Ray's schema: {problem[1]}", _REFERENCE)
    else:
        found.error("file", f"Ray refuses it: {problem[1]}", "compare with the file in the repository")


def _check_idle(cluster: ClusterFile, found: Findings) -> None:
    where, idle = "idle_timeout_minutes", cluster.document.number("idle_timeout_minutes")
    idle = 5 if idle is None else idle
    if idle <= 15:
        found.ok(where, f"idle workers go after {idle:g} minutes")
    else:
        add = found.error if idle > 60 else found.warning
        add(where, f"idle workers are paid for {idle:g} minutes", "5 keeps them between two trials")
    if cluster.provider.get("cache_stopped_nodes") is not False:
        what = "machines are stopped instead of ended, and their disks are billed for ever"
        found.error("provider.cache_stopped_nodes", what, "set it to False")


def _check_node_type(node_type: NodeType, found: Findings) -> None:
    section = node_type.section
    if not node_type.is_head:
        if node_type.min_workers:
            what = f"{node_type.min_workers} workers run, and are paid, from `up` to `down`"
            found.warning(section.at("min_workers"), what, "0 scales to zero")
        return
    if section.whole("max_workers") != 0:
        found.error(section.at("max_workers"), "the head's type would be used for workers too", "set it to 0")
    if node_type.resources.number("CPU") != 0:
        what = "work can land on the head, starve the autoscaler and keep the cluster from scaling to zero"
        found.error(node_type.resources.at("CPU"), what, "set resources: {CPU: 0}")


def _check_private_key(cluster: ClusterFile, found: Findings) -> None:
    where, key = "auth.ssh_private_key", cluster.auth.text("ssh_private_key")
    if not key:
        return
    path = Path(key).expanduser()
    if not path.is_file():
        remedy = f'ssh-keygen -t ed25519 -N "" -f {key}, a key for this cluster alone: it is copied to the head'
        found.error(where, f"{key} does not exist", remedy)
    elif stat.S_IMODE(path.stat().st_mode) & 0o077:
        found.error(where, f"{key} is readable by others, ssh refuses it", f"chmod 600 {key}")
    else:
        found.ok(where, f"{key} is there")
