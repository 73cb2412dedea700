"""Checks of a `ray up` file that hold on every platform: Ray's own schema, then what the schema cannot see."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sst2_ray.cluster.doctor.commands import check_pins, check_start_commands
from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.submit.upload import SECRET_CONTENT

PLACEHOLDER = re.compile(r"\b(YOUR_[A-Z_]+|MY_[A-Z_]+|(?:HEAD|WORKER)_ADDRESS(?:_\d+)?|SSH_USER)\b")
_INLINE_SECRET = re.compile(r"\b\w*(?:TOKEN|SECRET|PASSWORD|ACCESS_KEY)\w*=(?!\$)[^\s'\"]{6,}")


def check_ray_file(cluster: ClusterFile) -> list[Finding]:
    """Every platform-independent check."""
    return [
        *check_schema(cluster),
        *_placeholders(cluster),
        *_secrets(cluster),
        *_mounts(cluster),
        *check_pins(cluster),
        *check_start_commands(cluster),
        *_workers(cluster),
        *_private_key(cluster),
        *_docker(cluster),
    ]


def check_schema(cluster: ClusterFile) -> list[Finding]:
    """Ray's own preparation and JSON schema, as `ray up` applies them, without asking any cloud."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    heard = io.StringIO()
    try:
        # Ray's launcher prints, and leaves with SystemExit, where it refuses.
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            config = prepare_config(copy.deepcopy(cluster.config))
            for node_type in config.get("available_node_types", {}).values():
                if isinstance(node_type, dict) and cluster.platform in ("aws", "gcp"):
                    node_type.setdefault("resources", {})  # `ray up` asks the cloud for these
            validate_config(config)
    except jsonschema.ValidationError as problem:
        path = ".".join(str(part) for part in problem.absolute_path) or "top level"
        return [
            error(
                path,
                f"Ray's schema: {problem.message[:200]}",
                "see https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html",
            )
        ]
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, SystemExit, Exception) as problem:
        text = " ".join(f"{heard.getvalue()} {problem}".split())[-200:]
        return [error("file", f"Ray refuses it: {text}", "compare with the file in the repository")]
    return [ok("schema", "Ray's schema is satisfied")]


def node_types(cluster: ClusterFile) -> dict[str, dict[str, Any]]:
    """The node types that are mappings, by name; a malformed one is the schema's business."""
    types = cluster.config.get("available_node_types")
    return (
        {str(name): value for name, value in types.items() if isinstance(value, dict)}
        if isinstance(types, dict)
        else {}
    )


def node_config(node_type: dict[str, Any]) -> dict[str, Any]:
    """The provider's part of a node type, empty where it is missing."""
    config = node_type.get("node_config")
    return config if isinstance(config, dict) else {}


def declared_gpus(node_type: dict[str, Any]) -> int | None:
    """GPUs that the file declares for a node type; None where it leaves that to Ray."""
    value = node_type.get("resources", {}).get("GPU") if isinstance(node_type.get("resources"), dict) else None
    return value if isinstance(value, int) else None


def strings_of(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(key path, text) of every string in a document, keys of mappings left out."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings_of(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings_of(item, f"{path}[{index}]")


def _placeholders(cluster: ClusterFile) -> list[Finding]:
    return placeholders(cluster.config)


def placeholders(config: dict[str, Any]) -> list[Finding]:
    """Values of the shipped file that stand for the user's own; one finding each name."""
    places: dict[str, str] = {}
    for path, text in strings_of(config):
        for name in PLACEHOLDER.findall(text):
            places.setdefault(name, path)
    return [
        error(path, f"{name} stands for a value of yours", f"replace {name} everywhere in the file")
        for name, path in places.items()
    ]


def _secrets(cluster: ClusterFile) -> list[Finding]:
    return secrets(cluster.config)


def secrets(config: dict[str, Any]) -> list[Finding]:
    """Secrets written into the file; their values are never repeated."""
    found = []
    for path, text in strings_of(config):
        if SECRET_CONTENT.search(text.encode()) or _INLINE_SECRET.search(text):
            found.append(
                error(
                    path,
                    "holds a secret, and the file is copied to every node",
                    "put it into a file of mode 600 and list that under file_mounts",
                )
            )
    return found


def _mounts(cluster: ClusterFile) -> list[Finding]:
    mounts = cluster.config.get("file_mounts")
    mounts = mounts if isinstance(mounts, dict) else {}
    findings = []
    for remote, local in mounts.items():
        if not Path(str(local)).expanduser().exists() and "auth_token" not in str(remote):
            findings.append(
                error(
                    f"file_mounts.{remote}",
                    f"{local} does not exist here",
                    "run from the repository's root, or correct the path",
                )
            )
    if not any(str(remote).endswith(".ray/auth_token") for remote in mounts):
        findings.append(
            error(
                "file_mounts",
                "no token: nodes without ~/.ray/auth_token run code for anybody who reaches them",
                'add "~/.ray/auth_token": "~/.ray/auth_token"',
            )
        )
    else:
        findings.append(ok("file_mounts", "the token goes to every node"))
    return findings


def _workers(cluster: ClusterFile) -> list[Finding]:
    if cluster.platform == "local":
        return []
    findings = []
    idle = cluster.config.get("idle_timeout_minutes", 5)
    if isinstance(idle, (int, float)):
        if idle > 60:
            findings.append(
                error(
                    "idle_timeout_minutes",
                    f"idle workers are paid for {idle:g} minutes",
                    "5 keeps them between two trials",
                )
            )
        elif idle > 15:
            findings.append(
                warning(
                    "idle_timeout_minutes",
                    f"idle workers are paid for {idle:g} minutes",
                    "5 keeps them between two trials",
                )
            )
        else:
            findings.append(ok("idle_timeout_minutes", f"idle workers go after {idle:g} minutes"))
    if cluster.provider.get("cache_stopped_nodes", True) is not False:
        findings.append(
            error(
                "provider.cache_stopped_nodes",
                "machines are stopped instead of ended, and their disks are billed for ever",
                "set it to False",
            )
        )
    head = cluster.config.get("head_node_type")
    for name, node_type in node_types(cluster).items():
        where = f"available_node_types.{name}"
        if name == head:
            if node_type.get("max_workers") != 0:
                findings.append(
                    error(f"{where}.max_workers", "the head's type would be used for workers too", "set it to 0")
                )
            if (node_type.get("resources") or {}).get("CPU") != 0:
                findings.append(
                    error(
                        f"{where}.resources.CPU",
                        "work can land on the head, starve the autoscaler and keep the cluster from scaling to zero",
                        "set resources: {CPU: 0}",
                    )
                )
        elif node_type.get("min_workers", 0):
            findings.append(
                warning(
                    f"{where}.min_workers",
                    f"{node_type['min_workers']} workers run, and are paid, from `up` to `down`",
                    "0 scales to zero",
                )
            )
    return findings


def _private_key(cluster: ClusterFile) -> list[Finding]:
    auth = cluster.config.get("auth")
    key = auth.get("ssh_private_key") if isinstance(auth, dict) else None
    if not key:
        return []
    path = Path(str(key)).expanduser()
    if not path.is_file():
        return [
            error(
                "auth.ssh_private_key",
                f"{key} does not exist",
                f"ssh-keygen -t ed25519 -f {key}, a key for this cluster alone: it is copied to the head",
            )
        ]
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return [error("auth.ssh_private_key", f"{key} is readable by others, ssh refuses it", f"chmod 600 {key}")]
    return [ok("auth.ssh_private_key", f"{key} is there")]


def _docker(cluster: ClusterFile) -> list[Finding]:
    docker = cluster.config.get("docker")
    if not isinstance(docker, dict):
        return []
    images = {key: str(docker[key]) for key in ("image", "head_image", "worker_image") if docker.get(key)}
    return [
        error(
            f"docker.{key}",
            f"{image} is not pinned: two nodes may get two versions",
            "name a tag or digest that does not move",
        )
        for key, image in images.items()
        if not pinned_image(image)
    ]


def pinned_image(image: str) -> bool:
    """A container image with a digest, or with a tag that is not `latest` or `nightly`."""
    if "@sha256:" in image:
        return True
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return bool(tag) and not tag.startswith(("latest", "nightly"))
