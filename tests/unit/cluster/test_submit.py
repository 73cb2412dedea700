"""`sst2-ray submit` against a job server's client: what runs already, what it may shut down, whose exit code it returns."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from ray.job_submission import JobDetails, JobStatus, JobType

from sst2_ray.cluster.submit import arguments
from sst2_ray.cluster.submit import command as submit
from sst2_ray.cluster.submit import follow as job_follow
from sst2_ray.cluster.submit.client import OWNER, Job, owner
from sst2_ray.cluster.submit.client import submit as submit_job
from sst2_ray.cluster.submit.upload import list_upload
from sst2_ray.errors import InfeasibleError, InputError, RunFailedError
from sst2_ray.version import COMMIT_VARIABLE
from tests.support.cluster_files import FILES

COMMAND = ("python", "jobs/train.py", "--name", "first")


def details(
    name: str | None,
    status: str,
    entrypoint: str = shlex.join(COMMAND),
    code: int | None = None,
    by: str | None = None,
) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION if name else JobType.DRIVER, submission_id=name, job_id=None if name else "02000000",
        status=JobStatus(status), entrypoint=entrypoint, driver_exit_code=code, metadata={OWNER: by or owner()},
    )  # fmt: skip


class Client:
    """The job server's jobs, and what it answers for them: an exception in place of an answer is raised."""

    def __init__(self, *jobs: JobDetails, ends: str = "SUCCEEDED", code: int = 0) -> None:
        self.jobs = {job.submission_id: job for job in jobs}
        self.ends, self.code = ends, code
        self.submitted: list[str] = []
        self.variables: dict[str, str] = {}
        self.log: str | Exception = "line 1\nline 2\n"
        self.answers: list[Exception] = []

    def get_address(self) -> str:
        return "http://127.0.0.1:8265"

    def list_jobs(self) -> list[JobDetails]:
        if self.answers:
            raise self.answers.pop(0)
        return list(self.jobs.values())

    def submit_job(self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], **_: Any) -> str:
        self.submitted.append(submission_id)
        self.variables = runtime_env.get("env_vars", {})
        self.jobs[submission_id] = details(submission_id, self.ends, entrypoint, self.code)
        return submission_id

    def get_job_info(self, name: str) -> JobDetails:
        if self.answers:
            raise self.answers.pop(0)
        return self.jobs[name]

    def get_job_logs(self, name: str) -> str:  # noqa: ARG002
        if isinstance(self.log, Exception):
            raise self.log
        return self.log

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        yield str(self.log)
        self.jobs[name] = details(name, self.ends, code=self.code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work/jobs").mkdir(parents=True)
    (tmp_path / "work/jobs/train.py").write_text("print('hello')\n")
    return tmp_path / "work"


@pytest.fixture
def downs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the clusters that were shut down."""
    ended: list[str] = []
    monkeypatch.setattr(submit, "down", lambda cluster: ended.append(cluster.name))
    return ended


@pytest.fixture
def run(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:  # noqa: ARG001
    """`submit` with the shipped on-prem file, its tunnel open to the job server of `client`."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(submit, "_way_to", lambda *_: ("http://127.0.0.1:8265", lambda: None))
    monkeypatch.setattr(job_follow, "_LAST_LINES_S", 0.0)

    def submit_to(client: Client, *options: str) -> int:
        monkeypatch.setattr(submit, "connect", lambda _: client)
        return submit.main([str(FILES["onprem"]), "--working-dir", str(folder), *options, "--", *COMMAND])

    return submit_to


def job(folder: Path) -> Job:
    return Job(command=COMMAND, variables={}, demand={}, upload=list_upload(folder), owner=owner())


# ---- the commit of what is uploaded without .git


@pytest.mark.parametrize("given", ["", "abc-dirty"])
def test_a_job_is_told_the_commit_of_the_package_that_is_uploaded(
    run: Callable[..., int], folder: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    client, plain = Client(), Client()
    assert run(plain) == 0 and plain.variables == {}
    (folder / "sst2_ray").mkdir()
    (folder / "sst2_ray/version.py").write_text("__version__ = '0'\n")
    without = job(folder).id
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    assert run(client, *(["--env", f"{COMMIT_VARIABLE}={given}"] if given else [])) == 0
    commit = client.variables[COMMIT_VARIABLE]
    assert commit == given or (re.fullmatch("[0-9a-f]{40}", commit) and client.submitted == [without])
    (folder / "sst2_ray/version.py").write_text("__version__ = '1'\n")
    assert run(client) == 0 and client.variables[COMMIT_VARIABLE].endswith("-dirty")


# ---- --down-when-done


def test_the_cluster_goes_down_when_the_last_job_is_done(run: Callable[..., int], downs: list[str]) -> None:
    old = details("sst2-old", "FAILED", "python other.py")
    assert run(Client(old, ends="FAILED", code=7), "--down-when-done") == 7
    assert downs == ["sst2-onprem"]


@pytest.mark.parametrize("other", ["sst2-other", None])
def test_a_cluster_on_which_another_job_runs_is_not_shut_down(
    run: Callable[..., int], downs: list[str], capsys: pytest.CaptureFixture[str], other: str | None
) -> None:
    client = Client(details(other, "RUNNING", "python other.py"), ends="FAILED", code=7)
    assert run(client, "--down-when-done") == 7
    assert downs == []
    told = f"not shut down: job {other or '02000000'} still runs; sst2-ray down {FILES['onprem']}\n"
    assert capsys.readouterr().err.endswith(told)


def test_a_mere_re_attach_does_not_shut_down_what_others_use(
    run: Callable[..., int], downs: list[str], folder: Path
) -> None:
    done = details(job(folder).id, "SUCCEEDED", code=0)
    assert run(Client(done, details("sst2-other", "PENDING", "python other.py")), "--down-when-done") == 0
    assert downs == []


def test_a_cluster_whose_other_jobs_are_not_known_is_not_shut_down(
    run: Callable[..., int], downs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(ends="FAILED", code=7)
    asked = [[], RuntimeError("Request failed with status code 400: no.")]

    def list_jobs() -> list[JobDetails]:
        answer = asked.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(client, "list_jobs", list_jobs)
    assert run(client, "--down-when-done") == 7
    assert downs == [] and "not shut down: whether other jobs run is not known" in capsys.readouterr().err


def test_a_job_that_was_never_placed_shuts_its_own_cluster_down_only(run: Callable[..., int], downs: list[str]) -> None:
    for client, ended in (
        (Client(details("sst2-other", "RUNNING", "python other.py"), ends="PENDING"), []),
        (Client(ends="PENDING"), ["sst2-onprem"]),
    ):
        client.stop_job = lambda name, client=client: client.jobs.update({name: details(name, "STOPPED")})  # type: ignore[attr-defined]
        with pytest.raises(InfeasibleError):
            run(client, "--down-when-done", "--pending-timeout-s", "0")
        assert downs == ended


# ---- what the job server does not answer


def test_an_error_of_the_server_is_a_lost_connection(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(ends="FAILED", code=7)
    first = client.submit_job

    def submit_then_trouble(**options: Any) -> str:
        client.answers = [RuntimeError("Request failed with status code 500: Traceback.")]
        return first(**options)

    monkeypatch.setattr(client, "submit_job", submit_then_trouble)
    assert run(client) == 7
    assert "connection lost" in capsys.readouterr().err


def test_a_job_that_the_server_no_longer_knows_is_a_failure_in_one_line_and_the_cluster_is_said_to_cost(
    run: Callable[..., int], downs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()

    def submit_and_forget(*, submission_id: str, **_: Any) -> str:
        client.answers = [RuntimeError("Request failed with status code 404: Job\ndoes not exist.")]
        return submission_id

    monkeypatch.setattr(client, "submit_job", submit_and_forget)
    with pytest.raises(RunFailedError, match="status code 404: Job does not exist") as failed:
        run(client, "--down-when-done")
    assert "\n" not in str(failed.value) and downs == []
    assert f"sst2-onprem still runs and costs; sst2-ray down {FILES['onprem']}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "trouble", [RuntimeError("Request failed with status code 500: no agent."), requests.ConnectionError("refused")]
)
def test_a_log_whose_end_is_lost_does_not_cost_the_exit_code(
    run: Callable[..., int], downs: list[str], capsys: pytest.CaptureFixture[str], trouble: Exception
) -> None:
    client = Client(ends="FAILED", code=7)
    client.log = trouble
    assert run(client, "--down-when-done") == 7
    assert downs == ["sst2-onprem"] and "the last lines of the log could not be read" in capsys.readouterr().err


def test_a_server_that_does_not_list_its_jobs_or_is_lost_while_it_takes_one_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = Client()
    client.answers = [RuntimeError("Request failed with status code 500: Trace\nback.")]
    with pytest.raises(InputError, match=r"does not list its jobs .Request failed with status code 500: Trace back"):
        submit_job(client, job(folder), again=False, say=print, retry_for_s=0.1)

    def lost(**_: Any) -> str:
        raise requests.ConnectionError("reset\nby peer")

    monkeypatch.setattr(client, "submit_job", lost)
    with pytest.raises(RunFailedError, match=r"lost while it took job sst2-[\w-]+ \(ConnectionError\)"):
        submit_job(client, job(folder), again=False, say=print, retry_for_s=0.1)


def test_a_job_whose_answer_was_lost_is_submitted_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = Client(ends="RUNNING")
    first = client.submit_job

    def take_and_lose(**options: Any) -> str:
        if client.submitted:
            name = options["submission_id"]
            raise RuntimeError(f"Request failed with status code 500: Job with submission_id {name} already exists.")
        first(**options)
        raise requests.ReadTimeout("timed out")

    healed: list[int] = []
    monkeypatch.setattr(client, "submit_job", take_and_lose)
    own = submit_job(
        client, job(folder), again=False, say=print, retry_for_s=30, heal=lambda: healed.append(1)
    )  # fmt: skip
    assert client.submitted == [own] and healed
    assert capsys.readouterr().out.splitlines() == [
        "the job server has not taken the job (ReadTimeout); trying again", f"{own} exists, re-attaching",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "trouble",
    [
        RuntimeError("Request failed with status code 500: No available agent to submit job, please try again later."),
        RuntimeError("Request failed with status code 503: Service Unavailable"),
        requests.ConnectionError("reset by peer"),
    ],
)
def test_a_server_that_takes_no_jobs_yet_is_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    client: Any = Client(ends="RUNNING")
    first, troubles = client.submit_job, [trouble]

    def not_yet(**options: Any) -> str:
        if troubles:
            raise troubles.pop()
        return str(first(**options))

    monkeypatch.setattr(client, "submit_job", not_yet)
    assert submit_job(client, job(folder), again=False, say=print, retry_for_s=30) == job(folder).id


@pytest.mark.parametrize(
    ("trouble", "raised", "said"),
    [
        ("500: No available agent to submit job.", RunFailedError, "has taken no job for 0 s: its dashboard agent does not run"),
        ("413: Request Entity Too Large", InputError, "refuses the upload of 0.0 KiB as too large"),
        ("400: ValueError: no such runtime_env\n", InputError, "refuses the job: Request failed with status code 400"),
        ("500: Traceback: a 413 in it", InputError, "refuses the job: Request failed with status code 500"),
    ],
)  # fmt: skip
def test_a_job_that_is_not_taken_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, raised: type[Exception], said: str
) -> None:
    client: Any = Client()

    def refuse(**_: Any) -> str:
        raise RuntimeError(f"Request failed with status code {trouble}")

    monkeypatch.setattr(client, "submit_job", refuse)
    with pytest.raises(raised, match=said) as failed:
        submit_job(client, job(folder), again=False, say=print, retry_for_s=0)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("status", ["RUNNING", "FAILED"])
def test_a_reader_that_goes_away_costs_neither_the_exit_code_nor_a_line(
    run: Callable[..., int], folder: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    said = io.StringIO()
    client = Client(details(job(folder).id, status, code=7), ends="FAILED", code=7)
    with suppress(BrokenPipeError), os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        monkeypatch.setattr(sys, "stderr", said)
        if status == "FAILED":  # followed from its end on: only the log's last lines are written
            monkeypatch.setattr(submit, "submit", lambda *_, **__: job(folder).id)
        assert run(client) == 7
        gone.flush()  # nor does Python's own last flush fail, which would end the process with 120
    assert "broke" not in said.getvalue() and "exit code 7" in said.getvalue()


# ---- the same command again


def test_the_same_command_with_edited_files_re_attaches_to_what_runs_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client: Any = Client(details(job(folder).id, "RUNNING"))
    (folder / "jobs/train.py").write_text("print('edited')\n")
    assert submit_job(client, job(folder), again=False, say=print, retry_for_s=0.1) == next(iter(client.jobs))
    assert client.submitted == []
    told = capsys.readouterr().out
    assert (
        "is RUNNING: re-attaching" in told
        and "files and variables that it was submitted with, not those given now" in told
    )


def test_the_same_content_re_attaches_without_a_word_about_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client: Any = Client(details("sst2-edited", "RUNNING"), details(job(folder).id, "PENDING"))
    assert submit_job(client, job(folder), again=False, say=print, retry_for_s=0.1) == job(folder).id
    assert capsys.readouterr().out == f"{job(folder).id} was submitted before and is PENDING: re-attaching\n"


def test_again_is_refused_while_the_same_command_runs(folder: Path) -> None:
    client: Any = Client(details("sst2-edited", "RUNNING"))
    with pytest.raises(InputError, match=r"--again: sst2-edited runs the same command.*--on-interrupt stop"):
        submit_job(client, job(folder), again=True, say=print, retry_for_s=0.1)
    assert client.submitted == []


def test_another_command_and_one_that_has_ended_are_no_reason_not_to_submit(folder: Path) -> None:
    own = job(folder).id
    client: Any = Client(details("sst2-other", "RUNNING", "python other.py"), details(own, "SUCCEEDED"))
    assert submit_job(client, job(folder), again=False, say=print, retry_for_s=0.1) == own
    assert client.submitted == []
    assert submit_job(client, job(folder), again=True, say=print, retry_for_s=0.1) == f"{own}-2"
    assert client.submitted == [f"{own}-2"]


def test_the_same_command_of_somebody_else_is_left_alone_unless_force_is_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client: Any = Client(details("sst2-bob-1", "RUNNING", by="bob-1a2b3c"))
    own = job(folder).id
    assert submit_job(client, job(folder), again=False, say=print, retry_for_s=0.1) == own and client.submitted == [own]
    assert "sst2-bob-1 of bob-1a2b3c runs the same command; yours is a job of its own" in capsys.readouterr().out
    client = Client(details("sst2-bob-1", "RUNNING", by="bob-1a2b3c"))
    assert submit_job(client, job(folder), again=False, force=True, say=print, retry_for_s=0.1) == "sst2-bob-1"


@pytest.mark.usefixtures("home")
def test_an_owner_is_the_same_in_every_shell_and_another_in_every_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = owner()
    assert owner() == first
    monkeypatch.setenv("HOME", str(tmp_path))
    assert owner() != first


# ---- the key


@pytest.mark.usefixtures("home")
def test_a_key_that_is_not_on_this_machine_is_refused_before_ssh_is_tried(folder: Path) -> None:
    with pytest.raises(InputError, match=r"\.ssh/sst2-ray\.pem: the cluster's SSH key is not on this machine; copy it"):
        submit.main([str(FILES["aws"]), "--working-dir", str(folder), "--", *COMMAND])


# ---- secrets


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("HF_TOKEN=hunter2", r"word 2 of the command (HF_TOKEN=...)"),
        ("azure_storage_connection_string=hunter2", r"(azure_storage_connection_string=...)"),
        ("--token=hf_" + "a" * 34, "word 2 of the command (--token=...)"),
        ("ghp_" + "b" * 36, "word 2 of the command:"),
    ],
)
def test_a_secret_in_the_command_is_refused_and_not_repeated(
    folder: Path, capsys: pytest.CaptureFixture[str], word: str, told: str
) -> None:
    with pytest.raises(InputError) as refused:
        submit.main(
            ["--address", "http://127.0.0.1:1", "--working-dir", str(folder), "--", "env", word, "python", "a.py"]
        )
    secret = word.split("=")[-1]
    assert told in str(refused.value) and secret not in str(refused.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize("pair", ["AWS_ACCESS_KEY_ID=hunter2", "A_CONNECTION_STRING=hunter2", "NOTE=hf_" + "a" * 34])
def test_a_secret_in_a_variable_is_refused_by_its_name_or_by_its_content(pair: str) -> None:
    with pytest.raises(InputError, match=f"--env {pair.split('=')[0]}: looks like a secret") as refused:
        arguments.read_variables((pair,))
    assert pair.split("=")[1] not in str(refused.value)


def test_a_bare_secret_in_place_of_a_variable_is_not_repeated() -> None:
    with pytest.raises(InputError, match=r"^--env, value 2: must be KEY=VALUE$"):
        arguments.read_variables(("A=1", "hunter2"))


def test_names_that_only_sound_like_secrets_pass() -> None:
    words = [
        "TOKENIZERS_PARALLELISM=false", "MAX_TOKENS=128", "MONKEY=1", "SORT_KEY=1", "GROUP_KEY=name", "PRIMARY_KEY=id", "KEY=value",
        "TOKEN_TYPE=bpe", "KEYBOARD=us", "API_KEY=", "USE_AUTH_TOKEN=false",
    ]  # fmt: skip
    assert len(arguments.read_variables(tuple(words))) == len(words)
    arguments.refuse_secrets(
        ["env", *words, "python", "jobs/train.py", "--name=first", "--tokenizer", "x", "--sort-key", "a"]
    )


@pytest.mark.parametrize(
    "command",
    [
        ["train.py", "--api-key", "hunter2"],
        ["train.py", "--wandb-api-key=hunter2"],
        ["train.py", "--password", "hunter2"],
        ["train.py", "--storage-path", "s3://minio:" + "hunter2Hunter@bucket"],
        ["train.py", "--storage-path", "s3://minio:" + "hunter2Hunter@bucket?endpoint_override=h:1"],
        ["train.py", "--data", "s3://minio:" + "hunter2%2FHunter@bucket/data"],
        ["env", "OPENAI_KEY=hunter2hunter2hunter2", "train.py"],
        ["train.py", "--data", "https://x.blob.core.windows.net/c?DefaultEndpoints;AccountKey=" + "a" * 86 + "=="],
        ["train.py", "xoxb-" + "123456789012-abcdefghij"],
        ["train.py", "github_pat_" + "a1" * 20],
        ["train.py", "sk-ant-api03-" + "aB3" * 10],
    ],
)
def test_a_secret_is_known_by_its_flag_or_by_its_form(command: list[str]) -> None:
    with pytest.raises(InputError, match="looks like a secret") as refused:
        arguments.refuse_secrets(command)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "command"), [("cluster/slurm.sbatch", "sbatch"), ("cluster/kuberay-rayjob.yaml", "kubectl")]
)
def test_a_dry_run_says_as_the_run_does_that_there_is_no_head_to_submit_to(file: str, command: str) -> None:
    with pytest.raises(InputError, match=command):
        submit.main([file, "--dry-run", "--", "python", "jobs/train.py"])
