"""A job on a cluster's job server: its submission id from its content, and submitting it once."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sst2_ray.errors import InputError
from sst2_ray.launch.upload import Upload, mib

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


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
    """The same for the same files, command and variables: submitting twice cannot run twice by accident."""
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


def submit(client: JobSubmissionClient, job: Job, *, again: bool, say: Callable[[str], None]) -> str:
    """Submit, or re-attach to what was submitted before (not with `again`); returns the id to follow.

    Raises InputError where the job server refuses the job.
    """
    job_id, exists = _choose(client, job.id, again=again, say=say)
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
    say(f"submitted {job_id}: {shlex.join(job.command)}")
    return job_id


def _choose(client: JobSubmissionClient, job_id: str, *, again: bool, say: Callable[[str], None]) -> tuple[str, bool]:
    """(id, whether it exists): the running or succeeded job of this content, else the next free id."""
    states = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    attempt, candidate = 1, job_id
    while candidate in states:
        state = states[candidate].status
        if not again and not state.is_terminal():
            say(f"{candidate} was submitted before and is {state}: re-attaching")
            return candidate, True
        if not again and state == "SUCCEEDED":
            say(f"{candidate} was submitted before and succeeded: showing its log (--again runs it again)")
            return candidate, True
        attempt += 1
        candidate = f"{job_id}-{attempt}"
    if attempt > 1:
        say(f"submitted before (attempt {attempt - 1}); this is attempt {attempt}")
    return candidate, False
