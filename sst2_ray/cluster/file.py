"""Cluster files: read one, and know how its head is reached. Imports ray only inside the functions that ask it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sst2_ray.errors import InputError, did_you_mean

Platform = Literal["aws", "gcp", "azure", "local", "kuberay"]
PLATFORMS: tuple[Platform, ...] = ("aws", "gcp", "azure", "local", "kuberay")

DASHBOARD_PORT = 8265
TOKEN_FILE = Path("~/.ray/auth_token")


@dataclass(frozen=True, kw_only=True)
class ClusterFile:
    """A parsed cluster file: one that `ray up` takes, or a KubeRay manifest."""

    path: Path
    platform: Platform
    config: dict[str, Any]
    """The whole document as written, without Ray's defaults."""

    @property
    def name(self) -> str:
        """The cluster's name (for KubeRay: the RayJob's)."""
        if self.platform == "kuberay":
            return str(self.config.get("metadata", {}).get("name", ""))
        return str(self.config.get("cluster_name", ""))

    @property
    def provider(self) -> dict[str, Any]:
        """The provider section; empty for a KubeRay manifest."""
        provider = self.config.get("provider", {})
        return provider if isinstance(provider, dict) else {}


def load_cluster_file(path: str | Path) -> ClusterFile:
    """Parse `path`. Raises InputError for a missing file, wrong YAML, or a platform that is not one of PLATFORMS."""
    file = Path(path)
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{file}: no such cluster file; the repository's are ray_cluster.yaml and cluster/*.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise InputError(f"{file}: a mapping is expected, found {type(document).__name__}; is this a cluster file?")
    if str(document.get("apiVersion", "")).startswith("ray.io/"):
        return ClusterFile(path=file, platform="kuberay", config=document)
    provider = document.get("provider")
    kind = provider.get("type") if isinstance(provider, dict) else None
    if kind not in PLATFORMS or kind == "kuberay":
        raise InputError(f"{file}: provider.type {kind!r} is not supported; {did_you_mean(str(kind), PLATFORMS)}")
    return ClusterFile(path=file, platform=kind, config=document)


def use_token_if_present() -> Path | None:
    """Turn Ray's token authentication on for this process where a token exists; returns the token's file.

    Ray reads RAY_AUTH_MODE once, when it is imported: call this first. An explicit RAY_AUTH_MODE is respected.
    """
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_FILE).expanduser()
    if os.environ.get("RAY_AUTH_TOKEN") or token.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return token if token.is_file() else None


def private_key(cluster: ClusterFile) -> Path | None:
    """The SSH key that reaches the head: the file's own, or the one that `ray up` makes for this cloud. None: ssh's default."""
    auth = cluster.config.get("auth", {})
    if auth.get("ssh_private_key"):
        return Path(str(auth["ssh_private_key"])).expanduser()
    provider = cluster.provider
    if cluster.platform == "aws":
        name = provider.get("key_pair", {}).get("key_name") or f"ray-autoscaler_{provider.get('region')}"
        return Path(f"~/.ssh/{name}.pem").expanduser()
    if cluster.platform in ("gcp", "azure"):
        from ray.autoscaler._private.util import (  # where `ray up` puts its keys
            generate_ssh_key_name,
            generate_ssh_key_paths,
        )

        scope = provider.get("project_id") if cluster.platform == "gcp" else provider.get("resource_group")
        region = provider.get("region") if cluster.platform == "gcp" else provider.get("location")
        name = generate_ssh_key_name(cluster.platform, 0, region, scope, auth.get("ssh_user", "ubuntu"))
        return Path(generate_ssh_key_paths(name)[1])
    return None


def head_address(cluster: ClusterFile) -> str:
    """IP address of the running head, asked of the cloud (on-prem: read from the file). Raises InputError where none runs."""
    if cluster.platform == "local":
        return str(cluster.provider["head_ip"])
    if cluster.platform == "kuberay":
        raise InputError(
            f"{cluster.path}: a Kubernetes manifest has no head to tunnel to; run "
            f"`kubectl port-forward service/RAYCLUSTER-head-svc {DASHBOARD_PORT}` and pass --address http://127.0.0.1:{DASHBOARD_PORT}"
        )
    from ray.autoscaler import sdk

    try:
        return str(sdk.get_head_node_ip(str(cluster.path)))
    except Exception as error:  # each cloud's client library raises its own kinds
        detail = " ".join(str(error).split())[:200]
        raise InputError(
            f"{cluster.path}: no running head of cluster {cluster.name!r}: {detail}; start it with `sst2-ray up {cluster.path}`"
        ) from None
