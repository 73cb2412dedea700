"""A job on a cluster's job server: its submission id from its content, and submitting it once."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sst2_ray.cluster.submit.upload import Upload, mib
from sst2_ray.errors import FailureClass, InputError, RunFailedError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is submitted."""

    command: tuple[str, ...]
    variables: Mapping[str, str]
    """For the job and its workers."""
    demand: Mapping[str, float]
    """Resources that the command itself reserves, by Ray's names."""
    upload: Upload

    @property
    def id(self) -> str:
        """Submission id of the first attempt."""
        return submission_id(self.upload, list(self.command), dict(self.variables))


def submission_id(upload: Upload, command: list[str], variables: dict[str, str]) -> str:
    """The same for the same files, command and variables: what succeeded is not run again by accident."""
    text = json.dumps([upload.digest, command, sorted(variables.items())])
    return "sst2-" + hashlib.sha256(text.encode()).hexdigest()[:16]


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
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)  # what is uploaded is said by our own listing
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


def list_jobs(client: JobSubmissionClient) -> list[JobDetails]:
    """Every job that the job server knows. Raises InputError where it does not tell."""
    try:
        return list(client.list_jobs())
    except Exception as error:  # requests and Ray each have their own
        raise InputError(
            f"{client.get_address()}: the job server does not list its jobs ({' '.join(str(error).split())[:160]}); "
            "try again, or look at the dashboard"
        ) from None


def still_running(jobs: Iterable[JobDetails], *, but: str | None = None) -> list[str]:
    """Names of the jobs that have not ended, drivers that nobody submitted among them; `but` is left out."""
    names = [str(job.submission_id or job.job_id) for job in jobs if not job.status.is_terminal()]
    return [name for name in names if name != but]


def submit(client: JobSubmissionClient, job: Job, *, again: bool, say: Callable[[str], None]) -> str:
    """Submit, or re-attach to what was submitted before (with `again` only where that has ended); returns the id to follow.

    Raises InputError where the job server refuses the job, RunFailedError where it is lost while it takes the job.
    """
    import requests

    job_id, exists = _choose(list_jobs(client), job, again=again, say=say)
    if exists:
        return job_id
    runtime_env: dict[str, Any] = {"working_dir": str(job.upload.folder), "excludes": list(job.upload.excludes)}
    if job.variables:
        runtime_env["env_vars"] = dict(job.variables)
    custom = {name: amount for name, amount in job.demand.items() if name not in ("CPU", "GPU")}
    try:
        client.submit_job(
            entrypoint=shlex.join(job.command), submission_id=job_id, runtime_env=runtime_env,
            entrypoint_num_cpus=job.demand.get("CPU"), entrypoint_num_gpus=job.demand.get("GPU"), entrypoint_resources=custom or None,
        )  # fmt: skip
    except RuntimeError as error:
        if "already exists" in str(error):  # somebody submitted the same between our look and now
            say(f"{job_id} exists, re-attaching")
            return job_id
        if "413" in str(error):
            raise InputError(
                f"the job server refuses the upload of {mib(job.upload.total_bytes)} as too large; name more in .rayignore"
            ) from None
        raise InputError(f"the job server refuses the job: {' '.join(str(error).split())[:300]}") from None
    except (requests.RequestException, ConnectionError) as error:
        raise RunFailedError(
            f"the job server was lost while it took job {job_id} ({type(error).__name__}); submit the same again: it re-attaches "
            "where the job was accepted",
            failure_class=FailureClass.WORKER_LOST,
        ) from None
    say(f"submitted {job_id}: {shlex.join(job.command)}")
    return job_id


def _choose(jobs: list[JobDetails], job: Job, *, again: bool, say: Callable[[str], None]) -> tuple[str, bool]:
    """(id, whether it exists): the job that runs this command, or has succeeded with this content; else the next free id."""
    states = {known.submission_id: known.status for known in jobs if known.submission_id}
    # By command, not by content: after an edit the same command would be a second driver on the same run's folder.
    running = [
        known.submission_id
        for known in jobs
        if known.submission_id and known.entrypoint == shlex.join(job.command) and not known.status.is_terminal()
    ]
    if running:
        same = [name for name in running if name.startswith(job.id)]  # of this content
        found = (same or running)[0]
        if again:
            raise InputError(
                f"--again: {found} runs the same command and is {states[found]}; wait for its end, or end it: submit without --again "
                "but with --on-interrupt stop, then Ctrl-C"
            )
        say(f"{found} was submitted before and is {states[found]}: re-attaching")
        if not same:
            say(f"{found} runs the files and variables that it was submitted with, not those given now")
        return found, True
    attempt, candidate = 1, job.id
    while candidate in states:
        if not again and states[candidate] == "SUCCEEDED":
            say(f"{candidate} was submitted before and succeeded: showing its log (--again runs it again)")
            return candidate, True
        attempt += 1
        candidate = f"{job.id}-{attempt}"
    if attempt > 1:
        say(f"submitted before (attempt {attempt - 1}); this is attempt {attempt}")
    return candidate, False
