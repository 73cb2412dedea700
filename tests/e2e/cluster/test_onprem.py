"""cluster/onprem.yaml on hosts with their own addresses: a real `ray up`, doctor, jobs over SSH, `ray down`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.cluster.conftest import CLI, Submission, waited
from tests.support.hosts import REPOSITORY, HostLab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

Submit = Callable[..., Submission]

TRAIN = ("python", "jobs/train.py", "--model", "modernbert-mini", "--data", "rotten-tomatoes", "--train-rows", "512", "--dev-rows", "128",
         "--num-workers", "2", "--cpus-per-worker", "2")  # fmt: skip


def trial_rows(lab: HostLab, name: str) -> list[dict[str, object]]:
    """Rows of one run in the results table, as any reader of Parquet sees them."""
    rows = pq.read_table(f"{lab.shared}/runs/results/trials").to_pylist()
    return [row for row in rows if row["experiment"] == name]


def test_doctor_finds_three_nodes_alike_that_share_the_storage(lab: HostLab, cluster: Path) -> None:
    result = lab.laptop(*CLI, "doctor", str(cluster), "--storage-path", f"{lab.shared}/runs", "--verbose")
    assert result.returncode == 0, result.stdout
    for index in range(3):
        assert f"{lab.address(index)}: {lab.shared}/runs is reachable, writable and shared" in result.stdout
    assert re.search(r"node versions: 3 of 3 nodes: Python \S+, ray ", result.stdout)
    assert re.search(r"all-reduce of 3 nodes: \S+ GB/s", result.stdout)


def test_doctor_names_the_nodes_where_the_storage_is_not_shared(lab: HostLab, cluster: Path) -> None:
    result = lab.laptop(*CLI, "doctor", str(cluster), "--storage-path", "/tmp/not-shared")
    assert result.returncode == 2
    told = [line for line in result.stdout.splitlines() if "a folder of its own here" in line]
    assert len(told) == 2, result.stdout


@pytest.mark.slow
def test_doctor_rehearses_once_for_machines_of_one_kind_and_names_a_model_out_of_reach(
    lab: HostLab, cluster: Path
) -> None:
    sources = ("--model", "nobody/no-such-model", "--data", "rotten-tomatoes")
    result = lab.laptop(*CLI, "doctor", str(cluster), *sources, "--rehearse", "--verbose", timeout=600)
    assert result.returncode == 2
    for index in range(3):
        assert f"{lab.address(index)}: --model nobody/no-such-model cannot be reached" in result.stdout
        assert f"{lab.address(index)}: --data rotten-tomatoes is there" in result.stdout
    assert len(re.findall(r"rehearsal on \S+: \d+\.\d steps/s of batch 32 on its CPUs", result.stdout)) == 1


def test_training_runs_on_two_hosts_and_leaves_results_and_model_on_storage(lab: HostLab, cluster: Path) -> None:
    result = lab.laptop(
        *CLI,
        "submit",
        str(cluster),
        "--",
        *TRAIN,
        "--epochs",
        "1",
        "--storage-path",
        f"{lab.shared}/runs",
        "--name",
        "two-hosts",
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    last = max(trial_rows(lab, "two-hosts"), key=lambda row: str(row["status"]) == "succeeded")
    assert last["status"] == "succeeded" and last["world_size"] == 2
    addresses = {node["address"] for node in json.loads(str(last["node_types_json"]))}
    assert len(addresses) == 2 and addresses <= set(lab.addresses[:3])
    assert list((lab.shared / "runs/two-hosts/model").rglob("model.safetensors"))


@pytest.mark.parametrize(("end", "code"), [("0", 0), ("7", 7), ("kill", 137)])
def test_submit_exits_with_the_code_of_the_job(lab: HostLab, cluster: Path, work: Path, end: str, code: int) -> None:
    result = lab.laptop(*CLI, "submit", str(cluster), "--working-dir", str(work), "--", "python", "count.py", "2", end)
    assert result.returncode == code, result.stderr
    assert result.stdout.count("line 1\n") == 1


def test_a_job_that_somebody_stops_ends_submit_with_5(lab: HostLab, cluster: Path, work: Path, submit: Submit) -> None:
    running = submit(str(cluster), "--working-dir", str(work), "--", "python", "count.py", "400", "0")
    running.until("line 3")
    job = running.until(r"submitted (sst2-[\w-]+)")[1]
    lab.run(0, f"ray job stop --no-wait {job}")
    assert running.end() == 5
    assert "stopped, exit code 5" in running.stderr


def test_ctrl_c_detaches_where_nobody_can_be_asked_and_the_same_submission_goes_on(
    cluster: Path, work: Path, submit: Submit
) -> None:
    arguments = (str(cluster), "--working-dir", str(work), "--", "python", "count.py", "40", "0")
    first = submit(*arguments)
    first.until("line 2")
    first.interrupt()
    assert first.end() == 5 and "goes on" in first.stderr
    second = submit(*arguments)
    assert second.end() == 0
    assert "re-attaching" in second.stderr and "line 39" in second.stdout


def test_ctrl_c_stops_the_job_where_that_was_asked_for(cluster: Path, work: Path, submit: Submit) -> None:
    running = submit(
        str(cluster), "--working-dir", str(work), "--on-interrupt", "stop", "--", "python", "count.py", "400", "0"
    )
    running.until("line 2")
    running.interrupt()
    assert running.end() == 5 and "stopped, exit code 5" in running.stderr


def test_a_tunnel_that_breaks_is_reopened_and_no_line_is_lost_or_doubled(
    cluster: Path, work: Path, submit: Submit
) -> None:
    running = submit(str(cluster), "--working-dir", str(work), "--", "python", "count.py", "40", "7")
    tunnel = int(running.until(r"open \(ssh (\d+)\)")[1])
    running.until("line 5")
    os.kill(tunnel, signal.SIGKILL)
    running.until("reconnecting|re-attaching")
    assert running.end() == 7
    assert [line for line in running.stdout.splitlines() if line.startswith("line ")] == [
        f"line {number}" for number in range(40)
    ]


def test_submitting_the_same_twice_runs_it_once(lab: HostLab, cluster: Path, work: Path, submit: Submit) -> None:
    arguments = (str(cluster), "--working-dir", str(work), "--", "python", "count.py", "24", "0")
    first = submit(*arguments)
    job = first.until(r"submitted (sst2-[\w-]+)")[1]
    second = submit(*arguments)
    second.until(f"{job} was submitted before and is (RUNNING|PENDING): re-attaching")
    assert (first.end(), second.end()) == (0, 0)
    assert first.stdout.count("line 23\n") == second.stdout.count("line 23\n") == 1
    third = lab.laptop(*CLI, "submit", *arguments)
    assert third.returncode == 0 and "submitted before and succeeded" in third.stderr


def test_the_same_command_of_two_users_from_two_folders_runs_twice_and_neither_ends_the_others(
    lab: HostLab, cluster: Path, work: Path, submit: Submit, tmp_path: Path
) -> None:
    home, folder = tmp_path / "another-home", tmp_path / "another-work"
    shutil.copytree(work, folder)
    (folder / "note.txt").write_text("another folder")
    (home / ".sst2-ray").mkdir(parents=True)
    (token,) = (lab.home / ".sst2-ray").glob("*.token")  # who shares the cluster has its token
    shutil.copy(token, home / ".sst2-ray")
    command = ("--on-interrupt", "stop", "--", "python", "count.py", "60", "0")
    first = submit(str(cluster), "--working-dir", str(work), *command)
    first.until("line 2\n")
    second = submit(str(cluster), "--working-dir", str(folder), *command, home=home)
    second.until("runs the same command; yours is a job of its own")
    second.until("line 2\n")
    second.interrupt()
    assert second.end() == 5 and "stopped, exit code 5" in second.stderr
    assert first.end() == 0 and first.stdout.count("line 59\n") == 1


def test_a_command_that_cannot_be_placed_is_explained_and_given_up_with_3(
    cluster: Path, work: Path, submit: Submit
) -> None:
    running = submit(
        str(cluster),
        "--working-dir",
        str(work),
        "--entrypoint-gpus",
        "4",
        "--pending-timeout-s",
        "12",
        "--",
        "python",
        "count.py",
        "1",
        "0",
    )
    told = running.until(r"PENDING for (\d+) s: no node is large enough now \(GPU: asked 4, largest of 3 nodes has 0\)")
    assert int(told[1]) <= 30
    assert running.end() == 3
    assert "given up" in running.stderr


def test_an_upload_with_a_secret_in_it_is_refused_before_anything_is_sent(
    lab: HostLab, cluster: Path, work: Path
) -> None:
    (work / ".env").write_text("A=1")
    result = lab.laptop(*CLI, "submit", str(cluster), "--working-dir", str(work), "--", "python", "count.py", "1", "0")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: refused, the upload would hold secrets: .env")


@pytest.mark.slow
def test_a_killed_node_costs_the_steps_since_the_checkpoint_and_nothing_else(
    lab: HostLab, cluster: Path, submit: Submit
) -> None:
    running = submit(
        str(cluster),
        "--",
        *TRAIN,
        "--epochs",
        "6",
        "--evaluations-per-epoch",
        "4",
        "--storage-path",
        f"{lab.shared}/runs",
        "--name",
        "node-lost",
    )
    waited(lambda: list((lab.shared / "runs/node-lost").glob("checkpoints/*")) or None, "the first checkpoint", 120)
    victim = waited(lambda: busy_worker_host(lab), "a worker beside the head", 30)
    lab.run(victim, "pkill -9 raylet; pkill -9 -f ray::", check=False)
    assert running.end(timeout_s=280) == 0, running.stdout[-3000:] + running.stderr[-1000:]
    ended = [row for row in trial_rows(lab, "node-lost") if row["status"] == "succeeded"]
    assert ended and "worker_lost" in {row["failure_class"] for row in trial_rows(lab, "node-lost")}
    addresses = {node["address"] for node in json.loads(str(ended[0]["node_types_json"]))}
    assert lab.address(victim) not in addresses and len(addresses) == 2
    (step,) = re.findall(r"going on from the checkpoint at step (\d+)", running.stdout)
    assert int(step) > 0


def busy_worker_host(lab: HostLab) -> int | None:
    """Index of a host other than the head that trains."""
    return next((index for index in (1, 2) if "RayTrainWorker" in lab.run(index, "ps ax").stdout), None)


@pytest.mark.usefixtures("cluster")
def test_without_the_token_another_host_gets_in_nowhere(lab: HostLab) -> None:
    command = f"{sys.executable} {REPOSITORY}/tests/support/stranger.py {lab.address(0)} {lab.address(1)}"
    report = json.loads(lab.run(3, command, timeout=400).stdout.splitlines()[-1])
    (lab.folder / "port-scan.json").write_text(json.dumps(report, indent=1))
    for address in (lab.address(0), lab.address(1)):
        assert {"22", "8076", "52365"} <= report[address].keys(), "the scan must see what is open, or it proves nothing"
        assert "8265" not in report[address], "the dashboard must be reached through SSH only"
        for port, answers in report[address].items():
            assert 200 not in answers.values(), f"port {port} answers without a token: {answers}"
            assert answers["submit"] in (
                401,
                403,
                405,
                "BadStatusLine",
                "RemoteDisconnected",
                "ConnectionResetError",
                "timeout",
                "TimeoutError",
            )
        assert report[address]["52365"]["submit to the agent"] == 401
        assert report[address]["52365"]["with a wrong token"] == 403
    for name in ("gcs without token", "gcs with a wrong token", "client without token", "client with a wrong token"):
        assert not report[name].startswith("in "), report[name]
    assert not any((lab.root(index) / "tmp/stranger-was-here").exists() for index in range(3))


def test_another_user_of_a_machine_gets_at_nothing_of_the_session(lab: HostLab, cluster: Path) -> None:
    del cluster
    folder = "/tmp/sst2-ray-root"
    for host in (0, 1):
        assert "session_latest" in lab.run(host, f"ls {folder}/ray").stdout
        assert lab.run(host, "ls /tmp/ray", check=False).returncode != 0
        for attempt in (
            f"ls {folder}",
            f"cat {folder}/ray/session_latest/logs/raylet.out",
            f"mv {folder} /tmp/mine",
            f"mv {folder}/ray/session_latest {folder}/ray/mine",
            f"rm -r {folder}/ray",
            f"touch {folder}/ray/x",
            "cat ~/.ray/auth_token",
            "ls ~/.sst2-ray",
            "touch ~/.sst2-ray/env",
        ):
            done = lab.run(host, f"setpriv --reuid=65534 --regid=65534 --clear-groups {attempt}", check=False)
            assert done.returncode != 0, attempt
            assert "denied" in done.stderr or "not permitted" in done.stderr, done.stderr
        found = "find / -xdev -path /proc -prune -o -name session_latest -print 2>/dev/null"
        assert (
            lab.run(host, f'setpriv --reuid=65534 --regid=65534 --clear-groups bash -c "{found}"', check=False).stdout
            == ""
        )


@pytest.mark.slow
def test_down_when_done_keeps_the_exit_code_and_leaves_no_process_of_ray(
    lab: HostLab, cluster: Path, work: Path
) -> None:
    command = ("--working-dir", str(work), "--down-when-done", "--", "python", "count.py", "3", "7")
    result = lab.laptop(*CLI, "submit", str(cluster), *command)
    assert result.returncode == 7, result.stdout[-1000:] + result.stderr[-1000:]
    assert processes_of_ray(lab) == []


def test_down_leaves_no_process_of_ray_on_any_host(lab: HostLab, cluster: Path) -> None:
    result = lab.laptop(*CLI, "down", str(cluster))
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-1000:]
    assert processes_of_ray(lab) == []


def processes_of_ray(lab: HostLab) -> list[str]:
    """Command lines on the cluster's hosts."""
    running = [line for index in range(3) for line in lab.run(index, "ps ax -o args").stdout.splitlines()]
    return [line for line in running if re.search(r"raylet|gcs_server|ray::|dashboard", line)]
