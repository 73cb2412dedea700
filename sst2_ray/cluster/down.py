"""`sst2-ray down`: ends a cluster by `ray down`, then what that leaves running, and says what still bills."""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404: starts ray, never through a shell
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.file import ClusterFile, load_cluster_file, use_token_if_present
from sst2_ray.cluster.ray_private import ADDRESS_VARIABLES, ignored_addresses
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import FailureClass, InputError, RunFailedError
from sst2_ray.terminal import busy


@dataclass(frozen=True, kw_only=True)
class DownConfig:
    """End the cluster of a file, and say what is left."""

    cluster: Positional[str]
    """Cluster file."""
    delete_stack: bool = False
    """AWS: also delete the security group, roles and launch templates (they cost nothing)."""


def main(argv: list[str]) -> int:
    """End a cluster. Raises RunFailedError where something still runs."""
    config = parse(DownConfig, argv, prog="sst2-ray down")
    cluster = load_cluster_file(config.cluster)
    if not cloud_of(cluster).starts_by_ray:
        raise InputError(f"{cluster.path}: not started by Ray; end it with: {cloud_of(cluster).end_with}")
    use_token_if_present(cluster)
    for line in ignored_addresses(config.cluster):
        _say(line)
    down(cluster)
    if config.delete_stack and cluster.platform == "aws":
        from sst2_ray.cluster.clouds.aws_stack import delete_stack

        _say(f"deleting stack {delete_stack(cluster)}")
    return 0


def down(cluster: ClusterFile) -> None:
    """End the cluster. Raises RunFailedError where `ray down` fails or something still runs, InputError where the cloud does not answer."""
    cloud = cloud_of(cluster)
    with busy(f"asking {cluster.platform}"):
        cloud.status(cluster)  # asked first: where the cloud does not answer, Ray ends in pages of traceback
    code = run_ray(["down", "--yes", str(cluster.for_ray())], cluster)
    cloud.end(cluster)
    if code != 0:
        raise RunFailedError(
            f"ray down {cluster.path} failed with exit code {code}; machines may still run and cost money",
            failure_class=FailureClass.BUG,
        )
    left = cloud.status(cluster)
    if left is None:
        _say(f"to be sure that nothing bills on: docs/cluster-{cluster.platform}.md, last section")
        _forget(cluster)
        return
    names = [f"{instance.id} ({instance.state})" for instance in left if instance.state != "shutting-down"]
    if names:
        raise RunFailedError(
            f"still there after ray down: {', '.join(names)}; end them in the cloud's console",
            failure_class=FailureClass.BUG,
        )
    _forget(cluster)
    if cloud.price_list:
        _say(f"the cloud says that no instance of {cluster.name} is left")


def _forget(cluster: ClusterFile) -> None:
    """Forget where, and for how long, a cluster that has ended was started."""
    cluster.set_zone(None)
    cluster.set_limits({})


def run_ray(arguments: Sequence[str], cluster: ClusterFile) -> int:
    """Run Ray's command line with what this platform needs; return its exit code."""
    beside = Path(sys.executable).with_name("ray")
    ray = str(beside) if beside.exists() else shutil.which("ray")
    if ray is None:
        raise InputError("the ray command is not installed; pip install -e .")
    environment = {name: value for name, value in os.environ.items() if name not in ADDRESS_VARIABLES}
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Version 2 of the autoscaler never starts all workers of `provider: local`, and does not say so. The clouds are fine with it.
    environment["RAY_UP_enable_autoscaler_v2"] = "0" if cluster.platform == "local" else "1"
    return subprocess.run([ray, *arguments], env=environment, stdin=subprocess.DEVNULL, check=False).returncode  # nosec B603


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
