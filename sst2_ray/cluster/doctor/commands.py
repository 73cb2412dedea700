"""Checks of the commands that nodes run: what they install, and how they start Ray."""

from __future__ import annotations

import contextlib
import importlib.metadata
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

from sst2_ray.cluster.doctor.findings import Finding, error, ok
from sst2_ray.cluster.file import ClusterFile

_COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands",
    "worker_start_ray_commands",
)  # fmt: skip


def commands_of(cluster: ClusterFile) -> Iterator[tuple[str, str]]:
    """(key path, shell command) of everything that the nodes run."""
    for key in _COMMANDS:
        for index, command in enumerate(cluster.config.get(key) or []):
            if isinstance(command, str):
                yield f"{key}[{index}]", command


def check_pins(cluster: ClusterFile) -> list[Finding]:
    """Everything that is installed has a version, the same on every node."""
    findings, installs = [], False
    for path, command in commands_of(cluster):
        if "node/setup.sh" in command:
            installs = True
            findings += _pinned_ray(cluster)
        for spec in re.findall(
            r"(?:^|[\s'\"])(ray(?:\[[\w,]+\])?(?:\s*[=<>~!]=?[^\s'\"]+)?(?:\s*@\s*\S+)?)(?=$|[\s'\"])",
            command if "pip install" in command else "",
        ):
            installs = True
            if "==" not in spec:
                findings.append(
                    error(
                        path,
                        f"Ray is not pinned ({spec.strip()}): nodes made on different days get different versions",
                        "install ray[default,train,tune]==2.60.0, or use cluster/node/setup.sh",
                    )
                )
        if "-latest" in command or "ray-wheels/latest" in command or "dev0" in command:
            findings.append(error(path, "installs a nightly build of Ray", "pin a release"))
    docker = cluster.config.get("docker")
    if not installs and not (isinstance(docker, dict) and docker.get("image")):
        findings.append(
            error(
                "setup_commands",
                "nothing installs Ray and the project's packages; where they are missing Ray's own default installs a nightly",
                "use cluster/node/setup.sh as in the repository's file",
            )
        )
    # Head and worker commands name the same script: say it once.
    return list(dict.fromkeys(findings))


def _pinned_ray(cluster: ClusterFile) -> list[Finding]:
    local = (cluster.config.get("file_mounts") or {}).get("~/.sst2-ray/node")
    path = Path(str(local)).expanduser() / "constraints.txt" if local else None
    here = importlib.metadata.version("ray")
    if path and not path.is_file():
        return []  # the mount's own check says that its folder does not exist here
    pin = re.search(r"^ray==(\S+)", path.read_text(), re.MULTILINE) if path and path.is_file() else None
    if pin is None:
        return [
            error(
                "file_mounts.~/.sst2-ray/node",
                "cluster/node with its pinned versions is not mounted",
                'add "~/.sst2-ray/node": "cluster/node"',
            )
        ]
    if pin[1] != here:
        return [
            error(
                "cluster/node/constraints.txt",
                f"nodes get Ray {pin[1]}, this machine has {here}",
                "use the same version: `ray up` and the job client are not compatible across minors",
            )
        ]
    return [ok("setup_commands", f"nodes get Ray {pin[1]}, the version here")]


def check_start_commands(cluster: ClusterFile) -> list[Finding]:
    """How the head and the workers start Ray."""
    findings = []
    head = " ; ".join(str(c) for c in cluster.config.get("head_start_ray_commands") or [])
    worker = " ; ".join(str(c) for c in cluster.config.get("worker_start_ray_commands") or [])
    for key, text in (("head_start_ray_commands", head), ("worker_start_ray_commands", worker)):
        if not text:
            continue
        if re.search(r"RAY_AUTH_MODE=(?!token)\w+", text):
            findings.append(error(key, "switches token authentication off", "remove RAY_AUTH_MODE from the command"))
        if "ray start" not in text:
            findings.append(error(key, "never starts Ray", "copy the repository's start commands"))
    bound = re.search(r"--dashboard-host[= ](\S+)", head)
    if bound and not _loopback(bound[1]):
        findings.append(
            error(
                "head_start_ray_commands",
                f"the dashboard listens on {bound[1]}: it runs jobs for whoever reaches it",
                "use --dashboard-host=127.0.0.1; submit opens a tunnel",
            )
        )
    elif head:
        findings.append(ok("head_start_ray_commands", "the dashboard is reached through SSH only"))
    if head and "--autoscaling-config" not in head:
        findings.append(
            error(
                "head_start_ray_commands",
                "without --autoscaling-config no worker is ever started",
                "add --autoscaling-config=~/ray_bootstrap_config.yaml",
            )
        )
    if "--include-dashboard=false" in head.lower():
        findings.append(
            error(
                "head_start_ray_commands",
                "without the dashboard no job can be submitted",
                "remove --include-dashboard=false",
            )
        )
    if worker and "RAY_HEAD_IP" not in worker:
        findings.append(
            error(
                "worker_start_ray_commands",
                "workers do not join $RAY_HEAD_IP",
                "use ray start --address=$RAY_HEAD_IP:6379",
            )
        )
    return findings


def _loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"
