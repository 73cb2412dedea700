"""A job on a cluster's job server: its submission id from its content and its owner, and submitting it once."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import secrets
import shlex
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray import formatting
from sst2_ray.cluster.ray_private import job_client
from sst2_ray.cluster.submit.reach import CALL_ERRORS, NO_AGENT, reach, server_trouble, takes_jobs_later
from sst2_ray.cluster.submit.upload import Upload
from sst2_ray.errors import FailureClass, InputError, RunFailedError
from sst2_ray.version import COMMIT_VARIABLE, git_state

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

OWNER_FILE = Path("~/.sst2-ray/owner")
OWNER = "sst2_ray_owner"
"""Key of a job's metadata that names who submitted it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command, with the files and variables that it is submitted with."""

    command: tuple[str, ...]
    variables: Mapping[str, str]
    """Environment variables of the job and its workers."""
    demand: Mapping[str, float]
    """Resources that the command itself reserves, by Ray's names."""
    upload: Upload
    owner: str

    @property
    def id(self) -> str:
        """Return the submission id of the first attempt."""
        return submission_id(self.upload, list(self.command), dict(self.variables), self.owner)


def owner() -> str:
    """Return a name for this user on this machine that no other user of the cluster has: login, then 6 hexadecimal digits."""
    try:
        login = re.sub(r"\W+", "", getpass.getuser())[:16] or "user"
    except (OSError, KeyError):  # a user id without a name
        login = f"uid{os.getuid()}"
    file = OWNER_FILE.expanduser()
    try:
        if not file.exists():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            file.write_text(secrets.token_hex(3))
        mark = file.read_text().strip()
    except OSError:  # no home that can be written: the same every time, at least on this machine
        mark = hashlib.sha256(f"{os.getuid()}@{socket.gethostname()}".encode()).hexdigest()
    return f"{login}-{mark[:6]}"


def submission_id(upload: Upload, command: list[str], variables: dict[str, str], owner: str) -> str:
    """Derive an id from owner, files, command and variables, so that what succeeded is not run again by accident."""
    text = json.dumps([upload.digest, command, sorted(variables.items())])
    return f"sst2-{owner}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def connect(address: str) -> JobSubmissionClient:
    """Return a client of the job server at `address`. Raises InputError where none answers in time, or it refuses the token."""
    from ray.exceptions import AuthenticationError

    try:
        return job_client(address)
    except AuthenticationError:
        raise InputError(
            f"{address}: the cluster refuses this token; "
            "copy ~/.sst2-ray/CLUSTER.token from whoever ran `sst2-ray up` (chmod 600), or set RAY_AUTH_TOKEN_PATH"
        ) from None
    except Exception as error:  # requests, aiohttp and Ray each have their own
        raise InputError(
            f"{address}: no job server answers ({' '.join(str(error).split())[:160]}); is the cluster up?"
        ) from None


def list_jobs(client: JobSubmissionClient) -> list[JobDetails]:
    """Return every job that the job server knows. Raises InputError where it does not tell."""
    try:
        return list(client.list_jobs())
    except Exception as error:  # requests and Ray each have their own
        raise InputError(
            f"{client.get_address()}: the job server does not list its jobs ({' '.join(str(error).split())[:160]}); "
            "try again, or look at the dashboard"
        ) from None


def owner_of(job: JobDetails) -> str:
    """Return who submitted a job, empty where nobody says."""
    return str((job.metadata or {}).get(OWNER, ""))


def still_running(jobs: Iterable[JobDetails], *, but: str | None = None) -> list[str]:
    """Return the names of jobs that have not ended, drivers that nobody submitted among them, without `but`."""
    names = [str(job.submission_id or job.job_id) for job in jobs if not job.status.is_terminal()]
    return [name for name in names if name != but]


def submit(
    client: JobSubmissionClient,
    job: Job,
    *,
    again: bool,
    force: bool = False,
    say: Callable[[str], None],
    retry_for_s: float,
    heal: Callable[[], None] = lambda: None,
) -> str:
    """Submit a job, or re-attach to what was submitted before; return the id to follow.

    Args:
        client: of the job server.
        job: to submit.
        again: run again what has succeeded; refused where it has not ended.
        force: follow the same command of another owner; False: it is left alone.
        say: takes one line about the job.
        retry_for_s: seconds for which a server that is lost, or takes no jobs yet, is asked again.
        heal: reopens the way to the server.

    Raises:
        InputError: the server refuses the job.
        RunFailedError: the server has not taken the job in time.
    """
    jobs = list_jobs(client)
    running = _running(jobs, job, force=force, say=say)
    if running:
        return _re_attach(running, job, again=again, say=say)
    states = {known.submission_id: str(known.status.value) for known in jobs if known.submission_id}
    attempt, candidate = 1, job.id
    while candidate in states:
        if not again and states[candidate] == "SUCCEEDED":
            say(f"{candidate} was submitted before and succeeded: showing its log (--again runs it again)")
            return candidate
        attempt += 1
        candidate = f"{job.id}-{attempt}"
    if attempt > 1:
        say(f"submitted before (attempt {attempt - 1}); this is attempt {attempt}")
    return _submit_new(client, job, candidate, say=say, retry_for_s=retry_for_s, heal=heal)


def _running(jobs: list[JobDetails], job: Job, *, force: bool, say: Callable[[str], None]) -> list[JobDetails]:
    """Return the running jobs to re-attach to: those of this command (after an edit it would be a second driver of one run)."""
    same = [
        known
        for known in jobs
        if known.submission_id and known.entrypoint == shlex.join(job.command) and not known.status.is_terminal()
    ]
    own = [known for known in same if owner_of(known) == job.owner]
    others = [known for known in same if owner_of(known) != job.owner]
    if own or (force and others):
        return own or others
    for known in others:
        who = owner_of(known) or "somebody else"
        say(f"{known.submission_id} of {who} runs the same command; yours is a job of its own (--force follows theirs)")
    return []


def _re_attach(running: list[JobDetails], job: Job, *, again: bool, say: Callable[[str], None]) -> str:
    same_content = [known for known in running if str(known.submission_id).startswith(job.id)]
    known = (same_content or running)[0]
    name, state = str(known.submission_id), known.status.value
    if again:
        raise InputError(
            f"--again: {name} runs the same command and is {state}; wait for its end, or end it: submit without --again "
            "but with --on-interrupt stop, then Ctrl-C"
        )
    say(f"{name} was submitted before and is {state}: re-attaching")
    if not same_content:
        say(f"{name} runs the files and variables that it was submitted with, not those given now")
    return name


def _submit_new(
    client: JobSubmissionClient,
    job: Job,
    job_id: str,
    *,
    say: Callable[[str], None],
    retry_for_s: float,
    heal: Callable[[], None],
) -> str:
    runtime_env: dict[str, object] = {"working_dir": str(job.upload.folder), "excludes": list(job.upload.excludes)}
    if variables := {**_commit_of(job.upload.folder), **job.variables}:
        runtime_env["env_vars"] = variables
    custom = {name: amount for name, amount in job.demand.items() if name not in ("CPU", "GPU")}
    # Trying again is safe: a job that was taken although its answer was lost exists already.
    take = partial(
        client.submit_job,
        entrypoint=shlex.join(job.command),
        submission_id=job_id,
        runtime_env=runtime_env,
        metadata={OWNER: job.owner},
        entrypoint_num_cpus=job.demand.get("CPU"),
        entrypoint_num_gpus=job.demand.get("GPU"),
        entrypoint_resources=custom or None,
    )
    try:
        reach(
            take,
            limit_s=retry_for_s,
            heal=heal,
            notice=lambda error: say(f"the job server has not taken the job ({_in_short(error)}); trying again"),
            passes=takes_jobs_later,
        )
    except CALL_ERRORS as error:
        if f"{job_id} already exists" in str(error):  # taken from another terminal, or by a call whose answer was lost
            say(f"{job_id} exists, re-attaching")
            return job_id
        raise _not_taken(error, job, job_id, retry_for_s) from None
    say(f"submitted {job_id}: {shlex.join(job.command)}")
    return job_id


def _commit_of(folder: Path) -> dict[str, str]:
    """Return the variable that tells rows the commit of this package in an upload, which leaves .git out; none without one."""
    commit, dirty = git_state(folder / "sst2_ray" / "version.py")
    return {COMMIT_VARIABLE: f"{commit}-dirty" if dirty else commit} if commit else {}


def _not_taken(error: Exception, job: Job, job_id: str, retry_for_s: float) -> InputError | RunFailedError:
    """Return what is told of a job that the server has not taken for so many seconds."""
    text = " ".join(str(error).split())
    if "status code 413" in text:
        return InputError(
            f"the job server refuses the upload of {formatting.size(job.upload.total_bytes)} as too large; name more in .rayignore"
        )
    if isinstance(error, RuntimeError) and not takes_jobs_later(error):
        return InputError(f"the job server refuses the job: {text[:300]}")
    if NO_AGENT in text:
        said = (
            f"the head has taken no job for {retry_for_s:.0f} s: its dashboard agent does not run; two Rays on one machine "
            "need a --dashboard-agent-listen-port each"
        )
    else:
        said = (
            f"the job server was lost while it took job {job_id} ({_in_short(error)}); submit the same again: it re-attaches "
            "where the job was accepted"
        )
    return RunFailedError(said, failure_class=FailureClass.WORKER_LOST)


def _in_short(error: Exception) -> str:
    """Return the reason why a job was not taken, in a few words."""
    return "its agent does not run" if NO_AGENT in str(error) else server_trouble(error) or type(error).__name__
