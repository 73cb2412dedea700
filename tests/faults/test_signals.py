"""SIGINT and SIGTERM to real commands: a checkpoint, rows that say `stopped`, exit code 5, and no process left."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.results.store.table import ResultsTable
from sst2_ray.training.fault_injection import VARIABLE, Fault
from tests.support.faults import REPOSITORY, TinyRun
from tests.support.heads import MARKER, pids_of, started_head
from tests.support.waiting import waited

NOTICE = "stopping: writing a checkpoint (interrupt again to stop at once)"


@dataclass(frozen=True)
class Command:
    """A command that has come to its fifth step, slowed down, and the file that its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path
    marker: str

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal as terminals and `timeout` do: to the command, and to its whole group."""
        if number != signal.SIGINT:
            self.process.send_signal(number)
        os.killpg(self.process.pid, number)

    def left(self) -> list[str]:
        """List the command lines of the processes that were started with the command's environment and still run."""
        found = []
        for pid in pids_of(self.marker):
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return found


def slow_from_the_fifth_step(mark: Path) -> list[Fault]:
    """Make `mark` appear after the fifth step, and each one from there on take 0.2 s longer."""
    where = {"attempt": 0, "rank": 0, "step": 5}
    return [Fault(kind="tell", path=str(mark), **where), *[Fault(kind="slow", **where)] * 4]


@contextlib.contextmanager
def started(words: list[str], folder: Path, **env: str) -> Iterator[Command]:
    """Run `sst2-ray WORDS` until every rank 0 of it is at its fifth step, and slow from there."""
    mark, log = folder / "at-work", folder / "output"
    faults = slow_from_the_fifth_step(mark)
    values = {
        **os.environ, VARIABLE: json.dumps([fault.__dict__ for fault in faults]), MARKER: str(folder),
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}', **env,
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("sst2-ray")), *words],
            cwd=REPOSITORY,
            env=values,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        waited(lambda: mark.exists() or process.poll() is not None, "the fifth step", 180)
        assert process.poll() is None, log.read_text()
        yield Command(process, log, str(folder))
    finally:
        process.kill()
        process.wait()


def rows(storage: str, experiment: str) -> list[dict[str, Any]]:
    return ResultsTable(storage).read("trials", experiment=experiment, attempts="latest").to_pylist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


def train_words(run: TinyRun) -> list[str]:
    return ["train", *run.command[2:]]


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has installed a handler for a signal."""
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def starts_ray(process: subprocess.Popen[bytes], folder: Path) -> bool:
    return any("gcs_server" in line for line in Command(process, folder, str(folder)).left())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["INT", "TERM", "HUP"])
@pytest.mark.parametrize("moment", ["first", "ray"])
def test_a_signal_before_training_ends_the_command_in_one_line(
    folder: Path, tmp_path: Path, number: int, moment: str
) -> None:
    run = TinyRun(folder, f"early-{moment}-{number}")
    words = [str(Path(sys.executable).with_name("sst2-ray")), *train_words(run)]
    env = {**os.environ, MARKER: str(tmp_path), "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}
    process = subprocess.Popen(words, cwd=REPOSITORY, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        ready = starts_ray if moment == "ray" else (lambda process, _: catches(process.pid, signal.SIGTERM))
        waited(lambda: ready(process, tmp_path), "the moment", 60)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (5, b"stopped\n")
        waited(lambda: not pids_of(str(tmp_path)), "the end of all processes", 15)
    finally:
        process.kill()
    assert not run.run_folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_to_train_leaves_a_checkpoint_and_no_process(folder: Path, tmp_path: Path, number: int) -> None:
    run = TinyRun(folder, f"train-{number}", checkpoint_every_steps=1000)
    with started(train_words(run), tmp_path) as command:
        command.signal(number)
        assert command.process.wait(60) == 5, command.output
        waited(lambda: not command.left(), f"the end of {command.left()}", 15)
    (row,) = run.attempts()
    assert (row["status"], row["failure_class"]) == ("stopped", "user_stop")
    saved = row["last_global_step"]
    assert saved >= 5
    assert command.output.count(NOTICE) == 1
    assert command.output.splitlines()[-1] == (
        f"error: {run.name}: stopped on request; step {saved} is saved, and the same command goes on there"
    )
    assert (run.run_folder / "checkpoints" / f"step-{saved:08d}" / "manifest.json").exists()


def test_a_second_signal_to_train_ends_it_at_once(folder: Path, tmp_path: Path) -> None:
    run = TinyRun(folder, "train-twice", checkpoint_every_steps=1000)
    with started(train_words(run), tmp_path) as command:
        command.signal(signal.SIGTERM)
        command.signal(signal.SIGINT)
        assert command.process.wait(30) == 5, command.output
        waited(lambda: not command.left(), f"the end of {command.left()}", 15)
    (row,) = run.attempts()
    assert (row["status"], row["failure_class"]) == ("stopped", "user_stop")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_to_sweep_stops_its_trials_with_checkpoints(folder: Path, tmp_path: Path, number: int) -> None:
    run = TinyRun(folder, f"sweep-{number}", checkpoint_every_steps=1000)
    flags = {**run.flags, "models": run.flags["model"], "batch_sizes": 16, "learning_rates": 1e-3, "num_workers": 1}
    for single in ("model", "batch_size", "learning_rate"):
        del flags[single]
    words = ["sweep", *(f"--{key.replace('_', '-')}={value}" for key, value in flags.items()), "--num-seeds=2"]
    with started(words, tmp_path) as command:
        command.signal(number)
        assert command.process.wait(90) == 5, command.output
        waited(lambda: not command.left(), f"the end of {command.left()}", 15)
    found = rows(run.storage_path, run.name)
    assert {(row["status"], row["failure_class"]) for row in found} == {("stopped", "user_stop")}
    assert command.output.count(NOTICE) == 1
    assert f"sst2-ray sweep --resume {run.run_folder}" in command.output
    for row in found:
        saved = run.run_folder / row["trial_id"] / "checkpoints" / f"step-{row['last_global_step']:08d}"
        assert (saved / "manifest.json").exists()


@pytest.mark.slow
def test_stopping_a_submitted_job_leaves_a_checkpoint(tmp_path: Path) -> None:
    from ray.job_submission import JobSubmissionClient

    run = TinyRun(tmp_path, "submitted", checkpoint_every_steps=1000)
    faults = json.dumps([fault.__dict__ for fault in slow_from_the_fifth_step(tmp_path / "at-work")])
    with started_head(**{VARIABLE: faults, "RAY_JOB_STOP_WAIT_TIME_S": "60"}) as head:
        client = waited(lambda: connected(JobSubmissionClient, head.jobs), "the job server", 60)
        entrypoint = shlex.join([sys.executable, str(REPOSITORY / "jobs/train.py"), *run.command[2:]])
        environment = {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}
        job = waited(lambda: submitted(client, entrypoint, environment), "the agent that starts jobs", 60)
        waited(lambda: (tmp_path / "at-work").exists() or ended(client, job), "the fifth step", 180)
        client.stop_job(job)
        waited(lambda: ended(client, job), "the job's end", 90)
        output = client.get_job_logs(job)
    (row,) = run.attempts()
    assert (row["status"], row["failure_class"]) == ("stopped", "user_stop"), output
    saved = row["last_global_step"]
    assert f"step {saved} is saved, and the same command goes on there" in output
    assert (run.run_folder / "checkpoints" / f"step-{saved:08d}" / "manifest.json").exists()


def connected(client: Any, address: str) -> Any:
    with contextlib.suppress(ConnectionError, RuntimeError):
        return client(address)
    return None


def submitted(client: Any, entrypoint: str, environment: dict[str, Any]) -> str | None:
    with contextlib.suppress(RuntimeError):  # the server answers before its agent does
        return client.submit_job(entrypoint=entrypoint, runtime_env=environment)
    return None


def ended(client: Any, job: str) -> bool:
    return client.get_job_status(job).is_terminal()
