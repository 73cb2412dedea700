"""`sst2-ray up`: `ray up` with what Ray needs set, after doctor has found nothing wrong."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.cluster.clouds import AccountCloud, CreateRequest, NoHeadError, cloud_of
from sst2_ray.cluster.doctor.command import DoctorConfig, examine_cluster, examine_file, report
from sst2_ray.cluster.file import ClusterFile, load_cluster_file, own_folder, use_token_if_present
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.ray_private import ignored_addresses
from sst2_ray.cluster.ssh import Tunnel
from sst2_ray.cluster.submit.client import connect, list_jobs, still_running
from sst2_ray.cluster.zones import find_zone, leave, start, wanted_zone
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import InfeasibleError, InputError
from sst2_ray.terminal import busy

_JOINED = """import contextlib, ray, socket, sys
ray.init(address="auto", logging_level="ERROR")
alive = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
print(sys.argv[1])  # the head, which answers: its own name may lead it to 127.0.1.1
for name in sys.argv[2:]:
    with contextlib.suppress(OSError):
        socket.gethostbyname(name) in alive and print(name)"""
"""Prints which of the machines that it is given, names or addresses, have joined the head that it runs on."""


@dataclass(frozen=True, kw_only=True)
class UpConfig:
    """Start the cluster of a file, or restart Ray on a running one, after doctor has found nothing wrong."""

    cluster: Positional[str]
    """Cluster file (ray_cluster.yaml, cluster/onprem.yaml, ...)."""
    ssh_from: str | None = None
    """AWS, first time or to change them: addresses that may reach port 22, as CIDR; your own with /32."""
    bucket: str | None = None
    """AWS, first time or to change it: the bucket that results go to; nodes get the right to it and to no other."""
    vpc: str | None = None
    """AWS, first time only: VPC of the cluster; None: the region's default one."""
    autostop_minutes: float | None = None
    """Clouds: minutes without job and SSH after which the head ends by itself; 0: never. None: as the file says (30)."""
    max_hours: float | None = None
    """Clouds: hours after which every machine ends, whatever it does; 0: never. None: as the file says (72)."""
    zone: str | None = None
    """Zone to start in; an idle cluster that runs in another is ended first. None: where it runs, else the file's first."""
    next_zone: bool = False
    """Move to the file's zone after the present one, where this one has no machines left."""
    yes: bool = False
    """Do not ask before creating what costs money or grants rights."""
    restart: bool = False
    """Restart Ray on a running cluster even where jobs run on it: they end."""
    wait_s: float = 300.0
    """Seconds to wait for an on-prem cluster's workers (exit code 3 if some do not come)."""


def main(argv: list[str]) -> int:
    """Start a cluster. Raises InputError where doctor finds errors or jobs run already, RunFailedError where `ray up` fails."""
    config = parse(UpConfig, argv, prog="sst2-ray up")
    cluster = load_cluster_file(config.cluster)
    given = {"--idle-minutes": config.autostop_minutes, "--max-hours": config.max_hours}
    limits = {flag: value for flag, value in given.items() if value is not None}
    cloud = cloud_of(cluster)
    cluster = cloud.limit_life(cluster, limits)
    if not cloud.starts_by_ray:
        raise InputError(f"{cluster.path}: not started by Ray; start it with: {cloud.start_with} {cluster.path}")
    if ensure_token(cluster.token):
        _say(f"made {cluster.token}: every node gets it, and nobody without it may use the cluster")
    use_token_if_present(cluster)
    for line in ignored_addresses(config.cluster):
        _say(line)
    with busy(f"checking {config.cluster}"):
        _refuse_mistakes(cluster, examine_file)
        find_zone(cluster, config.zone)
    zone = wanted_zone(cluster, zone=config.zone, next_zone=config.next_zone)
    if zone is not None:
        _move_away(cluster, zone, restart=config.restart)
    _prepare_account(cluster, config)
    _refuse_mistakes(cluster, examine_cluster)
    question = _question(cluster, asks=not config.yes, restart=config.restart)
    if not config.yes and not _confirmed(question):
        raise InputError("not confirmed, nothing was started; pass --yes to start without being asked")
    cluster.set_limits(limits)
    start(cluster)
    if cluster.hosts:
        wait_for_workers(cluster, timeout_s=config.wait_s)
    _say(f"{cluster.name} is up; submit with: sst2-ray submit {cluster.path} -- python jobs/train.py ...")
    return 0


def _move_away(cluster: ClusterFile, zone: str, *, restart: bool) -> None:
    """End the cluster in its present zone. Raises InputError where jobs run on it and `restart` was not given."""
    try:
        address = cloud_of(cluster).head(cluster)
    except NoHeadError:
        # Google lists machines by zone: one whose set-up failed, which Ray does not count, would be forgotten there.
        leave(cluster, zone, is_running=cluster.platform == "gcp")
        return
    jobs = [] if restart else _jobs_on(cluster, address)
    if jobs:
        raise InputError(
            f"{cluster.name} runs in {cluster.zone}, and moving to {zone} would end {', '.join(jobs)}; wait for the end, or pass "
            "--restart"
        )
    _say(f"ending {cluster.name} in {cluster.zone}; it starts again in {zone}")
    leave(cluster, zone, is_running=True)


def ensure_token(file: Path) -> bool:
    """Make the cluster's token, readable by its owner alone, where there is none; return True if it was made."""
    if file.exists():
        return False
    own_folder()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Ray's own generator leaves it readable by everybody on the machine.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(32))
    return True


def wait_for_workers(cluster: ClusterFile, *, timeout_s: float) -> None:
    """Wait for an on-prem cluster's machines: `ray up` returns when the head is up. Raises InfeasibleError if some do not come."""
    expected, cloud = set(cluster.hosts), cloud_of(cluster)
    head = cloud.host(cluster, cloud.head(cluster))
    ask = shlex.join(["python", "-c", _JOINED, *cluster.hosts])
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
        "$RAY_TMPDIR/ray/session_latest/logs/monitor.*; `sst2-ray doctor` names a machine with another Python or Ray"
    )


def _refuse_mistakes(cluster: ClusterFile, examine: Callable[[ClusterFile, DoctorConfig], Findings]) -> None:
    # The account's quota and images, and the machines that are there already: told now, not after minutes of waiting for them.
    if report(examine(cluster, DoctorConfig(ask_cloud=cloud_of(cluster).asks_account)), verbose=False):
        raise InputError(f"{cluster.path}: doctor found errors, see above; nothing was started")


def _prepare_account(cluster: ClusterFile, config: UpConfig) -> None:
    cloud = cloud_of(cluster)
    if not isinstance(cloud, AccountCloud):
        return
    request = CreateRequest(ssh_from=config.ssh_from, bucket=config.bucket, vpc=config.vpc)
    question = cloud.check_create(cluster, request)
    if not question:
        return
    if not config.yes and not _confirmed(question):
        raise InputError("not confirmed, nothing was created")
    _say(cloud.create(cluster, request))


def _question(cluster: ClusterFile, *, asks: bool, restart: bool) -> str:
    """Return what to ask before `ray up`.

    Raises InputError where it would end jobs, or might while nobody is asked, and `restart` was not given.
    """
    start = f"start cluster {cluster.name} ({cluster.platform})?"
    try:
        address = cloud_of(cluster).head(cluster)
    except NoHeadError:
        return start
    try:
        jobs = _jobs_on(cluster, address)
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


def _jobs_on(cluster: ClusterFile, address: str) -> list[str]:
    """Return the jobs that run on a running cluster. Raises InputError where it cannot be reached."""
    with Tunnel(cloud_of(cluster).host(cluster, address)) as tunnel:
        return still_running(list_jobs(connect(tunnel.url)))


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
