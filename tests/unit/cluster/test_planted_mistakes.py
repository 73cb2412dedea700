"""Mistakes planted into each shipped cluster file: doctor must find every one, and nothing in the file as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster_files import FILES, planted, rendered
from tests.unit.cluster.conftest import Examine

Document = dict[str, Any]


def worker(document: Document, name: str = "gpu_spot") -> Document:
    return document["available_node_types"][name]["node_config"]


def head(document: Document) -> Document:
    return document["available_node_types"]["head"]["node_config"]


def replaced(document: Document, key: str, old: str, new: str) -> None:
    assert any(old in command for command in document[key]), f"the mistake would not be planted: no {old} in {key}"
    document[key] = [command.replace(old, new) for command in document[key]]


def gpu_group(document: Document) -> Document:
    return document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]


START = "head_start_ray_commands"
WORKER_START = "worker_start_ray_commands"
PLAIN_DEBIAN = "projects/debian-cloud/global/images/debian-12"
OPEN_RULE = {"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}

# (file, what is planted, a part of the finding that must name it)
MISTAKES: list[tuple[str, Callable[[Document], object], str]] = [
    # any file of `ray up`
    ("aws", lambda d: d.update(max_worker=3), "max_worker"),
    ("aws", lambda d: d["file_mounts"].pop("~/.ray/auth_token"), "no token"),
    ("aws", lambda d: replaced(d, START, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"), "dashboard listens"),
    ("aws", lambda d: d.update(setup_commands=["pip install -U 'ray[default]'"], head_setup_commands=[]), "not pinned"),
    ("aws", lambda d: d.pop("setup_commands") and d.pop("head_setup_commands"), "nightly"),
    ("aws", lambda d: d["provider"].update(cache_stopped_nodes=True), "disks are billed"),
    ("aws", lambda d: d.update(idle_timeout_minutes=600), "600 minutes"),
    ("aws", lambda d: d["available_node_types"]["head"].pop("resources"), "land on the head"),
    ("aws", lambda d: d["setup_commands"].append("export HF_TOKEN=hf_" + "a" * 34), "holds a secret"),
    ("aws", lambda d: replaced(d, START, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""), "no worker is ever started"),
    ("aws", lambda d: d["file_mounts"].update({"~/x": "no/such/folder"}), "does not exist here"),
    # ray_cluster.yaml
    ("aws", lambda d: worker(d).update(InstanceType="g6.2xlrage"), "not an instance type"),
    ("aws", lambda d: worker(d).update(InstanceType="g5g.2xlarge"), "Arm"),
    ("aws", lambda d: worker(d).pop("ImageId"), "Ubuntu 18.04"),
    ("aws", lambda d: worker(d).update(ImageId="ami-12345"), "neither an image"),
    ("aws", lambda d: worker(d)["BlockDeviceMappings"][0]["Ebs"].update(VolumeSize=40), "root volume of 40 GB"),
    ("aws", lambda d: worker(d)["BlockDeviceMappings"][0]["Ebs"].update(DeleteOnTermination=False), "stays, and bills"),
    ("aws", lambda d: worker(d).pop("LaunchTemplate"), "open to the world"),
    ("aws", lambda d: head(d).pop("LaunchTemplate"), "all of EC2 and S3"),
    ("aws", lambda d: head(d).update(InstanceMarketOptions={"MarketType": "spot"}), "head is on spot"),
    ("aws", lambda d: worker(d)["InstanceMarketOptions"]["SpotOptions"].update(SpotInstanceType="persistent"), "persistent"),
    ("aws", lambda d: d["available_node_types"]["gpu_spot"].update(resources={"CPU": 8, "GPU": 4}), "has 1 GPUs"),
    ("aws", lambda d: d["provider"].update(availability_zone="us-east-1a"), "not in us-west-2"),
    (
        "aws",
        lambda d: d["provider"].update(security_group={"GroupName": "x", "IpPermissions": [OPEN_RULE]}),
        "8265 open to the whole internet",
    ),
    # cluster/gcp.yaml
    ("gcp", lambda d: worker(d).update(machineType="g2-standard-7"), "not a machine type"),
    ("gcp", lambda d: d["available_node_types"]["gpu_spot"].update(resources={"CPU": 8, "GPU": 2}), "has 1 GPUs"),
    ("gcp", lambda d: worker(d).pop("networkInterfaces"), "default network"),
    ("gcp", lambda d: worker(d)["scheduling"].pop("onHostMaintenance"), "cannot be moved"),
    ("gcp", lambda d: worker(d)["scheduling"].pop("instanceTerminationAction"), "its disk bills"),
    ("gcp", lambda d: worker(d)["disks"][0]["initializeParams"].update(diskSizeGb=20), "20 GB"),
    ("gcp", lambda d: worker(d)["disks"][0]["initializeParams"].update(sourceImage=PLAIN_DEBIAN), "no NVIDIA driver"),
    ("gcp", lambda d: head(d).pop("serviceAccounts"), "administer all"),
    ("gcp", lambda d: worker(d).update(guestAccelerators=[{"acceleratorType": "nvidia-l4", "acceleratorCount": 1}]), "brings its GPU"),
    ("gcp", lambda d: d["provider"].update(availability_zone="us-west1-a"), "not a zone of"),
    ("gcp", lambda d: d["provider"].update(project_id="YOUR_PROJECT"), "YOUR_PROJECT stands for"),
    # cluster/azure.yaml
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(vmSize="Standard_NV36ads_A10"), "not a size"),
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(osDiskSizeGB=256), "no such parameter"),
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(osDiskSize=30), "30 GB"),
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(evictionPolicy="Deallocate"), "its disk bills"),
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(imageOffer="0001-com-ubuntu-server-jammy"), "no NVIDIA driver"),
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(priority="spot"), "not a priority"),
    ("azure", lambda d: d["provider"].pop("use_internal_ips"), "every machine gets a public address"),
    ("azure", lambda d: d["available_node_types"]["gpu_spot"].pop("resources"), "resources"),
    # cluster/onprem.yaml
    ("onprem", lambda d: replaced(d, START, "--node-ip-address=192.168.7.10", "--node-ip-address=192.168.7.1"), "wrong address"),
    ("onprem", lambda d: d["provider"].update(worker_ips=["192.168.7.11", "192.168.7.10"]), "listed twice"),
    ("onprem", lambda d: d["provider"].update(worker_ips=["192.168.7.11", "127.0.0.1"]), "not an address that other machines reach"),
    ("onprem", lambda d: d.update(max_workers=1), "some never start"),
    ("onprem", lambda d: d["auth"].update(ssh_private_key="~/.ssh/none"), "does not exist"),
    ("onprem", lambda d: d.update(available_node_types={"gpu": {"node_config": {}, "resources": {}}}), "Ray refuses it"),
    ("onprem", lambda d: d["file_mounts"].pop("~/.ray/auth_token"), "no token"),
    ("onprem", lambda d: replaced(d, WORKER_START, "ray start", "RAY_AUTH_MODE=disabled ray start"), "token authentication off"),
    # cluster/kuberay-rayjob.yaml
    ("kuberay", lambda d: d["spec"]["rayClusterSpec"].pop("authOptions"), "no token"),
    ("kuberay", lambda d: d["spec"].update(shutdownAfterJobFinishes=False), "stays when the run has ended"),
    ("kuberay", lambda d: d["spec"].pop("activeDeadlineSeconds"), "hangs holds its GPUs"),
    ("kuberay", lambda d: d["spec"]["rayClusterSpec"].update(rayVersion="2.44.0"), "2.44.0"),
    ("kuberay", lambda d: gpu_group(d)["template"]["spec"]["containers"][0].update(image="rayproject/ray:latest-gpu"), "not pinned"),
    ("kuberay", lambda d: gpu_group(d).update(maxReplicas=1), "can never be placed"),
    ("kuberay", lambda d: d["spec"]["rayClusterSpec"]["headGroupSpec"].update(serviceType="LoadBalancer"), "shows the dashboard"),
    ("kuberay", lambda d: d["spec"]["rayClusterSpec"].update(enableInTreeAutoscaling=False), "no worker is ever added"),
    ("kuberay", lambda d: d["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].clear(), "land on the head"),
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_file_with_its_values_filled_in_has_no_error(name: str, examine: Examine) -> None:
    assert [finding.line() for finding in examine(rendered(name)) if finding.level == "error"] == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "aws"])
def test_values_that_are_the_users_own_are_asked_for_by_name(name: str, examine: Examine) -> None:
    import yaml

    findings = examine(yaml.safe_load(FILES[name].read_text()))
    assert any("stands for a value of yours" in finding.what for finding in findings)


@pytest.mark.parametrize(("name", "mistake", "told"), MISTAKES, ids=[f"{name}: {told}" for name, _, told in MISTAKES])
def test_a_planted_mistake_is_found_with_a_remedy(
    name: str, mistake: Callable[[Document], object], told: str, examine: Examine
) -> None:
    found = [finding for finding in examine(planted(name, mistake)) if finding.level == "error"]
    assert any(told in finding.line() for finding in found), [finding.line() for finding in found]
    assert all(finding.remedy for finding in found)


def test_a_rayjob_that_is_repeated_on_a_new_cluster_is_warned_of(examine: Examine) -> None:
    def warned(document: Document) -> list[str]:
        return [finding.line() for finding in examine(document) if finding.where == "spec.backoffLimit"]

    assert warned(rendered("kuberay")) == []
    (line,) = warned(planted("kuberay", lambda d: d["spec"].update(backoffLimit=2)))
    assert "spec.backoffLimit: 2: KubeRay repeats a run" in line


def test_every_file_has_at_least_three_planted_mistakes() -> None:
    for name in FILES:
        assert sum(file == name for file, *_ in MISTAKES) >= 3


CONTAINER = {"image": "rayproject/ray:2.60.0-py311-gpu", "container_name": "ray"}
OWN_GROUP = {"SecurityGroupIds": ["sg-0123456789abcdef0"], "IamInstanceProfile": {"Name": "mine"}}
WATCH = "bash ~/.sst2-ray/node/autostop.sh head --idle-minutes 30"
FURTHER: list[tuple[str, Callable[[Document], object], str]] = [
    ("aws", lambda d: d.update(head_setup_commands=["bash ~/.sst2-ray/node/setup.sh"]), "lacks boto3"),
    ("aws", lambda d: d.update(setup_commands=[]), "the workers are not"),
    ("aws", lambda d: replaced(d, START, "~/ray_bootstrap_config.yaml", "~/ray_config.yaml"), "not where `ray up` puts"),
    ("aws", lambda d: replaced(d, START, "--dashboard-host", "--dashbord-host"), "ray start has no --dashbord-host"),
    ("aws", lambda d: worker(d)["BlockDeviceMappings"][0]["Ebs"].update(Encrypted="yes"), "'yes' is not what EC2 takes"),
    ("aws", lambda d: worker(d).update(Monitering={"Enabled": True}), "EC2 knows no such key"),
    ("aws", lambda d: worker(d)["InstanceMarketOptions"]["SpotOptions"].update(MaxPrice="0.01"), "ever granted"),
    ("aws", lambda d: d["provider"]["key_pair"].update(key_name="~/.ssh/sst2-ray.pem"), "is a path"),
    ("aws", lambda d: d.update(upscaling_speed=0), "no worker is ever added"),
    ("aws", lambda d: d.update(head_node_type="haed"), "none of available_node_types"),
    ("aws", lambda d: d["available_node_types"]["head"].update(min_workers=1), "a second head"),
    ("aws", lambda d: head(d).update(OWN_GROUP) or head(d).pop("LaunchTemplate"), "autostop ends nothing"),
    ("aws", lambda d: d.update(docker=CONTAINER), "head_start_ray_commands[2]: autostop.sh in a container"),
    ("azure", lambda d: d.update(docker=CONTAINER), "worker_start_ray_commands[3]: autostop.sh in a container"),
    ("gcp", lambda d: d.update(docker=CONTAINER), "initialization_commands[0]: runs beside the container"),
    ("onprem", lambda d: d.update(initialization_commands=[WATCH]), "switch your own machines off"),
    ("aws", lambda d: d.update(cluster_name="n" * 39), "IAM takes 64; at most 38"),
    ("gcp", lambda d: d.update(cluster_name="Sst2"), "small letters"),
    ("gcp", lambda d: d.update(cluster_name="n" * 36), "at most 35"),
    ("gcp", lambda d: worker(d)["disks"][0]["initializeParams"].update(sourceImage=OLD_DRIVER), "brings driver 550"),
    ("gcp", lambda d: head(d)["metadata"].update(items=[]), "nobody could log in"),
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(vmSize="Standard_NV36ads_A10_v5"), "GRID drivers"),
    ("azure", lambda d: worker(d)["azure_arm_parameters"].update(osDiskSize=8000), "an OS disk takes 4095"),
    ("onprem", lambda d: d["provider"].pop("head_ip"), "the machine that the others join"),
    ("onprem", lambda d: d["auth"].pop("ssh_user"), "the user of the machines"),
    ("kuberay", lambda d: gpu_group(d).update(rayStartParams={"num-gpus": "8"}), "num-gpus 8, and the pod has 1"),
    ("kuberay", lambda d: gpu_group(d)["template"]["spec"]["containers"][0]["resources"]["limits"].update(memory="24GB"), "not a quantity"),
    ("kuberay", lambda d: d["spec"].update(entrypoint=d["spec"]["entrypoint"] + " --learning-rate fast"), "--learning-rate"),
]  # fmt: skip
OLD_DRIVER = "projects/deeplearning-platform-release/global/images/family/common-cu124-ubuntu-2204-nvidia-550"


@pytest.mark.parametrize(("name", "mistake", "told"), FURTHER, ids=[f"{name}: {told}" for name, _, told in FURTHER])
def test_a_file_that_contradicts_itself_or_its_place_is_told(
    name: str, mistake: Callable[[Document], object], told: str, examine: Examine
) -> None:
    found = [finding for finding in examine(planted(name, mistake)) if finding.level == "error"]
    assert any(told in finding.line() for finding in found), [finding.line() for finding in found]
