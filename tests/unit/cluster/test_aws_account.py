"""Tests of what `sst2-ray up` makes in an AWS account: the stack from every state, names by cluster and region, the key."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sst2_ray.cluster import down
from sst2_ray.cluster.clouds import CreateRequest, aws_stack, cloud_of
from sst2_ray.cluster.file import ClusterFile, load_cluster_file
from sst2_ray.errors import InputError, RunFailedError
from tests.support.cluster_files import rendered

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (the dev extra)")
moto = pytest.importorskip("moto", reason="moto is not installed (the dev extra)")

REQUEST = CreateRequest(ssh_from="203.0.113.7/32", bucket="results")
REGION = "us-west-2"


@pytest.fixture(autouse=True)
def account(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG001
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr(aws_stack, "_POLL_S", 0.01)
    with moto.mock_aws():
        yield


def cluster_of(folder: Path, name: str = "sst2", region: str = REGION, worker: str = "") -> ClusterFile:
    document = rendered("aws")
    document["cluster_name"] = name
    document["provider"].update(region=region, availability_zone=f"{region}a,{region}b")
    if worker:
        document["available_node_types"]["gpu_spot"]["node_config"]["InstanceType"] = worker
    path = folder / f"{name}-{region}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return load_cluster_file(path)


def stack_of(name: str, region: str = REGION) -> Any:
    """Return the API server's own record of a stack, whose state can be set."""
    from moto.cloudformation.models import cloudformation_backends

    stacks = cloudformation_backends["123456789012"][region].stacks.values()
    return next(stack for stack in stacks if stack.name == name)


def templates(region: str = REGION) -> list[str]:
    found = boto3.client("ec2", region_name=region).describe_launch_templates()["LaunchTemplates"]
    return sorted(template["LaunchTemplateName"] for template in found)


def detach_policies() -> None:
    """Detach all policies, as CloudFormation does by itself when it deletes a stack, and this server does not."""
    iam = boto3.client("iam")
    for role in iam.list_roles()["Roles"]:
        for policy in iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=policy["PolicyArn"])


def test_two_clusters_side_by_side_each_have_their_own(tmp_path: Path) -> None:
    for cluster in (cluster_of(tmp_path), cluster_of(tmp_path, "nlp"), cluster_of(tmp_path, region="eu-west-1")):
        cloud = cloud_of(cluster)
        assert cloud.check_create(cluster, REQUEST).startswith("create the stack")
        assert cloud.create(cluster, REQUEST) == f"stack sst2-ray-{cluster.name} is there"
        assert cloud.check_create(cluster, REQUEST) == ""
    assert templates() == [f"sst2-ray-{name}-{kind}" for name in ("nlp", "sst2") for kind in ("head", "worker")]
    assert templates("eu-west-1") == ["sst2-ray-sst2-head", "sst2-ray-sst2-worker"]
    roles = {role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]}
    wanted = {"sst2-us-west-2", "nlp-us-west-2", "sst2-eu-west-1"}
    assert roles == {f"sst2-ray-{name}-{kind}" for name in wanted for kind in ("head", "worker")}


def test_template_names_follow_a_renamed_cluster_in_what_ray_is_given(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path, "nlp")
    given = yaml.safe_load(cluster.for_ray().read_text())["available_node_types"]
    names = {name: entry["node_config"]["LaunchTemplate"]["LaunchTemplateName"] for name, entry in given.items()}
    assert names == {
        "head": "sst2-ray-nlp-head",
        "gpu_spot": "sst2-ray-nlp-worker",
        "gpu_ondemand": "sst2-ray-nlp-worker",
    }


def test_the_head_may_start_its_own_types_with_its_own_tag_only(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path, "nlp")
    cloud_of(cluster).create(cluster, REQUEST)
    iam = boto3.client("iam")
    attached = iam.list_attached_role_policies(RoleName="sst2-ray-nlp-us-west-2-head")["AttachedPolicies"]
    found = []
    for policy in attached:
        version = iam.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId=version)["PolicyVersion"]["Document"]
        found += [s for s in document["Statement"] if s.get("Sid") == "StartWorkersOfItsTypesWithItsTag"]
    (statement,) = found
    condition = statement["Condition"]["StringEquals"]
    assert condition == {"aws:RequestTag/ray-cluster-name": "nlp", "ec2:InstanceType": ["g6.2xlarge"]}


def test_another_address_or_bucket_changes_a_complete_stack(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path)
    cloud = cloud_of(cluster)
    cloud.create(cluster, REQUEST)
    moved = CreateRequest(ssh_from="198.51.100.9/32")
    assert cloud.check_create(cluster, CreateRequest()) == ""
    assert cloud.check_create(cluster, moved) == "update stack sst2-ray-sst2 (SSH from 198.51.100.9/32 then)?"
    cloud.create(cluster, moved)
    parameters = aws_stack.find_stack(cluster).parameters
    assert (parameters["SshFrom"], parameters["StorageBucket"]) == ("198.51.100.9/32", "results")
    assert cloud.check_create(cluster, moved) == ""
    both = CreateRequest(ssh_from="198.51.100.9/32", bucket="others")
    assert cloud.check_create(cluster, both) == "update stack sst2-ray-sst2 (bucket others then)?"
    lies_in = parameters["VpcId"]
    with pytest.raises(InputError, match=f"--vpc vpc-2: stack sst2-ray-sst2 lies in {lies_in}; delete it with"):
        cloud.check_create(cluster, CreateRequest(vpc="vpc-2"))


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "CREATE_FAILED", "ROLLBACK_FAILED"])
def test_a_stack_that_failed_is_deleted_and_made_anew(tmp_path: Path, status: str) -> None:
    cluster = cluster_of(tmp_path)
    cloud = cloud_of(cluster)
    cloud.create(cluster, REQUEST)
    detach_policies()
    broken = stack_of("sst2-ray-sst2")
    broken.status = status
    assert f"delete stack sst2-ray-sst2, which is {status}" in cloud.check_create(cluster, REQUEST)
    cloud.create(cluster, REQUEST)
    assert stack_of("sst2-ray-sst2").status == "CREATE_COMPLETE" and stack_of("sst2-ray-sst2") is not broken
    assert templates() == ["sst2-ray-sst2-head", "sst2-ray-sst2-worker"]


def test_a_half_made_stack_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of(tmp_path)
    cloud = cloud_of(cluster)
    cloud.create(cluster, REQUEST)
    stack_of("sst2-ray-sst2").status = "CREATE_IN_PROGRESS"
    assert "wait for stack sst2-ray-sst2, which is CREATE_IN_PROGRESS" in cloud.check_create(cluster, REQUEST)
    seen: list[str] = []
    first = aws_stack.find_stack

    def find(which: ClusterFile) -> aws_stack.Stack:
        found = first(which)
        seen.append(found.status)
        if len(seen) == 3:
            stack_of("sst2-ray-sst2").status = "CREATE_COMPLETE"
        return found

    monkeypatch.setattr(aws_stack, "find_stack", find)
    cloud.create(cluster, REQUEST)
    assert seen[:3] == ["CREATE_IN_PROGRESS"] * 3 and seen[-1] == "CREATE_COMPLETE"


def test_a_stack_that_never_completes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of(tmp_path)
    cloud_of(cluster).create(cluster, REQUEST)
    stack_of("sst2-ray-sst2").status = "DELETE_IN_PROGRESS"
    monkeypatch.setattr(aws_stack, "_TIMEOUT_S", 0.05)
    with pytest.raises(RunFailedError, match="still DELETE_IN_PROGRESS"):
        cloud_of(cluster).create(cluster, REQUEST)


def test_another_machine_type_updates_the_stack(tmp_path: Path) -> None:
    cloud_of(cluster_of(tmp_path)).create(cluster_of(tmp_path), REQUEST)
    cluster = cluster_of(tmp_path, worker="g6e.xlarge")
    assert "update stack sst2-ray-sst2" in cloud_of(cluster).check_create(cluster, CreateRequest())
    cloud_of(cluster).create(cluster, CreateRequest())
    assert cloud_of(cluster).check_create(cluster, CreateRequest()) == ""


def test_a_complete_stack_without_its_templates_is_explained(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path)
    cloud_of(cluster).create(cluster, REQUEST)
    boto3.client("ec2", region_name=REGION).delete_launch_template(LaunchTemplateName="sst2-ray-sst2-worker")
    with pytest.raises(InputError, match="is complete, and launch template sst2-ray-sst2-worker is not there"):
        cloud_of(cluster).check_create(cluster, REQUEST)


def test_a_key_that_only_ec2_has_is_refused(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path)
    boto3.client("ec2", region_name=REGION).create_key_pair(KeyName="sst2-ray")
    told = "key pair sst2-ray: EC2 has it, this machine lacks .*copy the .pem.*provider.key_pair.key_name"
    with pytest.raises(InputError, match=told):
        cloud_of(cluster).check_create(cluster, REQUEST)


def test_a_key_that_only_this_machine_has_is_given_to_ec2(tmp_path: Path, home: Path) -> None:
    key = home / ".ssh/sst2-ray.pem"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(key)], check=True)
    for region in (REGION, "eu-west-1"):  # a second region has other key pairs
        cluster = cluster_of(tmp_path, region=region)
        assert (
            cloud_of(cluster).check_create(cluster, REQUEST).startswith(f"give EC2 the public half of {key} and create")
        )
        cloud_of(cluster).create(cluster, REQUEST)
        pairs = boto3.client("ec2", region_name=region).describe_key_pairs()["KeyPairs"]
        assert [pair["KeyName"] for pair in pairs] == ["sst2-ray"]
        assert cloud_of(cluster).check_create(cluster, REQUEST) == ""


def test_a_file_that_is_no_key_is_not_given_to_ec2(tmp_path: Path, home: Path) -> None:
    (home / ".ssh/sst2-ray.pem").write_text("key")
    cluster = cluster_of(tmp_path)
    with pytest.raises(InputError, match="not a private key"):
        cloud_of(cluster).create(cluster, REQUEST)


def test_one_address_without_its_length_reaches_the_stack_with_it(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path)
    bare = CreateRequest(ssh_from="203.0.113.7", bucket="results")
    assert "SSH from 203.0.113.7/32" in cloud_of(cluster).check_create(cluster, bare)
    cloud_of(cluster).create(cluster, bare)
    assert aws_stack.find_stack(cluster).parameters["SshFrom"] == "203.0.113.7/32"
    assert cloud_of(cluster).check_create(cluster, bare) == ""


def test_down_terminates_machines_that_have_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(down, "run_ray", lambda *_: 0)
    ec2 = boto3.client("ec2", region_name=REGION)
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "ray-cluster-name", "Value": "sst2"}]}]
    made = ec2.run_instances(ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, TagSpecifications=tags)
    ec2.stop_instances(InstanceIds=[made["Instances"][0]["InstanceId"]])
    cluster = cluster_of(tmp_path)
    assert [one.state for one in cloud_of(cluster).status(cluster) or ()] == ["stopped"]
    down.down(cluster)
    assert cloud_of(cluster).status(cluster) == []
