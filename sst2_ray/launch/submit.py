"""`sst2-ray submit`: `ray job submit` that shows what it uploads, re-attaches, and exits with the job's own code."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tyro

from sst2_ray.args import parse
from sst2_ray.errors import InputError, RunFailedError, StoppedError
from sst2_ray.launch.cluster_file import ClusterFile, load_cluster_file, use_token_if_present
from sst2_ray.launch.job_follow import Follower, exit_code_of
from sst2_ray.launch.upload import Upload, check_upload, list_upload, mib

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|_KEY$|^KEY$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Run a command on a cluster: sst2-ray submit [CLUSTER.yaml] [options] -- python jobs/train.py ..."""

    cluster: tyro.conf.Positional[str | None] = None
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
    """Run again even if the same content was submitted before; False: re-attach to it."""
    detach: bool = False
    """Return once the job is accepted; submit the same again to follow it."""
    dry_run: bool = False
    """Show the upload and the submission id, and submit nothing."""
    on_interrupt: Literal["ask", "detach", "stop"] = "ask"
    """What Ctrl-C does to the job; ask: detach where there is no terminal to ask on."""
    pending_timeout_s: float = 600.0
    """Seconds that the command may wait for its own resources before it is given up (exit code 3)."""
    reconnect_timeout_s: float = 300.0
    """Seconds that the cluster may be out of reach before it is given up (exit code 4)."""
    down_when_done: bool = False
    """`ray down` the cluster file's cluster once the job has ended, whatever its result; not after a detach."""


def main(argv: list[str]) -> int:
    """Submit, follow, and return the job's own exit code. Raises Sst2RayError subclasses for everything else."""
    options, command = split_command(argv)
    config = parse(SubmitConfig, options, prog="sst2-ray submit")
    use_token_if_present()  # before anything imports ray
    if not command:
        raise InputError(
            "no command to run; write it after --: sst2-ray submit ray_cluster.yaml -- python jobs/train.py ..."
        )
    cluster = load_cluster_file(config.cluster) if config.cluster else None
    if config.down_when_done and cluster is None:
        raise InputError("--down-when-done needs a cluster file: an address alone cannot be shut down")
    variables = _variables(config.env)
    resources = _resources(config.entrypoint_resources)
    upload = list_upload(config.working_dir, config.exclude)
    _show(upload)
    check_upload(upload)
    job_id = submission_id(upload, command, variables)
    if config.dry_run:
        _say(f"would submit {job_id}: {shlex.join(command)}")
        return 0
    if config.address and cluster:
        raise InputError("give a cluster file or --address, not both")
    with ExitStack() as stack:
        address, heal = _way_to(config, cluster, stack)
        client = connect(address)
        job_id = _submit(client, job_id, upload, command, variables, resources, config)
        if config.detach:
            _say(f"detached from {job_id}; submit the same again to follow it")
            return 0
        follower = Follower(
            client=client, job_id=job_id, emit=_emit, say=lambda text: _say(f"[{job_id}] {text}"), heal=heal,
            demand=_demand(config, resources), pending_timeout_s=config.pending_timeout_s, reconnect_timeout_s=config.reconnect_timeout_s,
        )  # fmt: skip
        code = _follow(follower, config.on_interrupt)
    if config.down_when_done and cluster is not None:
        _down(cluster)
    return code


def split_command(argv: list[str]) -> tuple[list[str], list[str]]:
    """(our own options, the command after the first `--`)."""
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def submission_id(upload: Upload, command: list[str], variables: dict[str, str]) -> str:
    """The same for the same files, command and variables: submitting twice cannot run twice by accident."""
    text = json.dumps([upload.digest, command, sorted(variables.items())])
    return "sst2-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--env {name}: must be KEY=VALUE")
        if _SECRET_VARIABLE.search(name):
            raise InputError(
                f"--env {name}: looks like a secret, and a job's variables are readable by everybody on the cluster; "
                "mount it as a file (e.g. ~/.cache/huggingface/token under file_mounts of the cluster file)"
            )
        found[name] = value
    return found


def _resources(pairs: tuple[str, ...]) -> dict[str, float]:
    try:
        return {name: float(amount) for name, amount in (pair.split("=") for pair in pairs)}
    except ValueError:
        raise InputError(f"--entrypoint-resources {' '.join(pairs)}: must be NAME=AMOUNT") from None


def _demand(config: SubmitConfig, resources: dict[str, float]) -> dict[str, float]:
    wanted = {"CPU": config.entrypoint_cpus, "GPU": config.entrypoint_gpus, **resources}
    return {name: amount for name, amount in wanted.items() if amount}


def _show(upload: Upload) -> None:
    largest = ", ".join(f"{file.path} {mib(file.size)}" for file in upload.largest())
    _say(f"upload: {len(upload.files)} files, {mib(upload.total_bytes)}, from {upload.folder}; largest: {largest}")


def _way_to(config: SubmitConfig, cluster: ClusterFile | None, stack: ExitStack) -> tuple[str, Callable[[], None]]:
    """(address of the job server, what reopens the way to it)."""
    if cluster is not None:
        from sst2_ray.launch.ssh import tunnel_to

        tunnel = stack.enter_context(tunnel_to(cluster))
        _say(f"tunnel to {tunnel.host.address} open (ssh {tunnel.pid}); dashboard at {tunnel.url}")
        return tunnel.url, tunnel.ensure
    address = config.address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if not address:
        raise InputError("no cluster: give a cluster file, --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS")
    if not address.startswith(("http://", "https://")):
        raise InputError(f"--address {address}: must be the job server's http:// address (port 8265 of the head)")
    return address, lambda: None


def connect(address: str) -> JobSubmissionClient:
    """A client of the job server at `address`. Raises InputError where none answers, or it refuses the token."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in (
        "dashboard.modules.dashboard_sdk",
        "dashboard.modules.job.sdk",
        "_private.runtime_env.packaging",
        "_private.runtime_env.working_dir",
    ):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)  # what is uploaded was said above, in numbers
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise InputError(
            f"{address}: the cluster refuses this token; copy the cluster's ~/.ray/auth_token here (chmod 600), or set RAY_AUTH_TOKEN_PATH"
        ) from None
    except Exception as error:  # requests, aiohttp and Ray each have their own
        raise InputError(
            f"{address}: no job server answers ({' '.join(str(error).split())[:160]}); is the cluster up?"
        ) from None


def _submit(
    client: JobSubmissionClient, job_id: str, upload: Upload, command: list[str], variables: dict[str, str],
    resources: dict[str, float], config: SubmitConfig,
) -> str:  # fmt: skip
    """Submit, or re-attach to what was submitted before; returns the id that is followed."""
    job_id, exists = _choose(client, job_id, again=config.again)
    if exists:
        return job_id
    runtime_env: dict[str, Any] = {"working_dir": str(upload.folder), "excludes": list(upload.excludes)}
    if variables:
        runtime_env["env_vars"] = variables
    try:
        client.submit_job(
            entrypoint=shlex.join(command), submission_id=job_id, runtime_env=runtime_env,
            entrypoint_num_cpus=config.entrypoint_cpus or None, entrypoint_num_gpus=config.entrypoint_gpus or None,
            entrypoint_resources=resources or None,
        )  # fmt: skip
    except RuntimeError as error:
        if "already exists" in str(error):  # somebody submitted the same between our look and now
            _say(f"{job_id} exists, re-attaching")
            return job_id
        if "413" in str(error):
            raise InputError(
                f"the job server refuses the upload of {mib(upload.total_bytes)} as too large; name more in .rayignore"
            ) from None
        raise InputError(f"the job server refuses the job: {' '.join(str(error).split())[:300]}") from None
    _say(f"submitted {job_id}: {shlex.join(command)}")
    return job_id


def _choose(client: JobSubmissionClient, job_id: str, *, again: bool) -> tuple[str, bool]:
    """(id, whether it exists): the running or succeeded job of this content, else the next free id."""
    states = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    attempt, candidate = 1, job_id
    while candidate in states:
        state = states[candidate].status
        if not again and not state.is_terminal():
            _say(f"{candidate} was submitted before and is {state}: re-attaching")
            return candidate, True
        if not again and state == "SUCCEEDED":
            _say(f"{candidate} was submitted before and succeeded: showing its log (--again runs it again)")
            return candidate, True
        attempt += 1
        candidate = f"{job_id}-{attempt}"
    if attempt > 1:
        _say(f"submitted before (attempt {attempt - 1}); this is attempt {attempt}")
    return candidate, False


def _follow(follower: Follower, on_interrupt: str) -> int:
    while True:
        try:
            info = follower.follow()
        except KeyboardInterrupt:
            if _interrupted(follower, on_interrupt):
                continue
            raise StoppedError(f"detached; job {follower.job_id} goes on; submit the same again to re-attach") from None
        code = exit_code_of(info)
        # Ray's message repeats the log's end where the command itself failed; it is news only where Ray failed.
        news = f": {info.message.splitlines()[0]}" if code and info.message and info.driver_exit_code is None else ""
        follower.say(f"{info.status.lower()}, exit code {code}{news}")
        return code


def _interrupted(follower: Follower, on_interrupt: str) -> bool:
    """True: the job is being stopped, go on following it. False: detach."""
    choice = on_interrupt
    if choice == "ask":
        choice = "detach"
        if sys.stdin.isatty():
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


def _down(cluster: ClusterFile) -> None:
    from sst2_ray.launch.up import down

    _say(f"shutting {cluster.name} down")
    down(cluster)


def _emit(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
