"""`sst2-ray up` and `down`: `ray up` and `ray down` with what Ray needs set, and what they leave undone, done."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess  # nosec B404: starts ray, never through a shell
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.cluster.file import (
    TOKEN_FILE,
    ClusterFile,
    head_address,
    load_cluster_file,
    private_key,
    use_token_if_present,
)
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import FailureClass, InfeasibleError, InputError, RunFailedError

_NODES = 'import ray; ray.init(address="auto", logging_level="ERROR"); print(*[n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]])'


@dataclass(frozen=True, kw_only=True)
class UpConfig:
    """Start the cluster of a file, or restart Ray on a running one, after doctor has found nothing wrong."""

    cluster: Positional[str]
    """Cluster file (ray_cluster.yaml, cluster/onprem.yaml, ...)."""
    ssh_from: str | None = None
    """AWS, first time only: addresses that may reach port 22, as CIDR; your own with /32."""
    bucket: str | None = None
    """AWS, first time only: the bucket that results go to; nodes get the right to it and to no other."""
    vpc: str | None = None
    """AWS, first time only: VPC of the cluster; None: the region's default one."""
    yes: bool = False
    """Do not ask before creating what costs money or grants rights."""
    restart: bool = False
    """Restart Ray on a running cluster even where jobs run on it: they end."""
    wait_s: float = 300.0
    """Seconds to wait for an on-prem cluster's workers (exit code 3 if some do not come)."""


@dataclass(frozen=True, kw_only=True)
class DownConfig:
    """End the cluster of a file, and say what is left."""

    cluster: Positional[str]
    """Cluster file."""
    delete_stack: bool = False
    """AWS: also delete the security group, roles and launch templates (they cost nothing)."""


def main(argv: list[str]) -> int:
    """`sst2-ray up`. Raises InputError where doctor finds errors or jobs run already, RunFailedError where `ray up` fails."""
    config = parse(UpConfig, argv, prog="sst2-ray up")
    cluster = load_cluster_file(config.cluster)
    if cluster.platform == "kuberay":
        raise InputError(f"{cluster.path}: a Kubernetes manifest; start it with: kubectl create -f {cluster.path}")
    if ensure_token():
        _say(f"made {TOKEN_FILE}: every node gets it, and nobody without it may use the cluster")
    use_token_if_present()
    _refuse_mistakes(cluster)
    if cluster.platform == "aws":
        from sst2_ray.cluster.aws_account import one_line_refusals

        with one_line_refusals():
            _check_key_pair(cluster)
            _prepare_account(cluster, config)
    question = _question(cluster, asks=not config.yes, restart=config.restart)
    if not config.yes and not _confirmed(question):
        raise InputError("not confirmed, nothing was started; pass --yes to start without being asked")
    code = run_ray(["up", "--yes", "--no-config-cache", str(cluster.path)], cluster)
    if code != 0:
        raise RunFailedError(
            f"ray up {cluster.path} failed with exit code {code}, see above; `sst2-ray down {cluster.path}` ends what was started",
            failure_class=FailureClass.BUG,
        )
    if cluster.platform == "local":
        wait_for_workers(cluster, timeout_s=config.wait_s)
    _say(f"{cluster.name} is up; submit with: sst2-ray submit {cluster.path} -- python jobs/train.py ...")
    return 0


def main_down(argv: list[str]) -> int:
    """`sst2-ray down`. Raises RunFailedError where something still runs."""
    config = parse(DownConfig, argv, prog="sst2-ray down")
    cluster = load_cluster_file(config.cluster)
    if cluster.platform == "kuberay":
        raise InputError(f"{cluster.path}: a Kubernetes manifest; end it with: kubectl delete rayjob NAME")
    use_token_if_present()
    down(cluster)
    if config.delete_stack and cluster.platform == "aws":
        from sst2_ray.cluster.aws_account import delete_stack

        _say(f"deleting stack {delete_stack(cluster)}")
    return 0


def ensure_token(path: Path | None = None) -> bool:
    """Make the cluster's token, readable by its owner alone, where there is none; True if it was made."""
    file = (path or TOKEN_FILE).expanduser()
    if file.exists():
        return False
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Ray's own generator leaves it readable by everybody on the machine.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(32))
    return True


def run_ray(arguments: Sequence[str], cluster: ClusterFile) -> int:
    """Run Ray's command line with what this platform needs; returns its exit code."""
    beside = Path(sys.executable).with_name("ray")
    ray = str(beside) if beside.exists() else shutil.which("ray")
    if ray is None:
        raise InputError("the ray command is not installed; pip install -e .")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0")}
    # Version 2 of the autoscaler never starts all workers of `provider: local`, and does not say so. The clouds are fine with it.
    environment["RAY_UP_enable_autoscaler_v2"] = "0" if cluster.platform == "local" else "1"
    return subprocess.run([ray, *arguments], env=environment, stdin=subprocess.DEVNULL, check=False).returncode  # nosec B603


def wait_for_workers(cluster: ClusterFile, *, timeout_s: float) -> None:
    """`ray up` returns when the head is up; its autoscaler then sets the workers up. Raises InfeasibleError if some do not come."""
    from sst2_ray.cluster.doctor.onprem import hosts_of
    from sst2_ray.cluster.ssh import host_of

    expected = set(hosts_of(cluster))
    head = host_of(cluster, str(cluster.provider["head_ip"]))
    ask = f"python -c {shlex.quote(_NODES)}"
    deadline, present = time.monotonic() + timeout_s, set[str]()
    while time.monotonic() < deadline:
        answer = head.run(ask)
        now = set(answer.stdout.split()) & expected if answer.returncode == 0 else set()
        if now != present:
            present = now
            _say(f"{len(present)} of {len(expected)} machines have joined")
        if present == expected:
            return
        time.sleep(2.0)
    raise InfeasibleError(
        f"{', '.join(sorted(expected - present))} did not join within {timeout_s:.0f} s; the reason is in the head's "
        "/tmp/ray/session_latest/logs/monitor.*; `sst2-ray doctor` names a machine with another Python or Ray"
    )


def down(cluster: ClusterFile) -> None:
    """End the cluster. Raises RunFailedError where `ray down` fails or something still runs, InputError where AWS does not answer."""
    if cluster.platform == "aws":
        _instances_left(cluster)  # asked first: where AWS does not answer, Ray ends in pages of traceback
    code = run_ray(["down", "--yes", str(cluster.path)], cluster)
    if cluster.platform == "local":
        _stop_everywhere(cluster)
    if code != 0:
        raise RunFailedError(
            f"ray down {cluster.path} failed with exit code {code}; machines may still run and cost money",
            failure_class=FailureClass.BUG,
        )
    if cluster.platform == "aws":
        left = _instances_left(cluster)
        if left:
            raise RunFailedError(
                f"still there after ray down: {', '.join(left)}; end them in the EC2 console",
                failure_class=FailureClass.BUG,
            )
        _say(f"EC2 says that no instance of {cluster.name} is left")
    elif cluster.platform in ("gcp", "azure"):
        _say(f"to be sure that nothing bills on: docs/cluster-{cluster.platform}.md, last section")


def _instances_left(cluster: ClusterFile) -> list[str]:
    """Instances of the cluster that are not on their way out. Raises InputError where AWS does not answer."""
    from sst2_ray.cluster.aws_account import instances_of, one_line_refusals

    with one_line_refusals():
        return [
            f"{instance['InstanceId']} ({instance['State']['Name']})"
            for instance in instances_of(cluster)
            if instance["State"]["Name"] != "shutting-down"
        ]


def _stop_everywhere(cluster: ClusterFile) -> None:
    """`ray down` stops the head only; agents on the workers would stay until the next start."""
    from sst2_ray.cluster.doctor.onprem import hosts_of
    from sst2_ray.cluster.ssh import host_of

    for address in hosts_of(cluster):
        answer = host_of(cluster, address).run("ray stop --force")
        if answer.returncode != 0:
            _say(f"{address}: Ray could not be stopped ({' '.join(answer.stderr.split())[:120]}); run `ray stop` there")


def _refuse_mistakes(cluster: ClusterFile) -> None:
    from sst2_ray.cluster.doctor import DoctorConfig, examine_cluster, examine_file, report

    # On-prem machines are there already: one with another Python or Ray is told now, not after minutes of waiting for it.
    if report([*examine_file(cluster, DoctorConfig()), *examine_cluster(cluster, DoctorConfig())], verbose=False):
        raise InputError(f"{cluster.path}: doctor found errors, see above; nothing was started")


def _question(cluster: ClusterFile, *, asks: bool, restart: bool) -> str:
    """What to ask before `ray up`. Raises InputError where it would end jobs, or might while nobody is asked, and `restart`
    was not given."""
    start = f"start cluster {cluster.name} ({cluster.platform})?"
    try:
        address = head_address(cluster)
    except InputError:  # none runs
        return start
    try:
        jobs = _jobs_on(cluster)
    except InputError as problem:
        if cluster.platform == "local":  # its address stands in the file, whether Ray runs there or not
            return f"{start} (where Ray runs already, it is restarted)"
        if not (asks or restart):
            raise InputError(
                f"{cluster.name} runs at {address}, `ray up` would restart Ray, and its jobs cannot be asked for ({problem}); "
                "look first, or pass --restart"
            ) from None
        jobs, known = [], f"its jobs cannot be asked for ({problem})"
    else:
        known = f"with jobs that this ends: {', '.join(jobs)}" if jobs else "no job on it"
    if jobs and not restart:
        raise InputError(
            f"{cluster.name} runs at {address}, and `ray up` would restart Ray and end {', '.join(jobs)}; wait for the end, "
            "or pass --restart"
        )
    return f"{cluster.name} runs at {address}, {known}; restart Ray on it (where the file has changed, the head may be replaced)?"


def _jobs_on(cluster: ClusterFile) -> list[str]:
    """Names of the jobs that run on a running cluster. Raises InputError where it cannot be reached."""
    from sst2_ray.cluster.ssh import tunnel_to
    from sst2_ray.cluster.submit.client import connect, list_jobs, still_running

    with tunnel_to(cluster) as tunnel:
        return still_running(list_jobs(connect(tunnel.url)))


def _check_key_pair(cluster: ClusterFile) -> None:
    """Where EC2's key pair and its .pem are not both there or both missing, Ray makes another one that `submit` would not find."""
    from sst2_ray.cluster.aws_account import client

    key = private_key(cluster)
    if key is None or cluster.config.get("auth", {}).get("ssh_private_key"):
        return
    found = client(cluster, "ec2").describe_key_pairs(Filters=[{"Name": "key-name", "Values": [key.stem]}])["KeyPairs"]
    if bool(found) == key.exists():
        return
    what, remedy = ("EC2 has it", "copy the .pem from whoever made it") if found else ("EC2 lacks it", f"remove {key}")
    raise InputError(
        f"key pair {key.stem}: {what}, this machine {'lacks' if found else 'has'} {key}; {remedy}, or choose another "
        f"provider.key_pair.key_name in {cluster.path}"
    )


def _prepare_account(cluster: ClusterFile, config: UpConfig) -> None:
    from sst2_ray.cluster import aws_account

    missing = aws_account.missing_templates(cluster)
    if not missing:
        return
    if not config.ssh_from or not config.bucket:
        raise InputError(
            f"the account has no launch template {', '.join(missing)} yet; give --ssh-from YOUR_ADDRESS/32 and --bucket NAME once, "
            "and the stack of cluster/aws-account.yaml is made (group, roles, templates; free of charge)"
        )
    aws_account.check_source(config.ssh_from)
    if not config.yes and not _confirmed(
        f"create the stack of {aws_account.TEMPLATE} (SSH from {config.ssh_from}, bucket {config.bucket})?"
    ):
        raise InputError("not confirmed, nothing was created")
    _say(
        f"stack {aws_account.create_stack(cluster, ssh_from=config.ssh_from, bucket=config.bucket, vpc=config.vpc)} is there"
    )


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
