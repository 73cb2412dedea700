"""Checks of a `ray up` file against itself: names that refer to each other, mounts, ports, users and flags."""

from __future__ import annotations

import re
from pathlib import Path

from sst2_ray.cluster.doctor.commands import HEAD, WORKER, commands_of
from sst2_ray.cluster.file import PLACEHOLDER, ClusterFile
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.ray_private import start_flags
from sst2_ray.errors import did_you_mean

_RESERVED_USERS = {
    "azure": {"admin", "administrator", "root", "user", "guest", "test", "console", "david", "sys", "backup", "actuser", "adm", "video"},
    "gcp": {"root"},
}  # fmt: skip
_CLIENTS = {"aws": "boto3", "gcp": "google-api-python-client", "azure": "azure-mgmt-compute"}
"""Client library of each cloud, which the autoscaler on the head imports."""
_LONGEST_NAME = {"gcp": 63 - len("ray--worker-12345678-compute"), "azure": 64 - len("ray--worker-12345678")}
"""Letters that each cloud takes, without those that Ray adds for a machine."""
_NEEDED_BY: dict[str, tuple[str, ...]] = {
    "node/setup.sh": ("~/.sst2-ray/pyproject.toml",),
    "watch_spot.sh": ("~/.sst2-ray/src/sst2_ray",),
}
"""Scripts of cluster/node, and the mounts that they read besides their own folder."""


def check_consistency(cluster: ClusterFile, found: Findings) -> None:
    """Make every check of a file against itself."""
    _check_names(cluster, found)
    _check_counts(cluster, found)
    _check_numbers(cluster, found)
    _check_used_mounts(cluster, found)
    _check_installed(cluster, found)
    _check_homes(cluster, found)
    _check_users(cluster, found)
    _check_start(cluster, found)


def _check_names(cluster: ClusterFile, found: Findings) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,62}", cluster.name):
        what = f"{cluster.name!r} names machines, stacks and roles"
        found.error("cluster_name", what, "a letter first, then letters, digits and hyphens")
    if cluster.platform == "gcp" and cluster.name != cluster.name.lower():
        found.error("cluster_name", f"{cluster.name!r}: Google refuses machines and labels of it", "small letters")
    longest = _LONGEST_NAME.get(cluster.platform)
    if longest and len(cluster.name) > longest:
        what = (
            f"{len(cluster.name)} letters: with what Ray adds, the names of machines exceed {cluster.platform}'s limit"
        )
        found.error("cluster_name", what, f"at most {longest}")
    names = [node_type.name for node_type in cluster.node_types]
    head = cluster.document.text("head_node_type")
    if names and head not in names:
        found.error("head_node_type", f"{head!r} is none of available_node_types", did_you_mean(head, names))


def _check_counts(cluster: ClusterFile, found: Findings) -> None:
    workers = [node_type for node_type in cluster.node_types if not node_type.is_head]
    for node_type in workers:
        if node_type.min_workers > node_type.max_workers > 0:
            what = f"{node_type.min_workers} is more than max_workers {node_type.max_workers}"
            found.error(node_type.section.at("min_workers"), what, "min_workers: 0")
    least = sum(node_type.min_workers for node_type in workers)
    limit = cluster.document.whole("max_workers")
    if workers and limit is not None and limit < max(1, least):
        what = f"{limit}, " + (f"but the types start {least} workers" if least else "so no worker is ever started")
        found.error("max_workers", what, "as many as a run may have")
    if workers and all(node_type.section.get("max_workers") == 0 for node_type in workers):
        found.error("available_node_types", "every worker type has max_workers 0", "as many as a run may have")


def _check_numbers(cluster: ClusterFile, found: Findings) -> None:
    heads = [node_type for node_type in cluster.node_types if node_type.is_head and node_type.min_workers]
    for node_type in heads:
        found.error(
            node_type.section.at("min_workers"), "a second head would be started", "0, the head is started anyway"
        )
    limit = cluster.document.whole("max_workers")
    for node_type in cluster.node_types:
        if limit is not None and node_type.max_workers > limit:
            what = f"{node_type.max_workers}, and max_workers of the whole cluster is {limit}: never more than that"
            found.warning(node_type.section.at("max_workers"), what, "the same number")
    speed, idle = cluster.document.number("upscaling_speed"), cluster.document.number("idle_timeout_minutes")
    if speed is not None and speed <= 0:
        found.error("upscaling_speed", f"{speed:g}: no worker is ever added", "100")
    if idle is not None and idle <= 0:
        found.error("idle_timeout_minutes", f"{idle:g}: workers go before the next trial finds them", "5")


def _check_used_mounts(cluster: ClusterFile, found: Findings) -> None:
    mounts = cluster.document.section("file_mounts").raw
    used: dict[str, str] = {}
    for path, command in commands_of(cluster):
        for name in re.findall(r"~/\.sst2-ray/(?!venv/|bin/|env\b|tmp/)[\w-]+/[\w./-]+", command):
            used.setdefault(name, path)
        for script, further in _NEEDED_BY.items():
            if script in command:
                used.update({name: path for name in further if name not in used})
    for name, path in used.items():
        if not any(name == remote or name.startswith(remote.rstrip("/") + "/") for remote in mounts):
            remedy = f'"{Path(name).parent if "node/" in name else name}": as in the repository\'s file'
            found.error(path, f"uses {name}, which no file_mounts entry brings to the node", remedy)


def _check_installed(cluster: ClusterFile, found: Findings) -> None:
    """Check that workers are set up as well, and that the head has what its autoscaler calls the cloud with."""
    if cluster.document.section("docker").get("image"):
        return
    common, worker, head = (
        " ; ".join(cluster.document.texts(key))
        for key in ("setup_commands", "worker_setup_commands", "head_setup_commands")
    )
    if head and not re.search(r"setup\.sh|pip install", common + worker):
        what = "the head is set up, the workers are not"
        found.error("setup_commands", what, "- bash ~/.sst2-ray/node/setup.sh")
    if not re.search(r"setup\.sh|torch|deepspeed|requirements|sst2", common + worker):
        what = "nothing installs torch, DeepSpeed and the rest of the project's packages"
        found.error("setup_commands", what, "- bash ~/.sst2-ray/node/setup.sh")
    client = _CLIENTS.get(cluster.platform)
    if client and (common or head) and client not in common + head:
        what = f"the head lacks {client}, with which its autoscaler asks for workers"
        found.error(
            "head_setup_commands", what, f"- bash ~/.sst2-ray/node/setup.sh {client}, as in the repository's file"
        )


def _check_homes(cluster: ClusterFile, found: Findings) -> None:
    user = cluster.auth.text("ssh_user", "ubuntu")
    for remote in cluster.document.section("file_mounts").raw:
        home = re.match(r"/home/([^/]+)/|/(root)/", f"{remote}/")
        if home and (home[1] or home[2]) != user:
            what = f"lies in the home of {home[1] or home[2]}, and {user} logs in"
            found.error(f"file_mounts.{remote}", what, "begin it with ~/")


def _check_users(cluster: ClusterFile, found: Findings) -> None:
    user = cluster.auth.text("ssh_user", "ubuntu")
    if not re.fullmatch(r"[A-Za-z_][\w.-]{0,31}", user) and not PLACEHOLDER.search(user):
        found.error("auth.ssh_user", f"{user!r} is not a login", "the name alone, without @ and host")
    if user in _RESERVED_USERS.get(cluster.platform, ()):
        found.error("auth.ssh_user", f"{user!r} is refused by {cluster.platform}", "ubuntu")
    images = [text for node_type in cluster.node_types for _, text in node_type.config.strings() if "ubuntu" in text]
    if cluster.platform == "aws" and user != "ubuntu" and images:
        what = f"{user!r} does not exist on the image, which is an Ubuntu one"
        found.error("auth.ssh_user", what, "ssh_user: ubuntu")
    for key in ("ssh_private_key", "ssh_public_key"):
        path = Path(cluster.auth.text(key)).expanduser()
        if key in cluster.auth and path.is_file():
            public = path.read_text(errors="replace").startswith(("ssh-", "ecdsa-"))
            if public != (key == "ssh_public_key"):
                half = "public" if public else "private"
                found.error(f"auth.{key}", f"{path} is the {half} half of a key", "name the other file")


def _check_start(cluster: ClusterFile, found: Findings) -> None:
    head, worker = (_ray_start(cluster, key) for key in (HEAD, WORKER))
    for key, text in ((HEAD, head), (WORKER, worker)):
        commands = cluster.document.texts(key)
        if text and not any("ray stop" in command for command in commands):
            what = "no `ray stop` before the start: where Ray runs already, the next `up` fails"
            found.error(key, what, "begin with - ray stop")
        for flag in re.findall(r"(--[a-z][\w-]*)", text):
            if flag not in start_flags():
                found.error(key, f"ray start has no {flag}; {did_you_mean(flag, start_flags())}", "correct the flag")
    if head and "--head" not in head:
        found.error(HEAD, "ray start without --head: there is no cluster to join", "add --head")
    if worker and "--head" in worker:
        found.error(WORKER, "every worker starts a cluster of its own", "remove --head")
    config = _value(head, "--autoscaling-config")
    if config not in ("", "~/ray_bootstrap_config.yaml", "$HOME/ray_bootstrap_config.yaml"):
        what = f"{config} is not where `ray up` puts the file for the autoscaler"
        found.error(HEAD, what, "--autoscaling-config=~/ray_bootstrap_config.yaml")
    if head and worker:
        _check_ports(head, worker, found)


def _ray_start(cluster: ClusterFile, key: str) -> str:
    """Return the arguments of `ray start`, without comments and what follows."""
    text = " ; ".join(re.sub(r"(^|\s)#.*", "", command) for command in cluster.document.texts(key))
    start = re.search(r"\bray start\b([^;&|]*)", text)
    return start[1] if start else ""


def _value(text: str, flag: str) -> str:
    found = re.search(rf"{flag}[= ](\S+)", text)
    return found[1] if found else ""


def _check_ports(head: str, worker: str, found: Findings) -> None:
    address, port = _value(worker, "--address").strip("'\""), _value(head, "--port") or "6379"
    host, _, joined = address.rpartition(":")
    if host not in ("$RAY_HEAD_IP", "${RAY_HEAD_IP}"):
        what = f"workers join {address or 'nothing'}, not the head that `ray up` has started"
        found.error(WORKER, what, f"--address=$RAY_HEAD_IP:{port}")
    elif joined != port:
        what = f"workers look for the head at port {joined}, it listens on {port}"
        found.error(WORKER, what, f"--address=$RAY_HEAD_IP:{port}")
    fixed = _value(worker, "--node-ip-address")
    if fixed and "$" not in fixed:
        found.error(WORKER, f"every worker announces the address {fixed}", "remove --node-ip-address")
    dashboard = _value(head, "--dashboard-port")
    if dashboard not in ("", "8265"):
        what = f"the dashboard listens on {dashboard}, `submit` opens its tunnel to 8265"
        found.error(HEAD, what, "remove --dashboard-port")
    flags = ("--port", "--object-manager-port", "--node-manager-port", "--dashboard-port", "--ray-client-server-port")
    ports = [value for value in (_value(head, f"(?<!\\S){flag}") for flag in flags) if value]
    for value in sorted({value for value in ports if ports.count(value) > 1}):
        found.error(HEAD, f"port {value} is given to two of Ray's services", "a port of its own for each")
