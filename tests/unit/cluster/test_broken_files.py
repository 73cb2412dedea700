"""Sixty broken files, ten a place, drawn up before the checks were written: doctor finds at least 55, and accuses no shipped one.

Each is a mistake that somebody makes: a name that refers to nothing, a value that no machine, zone or account has, a port, user, volume or
flag that does not fit another line of the same file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.cluster.doctor.command import DoctorConfig, examine_file
from sst2_ray.cluster.file import load_cluster_file
from tests.support.cluster_files import FILES, REPOSITORY, planted, rendered
from tests.unit.cluster.conftest import Examine

Document = dict[str, Any]
HEAD_START, WORKER_START = "head_start_ray_commands", "worker_start_ray_commands"


def config(d: Document, name: str = "gpu_spot") -> Document:
    return d["available_node_types"][name]["node_config"]


def arm(d: Document, name: str = "gpu_spot") -> Document:
    return config(d, name)["azure_arm_parameters"]


def replace(d: Document, key: str, old: str, new: str) -> None:
    assert any(old in command for command in d[key])
    d[key] = [command.replace(old, new) for command in d[key]]


def ray_cluster(d: Document) -> Document:
    return d["spec"]["rayClusterSpec"]


def group(d: Document) -> Document:
    return ray_cluster(d)["workerGroupSpecs"][0]


def pod(d: Document) -> Document:
    return group(d)["template"]["spec"]


def head_pod(d: Document) -> Document:
    return ray_cluster(d)["headGroupSpec"]["template"]["spec"]


def entrypoint(d: Document, old: str, new: str) -> None:
    assert old in d["spec"]["entrypoint"]
    d["spec"]["entrypoint"] = d["spec"]["entrypoint"].replace(old, new)


BROKEN: dict[str, list[Callable[[Document], object]]] = {
    "aws": [
        lambda d: d.update(max_workers=0),
        lambda d: d["file_mounts"].update({"~/.sst2-ray/nodes": d["file_mounts"].pop("~/.sst2-ray/node")}),
        lambda d: d["auth"].update(ssh_user="ec2-user"),
        lambda d: config(d).update(LaunchTemplate=dict(config(d, "head")["LaunchTemplate"])),
        lambda d: replace(d, WORKER_START, ":6379", ":6380"),
        lambda d: config(d)["BlockDeviceMappings"][0]["Ebs"].update(VolumeType="gp4"),
        lambda d: d["provider"].update(region="us-west-9", availability_zone="us-west-9a,us-west-9b"),
        lambda d: config(d)["InstanceMarketOptions"]["SpotOptions"].update(InstanceInteruptionBehavior="terminate"),
        lambda d: d.update(cluster_name="my cluster"),
        lambda d: d["available_node_types"]["gpu_spot"].update(min_workers=4, max_workers=2),
    ],
    "gcp": [
        lambda d: config(d)["networkInterfaces"][0].update(subnetwork="projects/acme-nlp/regions/us-east1/subnetworks/sst2-ray"),
        lambda d: config(d)["serviceAccounts"][0].update(email="sst2-ray-worker@other-project.iam.gserviceaccount.com"),
        lambda d: config(d)["serviceAccounts"][0].update(scopes=["https://www.googleapis.com/auth/devstorage.read_only"]),
        lambda d: config(d)["disks"][0]["initializeParams"].update(diskType="zones/us-east1-b/diskTypes/pd-ssd"),
        lambda d: config(d)["disks"].append(dict(config(d)["disks"][0])),
        lambda d: config(d)["scheduling"].update(provisioningModel="Spot"),
        lambda d: config(d)["scheduling"].update(automaticRestart=True),
        lambda d: d["provider"].update(project_id="Acme NLP"),
        lambda d: d["provider"].update(availability_zone="us-central1-f"),
        lambda d: config(d, "head")["networkInterfaces"][0].pop("accessConfigs"),
    ],
    "azure": [
        lambda d: d["provider"].update(location="westus9"),
        lambda d: d["provider"].update(subscription_id="my-subscription"),
        lambda d: d["provider"].pop("use_external_head_ip"),
        lambda d: arm(d).update(imagePublisher="Canonical"),
        lambda d: arm(d).update(imageVersion="newest"),
        lambda d: arm(d, "gpu_ondemand").update(evictionPolicy="Delete"),
        lambda d: arm(d).update(billingProfile={"maxPrice": 0.01}),
        lambda d: d["provider"].update(resource_group="sst2 ray/x"),
        lambda d: d["auth"].update(ssh_user="admin"),
        lambda d: arm(d, "head").update(vmSize="Standard_D4ps_v5"),
    ],
    "onprem": [
        lambda d: d["provider"].update(worker_ips=["192.168.7.11", "192.168.7.256"]),
        lambda d: d["provider"].update(worker_ips="192.168.7.11"),
        lambda d: d["provider"].update(worker_ips=["192.168.7.11:22", "192.168.7.12"]),
        lambda d: replace(d, WORKER_START, "--address=$RAY_HEAD_IP:6379", "--address=192.168.7.99:6379 # $RAY_HEAD_IP"),
        lambda d: d["file_mounts"].pop("~/.sst2-ray/pyproject.toml"),
        lambda d: d[HEAD_START].remove("ray stop"),
        lambda d: replace(d, HEAD_START, "--dashboard-host=127.0.0.1", "--dashboard-host=127.0.0.1 --dashboard-port=8266"),
        lambda d: replace(d, WORKER_START, "ray start", "ray start --node-ip-address=192.168.7.11"),
        lambda d: replace(d, HEAD_START, "--object-manager-port=8076", "--object-manager-port=6379"),
        lambda d: d["file_mounts"].update({"/home/alice/data": "cluster/node"}),
    ],
    "kuberay": [
        lambda d: pod(d)["containers"][0]["volumeMounts"][0].update(name="store"),
        lambda d: pod(d)["containers"][0]["resources"]["requests"].update(cpu="16"),
        lambda d: d["spec"].update(preRunningDeadlineSeconds=90000),
        lambda d: entrypoint(d, "/mnt/storage/sst2", "/mnt/data/sst2"),
        lambda d: entrypoint(d, "--num-workers", "--workers-count"),
        lambda d: entrypoint(d, "jobs/train.py", "jobs/trian.py"),
        lambda d: ray_cluster(d)["workerGroupSpecs"].append(dict(group(d))),
        lambda d: pod(d)["volumes"][1]["emptyDir"].update(sizeLimit="64Gi"),
        lambda d: head_pod(d).update(automountServiceAccountToken=False),
        lambda d: [p["containers"][0].update(image="registry.example.org/acme/sst2-ray:2.59.0") for p in (pod(d), head_pod(d))],
    ],
}  # fmt: skip

SLURM: list[tuple[str, str]] = [
    ("#SBATCH --ntasks-per-node=1", "#SBATCH --ntasks-per-node=4"),
    ("#SBATCH --exclusive\n", ""),
    ("#SBATCH --time=04:00:00\n", ""),
    ("#SBATCH --time=04:00:00", "#SBATCH --time=4 hours"),
    ("#SBATCH --gpus-per-node=4", "#SBATCH --gpu-per-node=4"),
    ("#SBATCH --mem=0", "#SBATCH --mem=4G"),
    ("#SBATCH --nodes=2", "# SBATCH --nodes=2"),
    ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
    ("export RAY_AUTH_MODE=token ", "export "),
    ('cd "${SLURM_SUBMIT_DIR:?run this with sbatch}"\n', 'cd "${SLURM_SUBMIT_DIR:?run this with sbatch}"\n#SBATCH --partition=gpu\n'),
]  # fmt: skip
ALLOWED_TO_BE_MISSED = 5


def told_of_slurm(folder: Path, text: str) -> list[str]:
    path = folder / "slurm.sbatch"
    path.write_text(text)
    findings = examine_file(load_cluster_file(path), DoctorConfig(offline=True))
    return [finding.line() for finding in findings if finding.level != "ok" and finding.where != "laptop"]


@pytest.fixture
def shipped(examine: Examine) -> dict[str, set[str]]:
    """Return what doctor says of the files as they are: warnings that come with a place."""
    return {name: {f.line() for f in examine(rendered(name)) if f.level != "ok"} for name in BROKEN}


@pytest.mark.usefixtures("home")
def test_doctor_finds_the_broken_files(
    examine: Examine, shipped: dict[str, set[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missed, count = [], 0
    for name, mistakes in BROKEN.items():
        assert len(mistakes) >= 10
        for number, mistake in enumerate(mistakes, start=1):
            count += 1
            errors = {f.line() for f in examine(planted(name, mistake)) if f.level != "ok"} - shipped[name]
            if not errors:
                missed.append(f"{name} {number}")
    text = (REPOSITORY / "cluster/slurm.sbatch").read_text()
    clean = set(told_of_slurm(tmp_path, text))
    for number, (old, new) in enumerate(SLURM, start=1):
        assert old in text
        count += 1
        if not set(told_of_slurm(tmp_path, text.replace(old, new))) - clean:
            missed.append(f"slurm {number}")
    with capsys.disabled():
        print(f"\n{count - len(missed)} of {count} broken files found; missed: {', '.join(missed) or 'none'}")
    assert count >= 60 and len(missed) <= ALLOWED_TO_BE_MISSED


@pytest.mark.parametrize("name", FILES)
def test_no_shipped_file_is_accused(name: str, examine: Examine) -> None:
    assert [finding.line() for finding in examine(rendered(name)) if finding.level == "error"] == []


def test_keys_that_ray_reads_itself_are_not_accused(examine: Examine) -> None:
    def own_network(document: Document) -> None:
        for name in ("head", "gpu_spot"):
            config(document, name).update(
                SubnetIds=["subnet-0123456789abcdef0"], SecurityGroupIds=["sg-0123456789abcdef0"]
            )

    assert [finding.line() for finding in examine(planted("aws", own_network)) if finding.level == "error"] == []


def test_the_shipped_slurm_script_is_not_accused(home: Path, tmp_path: Path) -> None:  # noqa: ARG001
    told = told_of_slurm(tmp_path, (REPOSITORY / "cluster/slurm.sbatch").read_text())
    assert [line for line in told if line.startswith("ERROR")] == []
