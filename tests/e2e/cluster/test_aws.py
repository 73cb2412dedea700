"""ray_cluster.yaml through a real `ray up`, with a server that speaks EC2's API and hosts as the instances it hands out."""

from __future__ import annotations

import base64
import contextlib
import copy
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e.cluster.conftest import CLI, waited
from tests.support.cluster_files import FILES
from tests.support.hosts import HostLab, missing_for_hosts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TRAIN = ("python", "jobs/train.py", "--model", "modernbert-mini", "--data", "rotten-tomatoes", "--train-rows", "512", "--dev-rows", "128",
         "--epochs", "1", "--num-workers", "2", "--cpus-per-worker", "2")  # fmt: skip
BUCKET = "sst2-ray-tests"
HEAD_KEY, LAPTOP_KEY = "HEADKEY0000000000000", "LAPTOPKEY00000000000"


@dataclass
class Cloud:
    """The API server, the hosts that are its instances, and the shipped file with this account's values."""

    lab: HostLab
    endpoint: str
    file: Path

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            region_name="us-west-2",
            endpoint_url=self.endpoint,
            aws_access_key_id="TESTKEY0000000000000",
            aws_secret_access_key="t",
        )

    def instances(self, *states: str) -> list[dict[str, Any]]:
        """List the instances in one of `states` (all of them without)."""
        filters = [{"Name": "instance-state-name", "Values": list(states)}] if states else []
        return [
            instance
            for r in self.client("ec2").describe_instances(Filters=filters)["Reservations"]
            for instance in r["Instances"]
        ]

    def cli(self, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """Run sst2-ray as a user with AWS credentials does."""
        keys = {
            "AWS_ACCESS_KEY_ID": LAPTOP_KEY,
            "AWS_SECRET_ACCESS_KEY": "t",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return self.lab.laptop(*CLI, *arguments, timeout=timeout, AWS_ENDPOINT_URL=self.endpoint, **keys)


@pytest.fixture(
    scope="module",
    params=["scales down after half a minute", pytest.param("scales down as shipped", marks=pytest.mark.slow)],
)
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto, the server that speaks AWS's API, is not installed (the dev extra)")
    reason = missing_for_hosts()
    if reason:
        pytest.skip(f"hosts cannot be made here: {reason}")
    # Like a real subnet, the server keeps the first three addresses for itself and hands out the fourth first.
    with HostLab(tmp_path_factory.mktemp("aws"), count=3, first=4) as lab, api_server(lab) as endpoint:
        cloud = Cloud(lab, endpoint, lab.folder / "ray_cluster.yaml")
        idle = None if "shipped" in request.param else 0.5
        cloud.file.write_text(yaml.safe_dump(replaced(account(cloud), lab, idle), sort_keys=False))
        yield cloud


@contextlib.contextmanager
def api_server(lab: HostLab) -> Iterator[str]:
    """Yield the address of a server that speaks AWS's API."""
    with (lab.folder / "api.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", lab.gateway, "-p", "5555"],
            stdout=log,
            stderr=log,
            env=lab.environment(),
            cwd=lab.folder,
        )
        try:
            waited(lambda: b"Running on" in (lab.folder / "api.log").read_bytes() or None, "the API server", 30)
            yield f"http://{lab.gateway}:5555"
        finally:
            server.kill()
            server.wait()


def account(cloud: Cloud) -> dict[str, str]:
    """Make a VPC, a subnet, the cluster's key, and the credentials of the head's role where its instance profile would put them."""
    import requests

    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock=f"{cloud.lab.net}.0/24")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=f"{cloud.lab.net}.0/24", AvailabilityZone="us-west-2a")["Subnet"][
        "SubnetId"
    ]
    ec2.import_key_pair(KeyName="sst2-ray", PublicKeyMaterial=cloud.lab.key.with_suffix(".pub").read_bytes())
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    aws = cloud.lab.root(0) / "home" / ".aws"
    aws.mkdir()
    (aws / "config").write_text(f"[default]\nregion = us-west-2\nendpoint_url = {cloud.endpoint}\n")
    (aws / "credentials").write_text(f"[default]\naws_access_key_id = {HEAD_KEY}\naws_secret_access_key = t\n")
    requests.post(f"{cloud.endpoint}/moto-api/recorder/start-recording", timeout=10)
    return {"vpc": vpc, "subnet": subnet, "image": image}


def replaced(made: dict[str, str], lab: HostLab, idle: float | None) -> dict[str, Any]:
    """Replace addresses, key, image and instance types of the shipped file, and the idle time where the test need not wait so long."""
    config = copy.deepcopy(yaml.safe_load(FILES["aws"].read_text()))
    config["provider"].update(use_internal_ips=True, availability_zone="us-west-2a")
    config["auth"].update(ssh_user="root", ssh_private_key=str(lab.key))
    for name, node_type in config["available_node_types"].items():
        node_type["node_config"].update(ImageId=made["image"], SubnetIds=[made["subnet"]], KeyName="sst2-ray")
        node_type["node_config"]["InstanceType"] = "m5.xlarge" if name == "head" else "m5.large"
    if idle is not None:
        config["idle_timeout_minutes"] = idle
    # A host's namespace has no power to switch off: it says so in the shared folder.
    sooner = f'--idle-minutes 1.5 --poll-s 1 --command "touch {lab.shared}/ended-$(hostname)"'
    starts = config["head_start_ray_commands"]
    config["head_start_ray_commands"] = [command.replace("--idle-minutes 30", sooner) for command in starts]
    for key in ("initialization_commands", "worker_start_ray_commands"):
        config[key] = [command.replace("--max-hours 72", "--command true") for command in config[key]]
    config["metadata"] = {"vpc": made["vpc"]}
    return config


@pytest.fixture(scope="module")
def running(cloud: Cloud) -> Cloud:
    """Return the cluster, up: account prepared and head started by one command."""
    vpc = yaml.safe_load(cloud.file.read_text())["metadata"]["vpc"]
    result = cloud.cli(
        "up", str(cloud.file), "--yes", "--ssh-from", f"{cloud.lab.gateway}/32", "--bucket", BUCKET, "--vpc", vpc
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return cloud


def test_without_an_address_to_allow_nothing_is_created(cloud: Cloud) -> None:
    result = cloud.cli("up", str(cloud.file), "--yes")
    assert result.returncode == 2 and "--ssh-from" in result.stderr
    world = cloud.cli("up", str(cloud.file), "--yes", "--ssh-from", "0.0.0.0/0", "--bucket", BUCKET)
    assert world.returncode == 2 and "would open port 22" in world.stderr
    assert cloud.instances() == [] and cloud.client("ec2").describe_launch_templates()["LaunchTemplates"] == []


def test_up_starts_the_head_alone_on_demand_with_its_disk(running: Cloud) -> None:
    (head,) = running.instances("running")
    assert head["InstanceType"] == "m5.xlarge" and "InstanceLifecycle" not in head
    assert head["PrivateIpAddress"] == running.lab.address(0)
    assert disks(running, head) == [120]
    assert head["IamInstanceProfile"]["Arn"].endswith("instance-profile/sst2-ray-sst2-us-west-2-head")


def disks(cloud: Cloud, instance: dict[str, Any]) -> list[int]:
    volumes = cloud.client("ec2").describe_volumes(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
    )["Volumes"]
    return [volume["Size"] for volume in volumes]


def test_no_rule_is_open_to_the_world_and_only_the_own_group_is_used(running: Cloud) -> None:
    groups = {group["GroupId"]: group for group in running.client("ec2").describe_security_groups()["SecurityGroups"]}
    used = {group["GroupId"] for instance in running.instances("running") for group in instance["SecurityGroups"]}
    assert [groups[name]["GroupName"] for name in used] == ["sst2-ray-sst2"]
    assert not [group for group in groups.values() if group["GroupName"].startswith("ray-autoscaler")]
    rules = [rule for group in groups.values() for rule in group["IpPermissions"]]
    assert [r["CidrIp"] for rule in rules for r in rule["IpRanges"]] == [f"{running.lab.gateway}/32"]
    assert [r for rule in rules for r in (*rule.get("Ipv6Ranges", ()), *rule.get("PrefixListIds", ()))] == []


def statements(cloud: Cloud) -> list[dict[str, Any]]:
    """List every statement of every policy that the account's roles have."""
    iam = cloud.client("iam")
    found = []
    for role in iam.list_roles()["Roles"]:
        assert iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"] == []
        for attached in iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]:
            policy = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]
            version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
            found += version["PolicyVersion"]["Document"]["Statement"]
    return found


def listed(statement: dict[str, Any], key: str) -> list[str]:
    return statement[key] if isinstance(statement[key], list) else [statement[key]]


def actions(statement: dict[str, Any]) -> list[str]:
    return listed(statement, "Action")


def test_no_policy_has_a_wildcard_action_or_a_resource_wider_than_aws_allows(running: Cloud) -> None:
    iam = running.client("iam")
    attached = {
        role["RoleName"]: len(iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"])
        for role in iam.list_roles()["Roles"]
    }
    assert attached == {"sst2-ray-sst2-us-west-2-head": 2, "sst2-ray-sst2-us-west-2-worker": 1}
    for statement in statements(running):
        assert not [action for action in actions(statement) if "*" in action]
        if "*" in listed(statement, "Resource"):
            assert all(action.startswith("ec2:Describe") for action in actions(statement))


def test_doctor_asks_the_account_and_finds_nothing_wrong(running: Cloud) -> None:
    result = running.cli("doctor", str(running.file), "--ask-cloud", "--verbose")
    assert result.returncode == 0, result.stdout
    assert "AWS group sst2-ray-sst2: no rule is open to the world" in result.stdout
    assert "AWS instances: 1 of cluster sst2" in result.stdout


def test_a_job_for_two_workers_scales_from_zero_to_two_spot_machines_and_back(running: Cloud) -> None:
    result = running.cli(
        "submit", str(running.file), "--", *TRAIN, "--storage-path", f"{running.lab.shared}/runs", "--name", "scaled"
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    rows = [
        row
        for row in pq.read_table(f"{running.lab.shared}/runs/results/trials").to_pylist()
        if row["status"] == "succeeded"
    ]
    assert {node["address"] for node in json.loads(rows[0]["node_types_json"])} == {
        running.lab.address(1),
        running.lab.address(2),
    }
    assert list(running.lab.shared.glob("ended-*")) == []  # the head lives while a job runs
    workers = [instance for instance in running.instances() if instance["InstanceType"] == "m5.large"]
    assert [instance.get("InstanceLifecycle") for instance in workers] == ["spot", "spot"]
    assert [disks(running, worker) for worker in workers if worker["State"]["Name"] == "running"] in (
        [[200], [200]],
        [[200]],
        [],
    )
    idle_s = 60 * yaml.safe_load(running.file.read_text())["idle_timeout_minutes"]
    waited(
        lambda: len(running.instances("pending", "running")) == 1 or None, "the end of the idle workers", idle_s + 120
    )


def test_the_head_ends_by_itself_when_nobody_needs_it(running: Cloud) -> None:
    told = waited(lambda: list(running.lab.shared.glob("ended-*")), "the end of the idle head", 240)
    assert told == [running.lab.shared / f"ended-{running.lab.run(0, 'hostname').stdout.strip()}"]
    log = running.lab.run(0, "cat ~/.sst2-ray/autostop.log").stdout
    assert "this machine ends: no job and no SSH connection for 1.5 minutes" in log
    assert log.count("autostop: head, ") == 2  # before set-up, and anew once Ray ran


def called_by_the_head(cloud: Cloud) -> list[tuple[str, dict[str, str]]]:
    """List (`service:Action`, its parameters) of every call that the head made."""
    import requests

    recording = requests.get(f"{cloud.endpoint}/moto-api/recorder/download-recording", timeout=10).text
    found = []
    for line in recording.splitlines():
        request = json.loads(line)
        headers = json.dumps(request.get("headers", {}))
        if HEAD_KEY in headers:
            service = re.search(r"/us-west-2/(\w+)/aws4_request", headers)
            parameters = dict(parse_qsl(base64.b64decode(request["body"]).decode()))  # the server records every body so
            found.append((f"{service[1] if service else '?'}:{parameters.get('Action')}", parameters))
    return found


def test_the_head_asked_for_one_spot_machine_at_a_time_with_encrypted_disks_that_go_with_it(running: Cloud) -> None:
    asked = [parameters for action, parameters in called_by_the_head(running) if action == "ec2:RunInstances"]
    assert len(asked) >= 2
    for parameters in asked:
        wanted = {
            "MinCount": "1",
            "MaxCount": "1",
            "LaunchTemplate.LaunchTemplateName": "sst2-ray-sst2-worker",
            "InstanceMarketOptions.MarketType": "spot",
            "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
            "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate",
            "BlockDeviceMapping.1.Ebs.VolumeSize": "200",
            "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
            "BlockDeviceMapping.1.Ebs.Encrypted": "true",
            "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        }
        assert {key: parameters.get(key) for key in wanted} == wanted


def test_the_head_called_nothing_that_its_role_does_not_allow(running: Cloud) -> None:
    called = {action for action, _ in called_by_the_head(running)}
    assert {"ec2:RunInstances", "ec2:TerminateInstances"} <= called
    assert called <= {action for statement in statements(running) for action in actions(statement)}


def detach_policies(cloud: Cloud) -> None:
    """Detach all policies, as CloudFormation does by itself when it deletes a stack, and this server does not."""
    iam = cloud.client("iam")
    for role in iam.list_roles()["Roles"]:
        for policy in iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=policy["PolicyArn"])


def test_down_leaves_nothing_running(running: Cloud) -> None:
    detach_policies(running)
    result = running.cli("down", str(running.file), "--delete-stack")
    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-1500:]
    assert "no instance of sst2 is left" in result.stderr
    assert running.instances("pending", "running", "stopping", "stopped") == []
    assert running.client("ec2").describe_volumes()["Volumes"] == []
    assert running.client("ec2").describe_launch_templates()["LaunchTemplates"] == []
    assert not [
        g
        for g in running.client("ec2").describe_security_groups()["SecurityGroups"]
        if g["GroupName"] == "sst2-ray-sst2"
    ]
