"""Tests of two clusters of one account side by side: started, used, and ended by themselves, with nobody's laptop there any more.

Then one whose head is gone in the middle of a run: its workers end by themselves.

A server speaks EC2's API, hosts are its instances; a host cannot be switched off, so what shuts it down asks the server to
terminate it, which is what EC2 does with machines of the shipped launch templates.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e.cluster.conftest import CLI, waited
from tests.e2e.cluster.test_aws import Cloud, account, api_server, replaced
from tests.support.hosts import REPOSITORY, HostLab, missing_for_hosts

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

TRAIN = ("python", "jobs/train.py", "--model", "modernbert-mini", "--data", "rotten-tomatoes", "--train-rows", "512", "--dev-rows", "128",
         "--epochs", "1", "--cpus-per-worker", "2")  # fmt: skip
NAMES = ("sst2", "nlp")
LOSES_ITS_HEAD = "gone"
IDLE_MINUTES = 1.5
END = """import subprocess, sys, boto3
ec2 = boto3.client("ec2", region_name="us-west-2")
found = ec2.describe_instances(Filters=[{"Name": "private-ip-address", "Values": [sys.argv[1]]}])["Reservations"]
alive = [i["InstanceId"] for r in found for i in r["Instances"] if i["State"]["Name"] == "running"]
ec2.terminate_instances(InstanceIds=alive)
subprocess.run(["pkill", "-9", "gcs_server|raylet"])
"""


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Cloud]]:
    """Yield the account, with a file for each cluster."""
    pytest.importorskip("moto", reason="moto, the server that speaks AWS's API, is not installed (the dev extra)")
    reason = missing_for_hosts()
    if reason:
        pytest.skip(f"hosts cannot be made here: {reason}")
    with HostLab(tmp_path_factory.mktemp("two"), count=6, first=4) as lab, api_server(lab) as endpoint:
        made = account(Cloud(lab, endpoint, lab.folder / "none.yaml"))
        keys = lab.root(0) / "home" / ".aws"
        for index in range(1, lab.count):
            subprocess.run(["cp", "-r", str(keys), str(lab.root(index) / "home")], check=True)
        (lab.shared / "end.py").write_text(END)
        yield {name: Cloud(lab, endpoint, file_of(name, lab, made)) for name in (*NAMES, LOSES_ITS_HEAD)}


def file_of(name: str, lab: HostLab, made: dict[str, str]) -> Path:
    """Write the shipped file with another name, machines that end sooner, and idle workers that the autoscaler does not end."""
    config = replaced(made, lab, idle=10)
    config["cluster_name"] = name
    end = f'--poll-s 1 --command "{sys.executable} {lab.shared}/end.py $(hostname -I)"'
    watches = {
        "initialization_commands": f"head --cloud aws --idle-minutes 0 {end}",
        "head_start_ray_commands": f"head --cloud aws --idle-minutes {IDLE_MINUTES} {end}",
        "worker_start_ray_commands": f'worker --cloud aws --head "$RAY_HEAD_IP:6379" --lost-minutes 0.4 {end}',
    }
    for key, flags in watches.items():
        others = [command for command in config[key] if "autostop.sh" not in command]
        assert len(others) == len(config[key]) - 1
        config[key] = [*others, f"bash ~/.sst2-ray/node/autostop.sh {flags}"]
    path = lab.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def alive(cloud: Cloud, name: str) -> list[dict[str, Any]]:
    """List the machines of a cluster by the API's own list."""
    return [
        instance
        for instance in cloud.instances("pending", "running", "stopping", "stopped")
        if {"Key": "ray-cluster-name", "Value": name} in instance["Tags"]
    ]


def test_two_clusters_are_started_used_and_end_by_themselves_with_the_laptop_gone(clouds: dict[str, Cloud]) -> None:
    lab, heads = clouds["sst2"].lab, {}
    both = {name: clouds[name] for name in NAMES}
    for name, cloud in both.items():
        heads[name] = started(cloud, name)
        assert heads[name]["IamInstanceProfile"]["Arn"].endswith(f"instance-profile/sst2-ray-{name}-us-west-2-head")
        submitted_and_left(cloud, name)
    assert len(alive(clouds["sst2"], "sst2")) == 2, "the first must still run beside the second"
    for name in NAMES:
        waited(lambda name=name: ended_well(lab, name) or None, f"the run of {name}", 300)
        assert ended_well(lab, name)[0]["world_size"] == 1  # one worker, since more would cost
    for name, cloud in both.items():
        waited(lambda cloud=cloud, name=name: alive(cloud, name) == [] or None, f"the end of {name}", 300)
    for name in NAMES:
        log = lab.run(lab.addresses.index(heads[name]["PrivateIpAddress"]), "cat ~/.sst2-ray/autostop.log").stdout
        assert f"this machine ends: no job and no SSH connection for {IDLE_MINUTES} minutes" in log
    told = [lab.run(index, "cat ~/.sst2-ray/autostop.log", check=False).stdout for index in range(lab.count)]
    assert sum("this machine ends: no head at" in log for log in told) == 2  # the workers, once their head was gone
    assert clouds["sst2"].client("ec2").describe_volumes()["Volumes"] == []


def test_a_head_that_is_gone_in_the_middle_of_a_run_leaves_no_worker_that_bills(clouds: dict[str, Cloud]) -> None:
    cloud, lab = clouds[LOSES_ITS_HEAD], clouds[LOSES_ITS_HEAD].lab
    head = started(cloud, LOSES_ITS_HEAD)
    submitted_and_left(cloud, LOSES_ITS_HEAD, "--epochs", "500")
    (worker,) = [m["PrivateIpAddress"] for m in alive(cloud, LOSES_ITS_HEAD) if m["InstanceId"] != head["InstanceId"]]
    index = lab.addresses.index(worker)
    told = "cat ~/.sst2-ray/autostop.log 2>/dev/null"
    waited(lambda: "autostop: worker" in lab.run(index, told, check=False).stdout or None, "the worker's watch", 120)
    waited(lambda: "RayTrainWorker" in lab.run(index, "ps ax").stdout or None, "the run", 180)
    lab.cut_off(lab.addresses.index(head["PrivateIpAddress"]))
    cloud.client("ec2").terminate_instances(InstanceIds=[head["InstanceId"]])
    waited(lambda: alive(cloud, LOSES_ITS_HEAD) == [] or None, "the end of the worker", 180)
    assert f"this machine ends: no head at {head['PrivateIpAddress']}:6379" in lab.run(index, told).stdout


def started(cloud: Cloud, name: str) -> dict[str, Any]:
    """Start a cluster with `sst2-ray up`; return its head."""
    vpc = yaml.safe_load(cloud.file.read_text())["metadata"]["vpc"]
    words = ("--yes", "--ssh-from", f"{cloud.lab.gateway}/32", "--bucket", "sst2-ray-tests", "--vpc", vpc)
    done = cloud.cli("up", str(cloud.file), *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (head,) = alive(cloud, name)
    return head


def submitted_and_left(cloud: Cloud, name: str, *more: str) -> None:
    """Submit the run, wait for its worker's machine, and close the laptop's lid."""
    laptop = submission(cloud, name, *more)
    waited(lambda: len(alive(cloud, name)) == 2 or None, f"the worker of {name}", 240)
    os.killpg(laptop.pid, signal.SIGKILL)
    laptop.wait()


def ended_well(lab: HostLab, name: str) -> list[dict[str, Any]]:
    """Return the rows of the results table of a run that has succeeded."""
    folder = lab.shared / "runs/results/trials"
    found = pq.read_table(folder).to_pylist() if folder.is_dir() else []
    return [row for row in found if row["experiment"] == name and row["status"] == "succeeded"]


def submission(cloud: Cloud, name: str, *more: str) -> subprocess.Popen[bytes]:
    """Start `sst2-ray submit` as a process of its own."""
    keys = {"AWS_ACCESS_KEY_ID": "LAPTOPKEY00000000000", "AWS_SECRET_ACCESS_KEY": "t", "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": cloud.endpoint}  # fmt: skip
    storage = ("--storage-path", f"{cloud.lab.shared}/runs", "--name", name)
    words = ["submit", str(cloud.file), "--", *TRAIN, *more, *storage]
    log = (cloud.lab.folder / f"submit-{name}.log").open("wb")
    with log:
        return subprocess.Popen(
            [*CLI, *words], cwd=REPOSITORY, env=cloud.lab.environment(**keys), stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
