"""`sst2-ray submit`: `ray job submit` that shows what it uploads, re-attaches, and exits with the job's own code."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from sst2_ray import formatting
from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.down import down
from sst2_ray.cluster.file import ClusterFile, load_cluster_file, use_token_if_present
from sst2_ray.cluster.ray_private import ADDRESS_VARIABLES, ignored_addresses
from sst2_ray.cluster.ssh import Tunnel
from sst2_ray.cluster.submit.arguments import read_demand, read_variables, refuse_secrets, split_command
from sst2_ray.cluster.submit.client import Job, connect, owner, still_running, submit
from sst2_ray.cluster.submit.follow import Follower, exit_code_of
from sst2_ray.cluster.submit.mistakes import check_command
from sst2_ray.cluster.submit.output import Output, say
from sst2_ray.cluster.submit.plan import plan_rows
from sst2_ray.cluster.submit.upload import Upload, check_upload, list_upload, shown
from sst2_ray.cluster.zones import move, zone_after
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import ExitCode, InfeasibleError, InputError, RunFailedError, StoppedError
from sst2_ray.terminal import busy


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Run a command on a cluster: sst2-ray submit [CLUSTER.yaml] [options] -- python jobs/train.py ..."""

    cluster: Positional[str | None] = None
    """Cluster file; a tunnel to its head is opened. None: --address, or RAY_API_SERVER_ADDRESS."""
    address: str | None = None
    """Address of the job server, e.g. http://127.0.0.1:8265."""
    working_dir: str = "."
    """Folder that is uploaded and becomes the job's working directory."""
    exclude: tuple[str, ...] = ()
    """Patterns (as in .gitignore) left out of the upload."""
    env: tuple[str, ...] = ()
    """KEY=VALUE for the job and its workers. Never a secret: the job server shows it to everybody."""
    entrypoint_cpus: float = 0.0
    """CPUs that the command itself reserves; 0: it runs on the head, which declares none."""
    entrypoint_gpus: float = 0.0
    """GPUs that the command itself reserves (its workers ask for their own)."""
    entrypoint_resources: tuple[str, ...] = ()
    """NAME=AMOUNT of custom resources that the command itself reserves."""
    again: bool = False
    """Run again what has succeeded; otherwise its log is shown. Refused while the same command runs."""
    force: bool = False
    """Follow the same command that somebody else runs, and be able to stop it; otherwise yours is a job of its own."""
    detach: bool = False
    """Return once the job is accepted; submit the same again to follow it."""
    dry_run: bool = False
    """Show the upload, the submission id, and what the job needs and costs; submit nothing."""
    hours: float | None = None
    """With --dry-run: length of the job, for its cost; None: forecast, where the command is one of this package's."""
    on_interrupt: Literal["ask", "detach", "stop"] = "ask"
    """Effect of Ctrl-C on the job; ask: detach where there is no terminal to ask on."""
    pending_timeout_s: float = 1800.0
    """Seconds that the command may wait for its own resources before it is given up (exit code 3), and on while a machine is set up."""
    reconnect_timeout_s: float = 300.0
    """Seconds that the cluster may be out of reach before it is given up (exit code 4)."""
    next_zone: bool = False
    """If the workers were never placed for want of machines, move the cluster to the file's next zone, and submit again."""
    down_when_done: bool = False
    """`ray down` the cluster once the job has ended, whatever its result, or was given up as never placed; not after a detach, and
    not while another job runs on it."""


def main(argv: list[str]) -> int:
    """Submit, follow, and return the job's own exit code. Raises Sst2RayError for everything else."""
    options, command = split_command(argv)
    config = parse(SubmitConfig, options, prog="sst2-ray submit")
    if not command:
        raise InputError(
            "no command to run; write it after --: sst2-ray submit ray_cluster.yaml -- python jobs/train.py ..."
        )
    if config.address and config.cluster:
        raise InputError("give a cluster file or --address, not both")
    cluster = load_cluster_file(config.cluster) if config.cluster else None
    if cluster is not None:
        cluster = cloud_of(cluster).limit_life(cluster, cluster.limits)
    use_token_if_present(cluster)  # before anything imports ray
    _check_flags(config, cluster)
    refuse_secrets(command)
    given = config.cluster or config.address
    for line in ignored_addresses(given) if given else ():
        say(line)
    with busy(f"listing {config.working_dir}"):
        upload = list_upload(config.working_dir, config.exclude)
    job = Job(
        command=tuple(command),
        variables=read_variables(config.env),
        demand=read_demand(config.entrypoint_cpus, config.entrypoint_gpus, config.entrypoint_resources),
        upload=upload,
        owner=owner(),
    )
    _show(job.upload)
    check_upload(job.upload)
    check_command(command, job.upload)
    if config.dry_run:
        for name, value in plan_rows(cluster, command, job.upload.folder, hours=config.hours) if cluster else ():
            say(f"{name}: {value}")
        say(f"would submit {job.id}: {shlex.join(command)}")
        return 0
    while True:
        try:
            return _run(job, config, cluster)
        except _NoCapacityError as lack:
            say(f"no machines in {lack.cluster.zone}: {lack.cluster.name} moves to {lack.zone}")
            move(lack.cluster, lack.zone)


def _check_flags(config: SubmitConfig, cluster: ClusterFile | None) -> None:
    """Check what needs a cluster file. Raises InputError."""
    if config.down_when_done and cluster is None:
        raise InputError("--down-when-done needs a cluster file: an address alone cannot be shut down")
    if cluster is not None and not cloud_of(cluster).starts_by_ray:
        cloud_of(cluster).head(
            cluster
        )  # raises: nothing of Ray's runs there before the job, and a dry run says so as well
    if config.next_zone and (cluster is None or not cluster.zones):
        raise InputError("--next-zone needs a cluster file that lists zones (provider.availability_zone)")


class _NoCapacityError(Exception):
    """The workers of a job were never placed, and the cluster's file lists another zone."""

    def __init__(self, cluster: ClusterFile, zone: str) -> None:
        super().__init__(zone)
        self.cluster, self.zone = cluster, zone


def _run(job: Job, config: SubmitConfig, cluster: ClusterFile | None) -> int:
    """Submit, follow, and shut down where that was asked for; return the job's exit code, 0 after --detach."""
    with ExitStack() as stack:
        stack.enter_context(_end_on_signals())
        address, heal = _way_to(config, cluster, stack)
        client = connect(address)
        job_id = submit(
            client,
            job,
            again=config.again,
            force=config.force,
            say=say,
            retry_for_s=config.reconnect_timeout_s,
            heal=heal,
        )
        if config.detach:
            say(f"detached from {job_id}; submit the same again to follow it")
            return 0
        output = Output()
        follower = Follower(
            client=client, job_id=job_id, emit=output, say=lambda text: say(f"[{job_id}] {text}"), heal=heal,
            demand=dict(job.demand), pending_timeout_s=config.pending_timeout_s, reconnect_timeout_s=config.reconnect_timeout_s,
        )  # fmt: skip
        down_with = cluster if config.down_when_done else None
        try:
            code = _follow(follower, config.on_interrupt)
        except InfeasibleError:
            _down_unless_used(down_with, follower)  # it never ran: all that the cluster still does for it is cost
            raise
        except (RunFailedError, StoppedError):
            if down_with is not None:
                say(f"{down_with.name} still runs and costs; sst2-ray down {down_with.path}")
            raise
        if config.next_zone and cluster is not None and code == ExitCode.INFEASIBLE and output.tells_of_no_place:
            _move_unless_used(cluster, follower)
        _down_unless_used(down_with, follower)
        return code


def _show(upload: Upload) -> None:
    largest = ", ".join(f"{shown(file.path)} {formatting.size(file.size)}" for file in upload.largest())
    counts = f"{formatting.count(len(upload.files), 'file')}, {formatting.size(upload.total_bytes)}"
    say(f"upload: {counts}, from {upload.folder}; largest: {largest}")
    if upload.outside:
        say(f"links to outside, which the job gets as copies: {', '.join(map(shown, upload.outside[:5]))}")


def _way_to(config: SubmitConfig, cluster: ClusterFile | None, stack: ExitStack) -> tuple[str, Callable[[], None]]:
    """Return (address of the job server, what reopens the way to it)."""
    if cluster is not None:
        cloud = cloud_of(cluster)
        key = cloud.key(cluster)
        if key is not None and not key.exists():
            raise InputError(
                f"{key}: the cluster's SSH key is not on this machine; copy it from whoever ran `sst2-ray up` (chmod 600)"
            )
        tunnel = stack.enter_context(Tunnel(cloud.host(cluster, cloud.head(cluster))))
        say(f"tunnel to {tunnel.host.address} open (ssh {tunnel.pid}); dashboard at {tunnel.url}")
        return tunnel.url, tunnel.ensure
    given = {"--address": config.address, **{name: os.environ.get(name) for name in ADDRESS_VARIABLES}}
    source, address = next(((name, value) for name, value in given.items() if value), ("", ""))
    if not address:
        raise InputError("no cluster: give a cluster file, --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS")
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{source} {address}: must be the job server's http:// address (port 8265 of the head)")
    return address, lambda: None


def _follow(follower: Follower, on_interrupt: str) -> int:
    while True:
        try:
            info = follower.follow()
        except KeyboardInterrupt as request:
            if _interrupted(follower, on_interrupt, may_ask=not isinstance(request, _Terminated)):
                continue
            raise StoppedError(f"detached; job {follower.job_id} goes on; submit the same again to re-attach") from None
        code = exit_code_of(info)
        # Ray's message repeats the log's end where the command itself failed; it is news only where Ray failed.
        news = f": {info.message.splitlines()[0]}" if code and info.message and info.driver_exit_code is None else ""
        follower.say(f"{info.status.lower()}, exit code {code}{news}")
        return code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, or the SIGHUP of a closed terminal: like Ctrl-C, with nobody to ask."""


@contextlib.contextmanager
def _end_on_signals() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C; what is ignored (nohup) stays ignored."""

    def end(number: int, _: object) -> None:
        raise _Terminated(signal.Signals(number).name)

    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    taken = [number for number, handler in previous.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, previous[number])


def _interrupted(follower: Follower, on_interrupt: str, *, may_ask: bool) -> bool:
    """Return True where the job is being stopped and must be followed to its end, False to detach."""
    choice = on_interrupt
    if choice == "ask":
        choice = "detach"
        if may_ask and sys.stdin is not None and sys.stdin.isatty():
            try:
                answer = input("\nCtrl-C: leave the job running and [d]etach (default), or [s]top it? ")
                choice = "stop" if answer.strip().lower().startswith("s") else "detach"
            except (KeyboardInterrupt, EOFError):
                choice = "detach"
    if choice == "detach":
        return False
    follower.say("stopping; a checkpoint may be written first")
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if not follower.stop(wait_s=180.0):
            raise RunFailedError(
                f"job {follower.job_id} did not stop within 180 s; look at it with: ray job status {follower.job_id}"
            )
    finally:
        signal.signal(signal.SIGINT, previous)
    return True


def _move_unless_used(cluster: ClusterFile, follower: Follower) -> None:
    """Raise _NoCapacityError where the cluster can move to another zone: there is one, and no other job runs."""
    zone = zone_after(cluster)
    if zone is None:
        say(f"{cluster.zone} is the last zone that {cluster.path} lists")
    elif others := still_running(follower.reach(follower.client.list_jobs), but=follower.job_id):
        say(f"not moved to {zone}: {', '.join(others)} still run; sst2-ray up {cluster.path} --next-zone")
    else:
        raise _NoCapacityError(cluster, zone)


def _down_unless_used(cluster: ClusterFile | None, follower: Follower) -> None:
    """Shut `cluster` down (None: nothing is to be shut down) unless another job runs on it."""
    if cluster is None:
        return
    try:
        others = still_running(follower.reach(follower.client.list_jobs), but=follower.job_id)
    except Exception:  # whatever it was, the job's exit code must not be lost to it
        say(f"not shut down: whether other jobs run is not known; sst2-ray down {cluster.path}")
        return
    if others:
        what = f"job {others[0]} still runs" if len(others) == 1 else f"jobs {', '.join(others)} still run"
        say(f"not shut down: {what}; sst2-ray down {cluster.path}")
        return
    say(f"shutting {cluster.name} down")
    down(cluster)
