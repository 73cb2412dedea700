# ruff: noqa: E501
"""Broken files of kinds that doctor once missed: shell commands, mounts, containers, the AWS stack, Serve's config, and more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from sst2_ray.cluster.clouds import serve_config
from sst2_ray.cluster.doctor.build_files import check_build_file
from sst2_ray.cluster.file import load_cluster_file
from tests.support.broken_files import SHIPPED, Edit, doc, sub, text_of, without_watch
from tests.support.cluster_files import REPOSITORY
from tests.support.missed_files import MISSED
from tests.unit.cluster.test_further_broken_files import accused, told

BESIDE = {"stack": REPOSITORY / "cluster/aws-account.yaml", "serve": REPOSITORY / "cluster/serve.yaml"}
CONTAINER = (
    "{image: 'rayproject/ray:2.60.0-py311-gpu', container_name: ray_1, "
    "run_options: ['--shm-size=8g', '-v /data:/data', '--ulimit nofile=65536:65536']}"
)
SET_UP = "setup_commands:\n  - bash ~/.sst2-ray/node/setup.sh\nhead"


def text(place: str) -> str:
    if place in BESIDE:
        return BESIDE[place].read_text().replace("YOUR_MODEL", "s3://models/sst2")
    return text_of(place)


def told_of(folder: Path, place: str, changed: str) -> set[str]:
    if place not in BESIDE:
        return told(folder, place, changed)
    path = folder / BESIDE[place].name
    path.write_text(changed)
    return {finding.line() for finding in check_build_file(path) or () if finding.level != "ok"}


@pytest.mark.parametrize("place", MISSED)
def test_every_broken_file_is_found(place: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del home
    monkeypatch.delenv("SST2_RAY_KUBERAY_SCHEMAS", raising=False)
    shipped = text(place)
    clean = told_of(tmp_path, place, shipped)
    assert not [line for line in clean if line.startswith("ERROR")]
    missed = []
    for name, (old, new) in MISSED[place].items():
        assert old in shipped, f"{name}: the mistake would not be planted"
        if not told_of(tmp_path, place, shipped.replace(old, new)) - clean:
            missed.append(name)
    assert missed == []


def set_up(*commands: str) -> Edit:
    lines = "".join(f"  - {json.dumps(command)}\n" for command in commands)
    return sub(SET_UP, f"setup_commands:\n  - bash ~/.sst2-ray/node/setup.sh\n{lines}head")


RIGHT: dict[str, dict[str, Edit]] = {
    "aws": {
        "commands of one's own": set_up(
            "sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nvtop",
            "mkdir -p ~/work && cd ~/work && git clone https://github.com/acme/data.git || true",
            "export HF_HOME=/data/hf && python -c 'import os; print(os.environ[\"HF_HOME\"])'",
            "nohup tensorboard --logdir ~/runs > ~/tensorboard.log 2>&1 &",
            "pip install 'wandb>=0.20,<0.21' nvidia-ml-py==13.580.65",
            "echo 'export FOO=1' >> ~/.bashrc",
            "echo 'a > 1' > ~/note.txt",
            "curl -LsSf https://example.org/tool.tar.gz | tar xz -C ~/",
            "[ -d ~/x ] || mkdir ~/x",
            "bash -c 'for i in 1 2 3; do echo $i; done'",
            "python3 ~/.sst2-ray/node/missing.py ~/.sst2-ray/pyproject.toml ~/.sst2-ray/node/requirements.lock || true",
        ),
        "folders of one's own": sub("file_mounts:\n", 'file_mounts:\n  "~/data": "docs"\n  "/home/ubuntu/jobs": "jobs"\n  "/data/x": "jobs"\n'),
        "own tags": doc(lambda d: d["available_node_types"]["gpu_spot"]["node_config"].update(
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "nlp"}]}])),
        "larger machine": sub("InstanceType: g6.2xlarge", "InstanceType: g6.12xlarge"),
        "container": lambda text: sub("auth:\n", f"docker: {CONTAINER}\nauth:\n")(without_watch(text)),
        "groups and roles of one's own": doc(lambda d: [
            (config.pop("LaunchTemplate"), config.update(SecurityGroupIds=["sg-0123456789abcdef0"],
             IamInstanceProfile={"Name": "mine"}, InstanceInitiatedShutdownBehavior="terminate"))
            for config in [kind["node_config"] for kind in d["available_node_types"].values()]]),
        "version of the template": sub("LaunchTemplateName: sst2-ray-sst2-head}", "LaunchTemplateName: sst2-ray-sst2-head, Version: '3'}"),
        "provisioned disk": sub("VolumeSize: 120, VolumeType: gp3", "VolumeSize: 120, VolumeType: io2, Iops: 3000"),
        "fewer CPUs for Ray": sub("ray start --address=$RAY_HEAD_IP:6379", "ray start --num-cpus=6 --address=$RAY_HEAD_IP:6379"),
        "credentials": sub("  cache_stopped_nodes: False", "  cache_stopped_nodes: False\n  use_internal_ips: True"),
    },
    "gcp": {
        "two zones": sub("availability_zone: us-central1-a", "availability_zone: us-central1-a,us-central1-b"),
        "SSD": sub("pd-balanced", "pd-ssd"),
        "newer driver, older CUDA": sub("common-cu129-ubuntu-2404-nvidia-580", "common-cu128-ubuntu-2204-nvidia-580"),
        "longest name": sub("cluster_name: sst2\n", f"cluster_name: {'n' * 35}\n"),
    },
    "azure": {
        "client of the lock": sub("azure-core==1.35.0", "azure-core==1.35.0 'azure-storage-blob>=12'"),
        "limited price": sub("maxPrice: -1", "maxPrice: 3.2"),
    },
    "onprem": {
        "through a bastion": sub("ssh_user: ubuntu", "ssh_user: ubuntu\n  ssh_proxy_command: ssh -W %h:%p me@bastion.example.org"),
        "with torch by hand": sub("  - bash ~/.sst2-ray/node/setup.sh\n",
            "  - python -m venv ~/env && ~/env/bin/pip install 'ray[default,train,tune]==2.60.0' -r requirements-sst2.txt\n"),
    },
    "kuberay": {
        "probe on a port that is there": doc(lambda d: d["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(
            readinessProbe={"httpGet": {"path": "/", "port": "dashboard"}})),
        "read-only with a volume": doc(lambda d: [
            (c.update(securityContext={**c["securityContext"], "readOnlyRootFilesystem": True}),
             c["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"}), spec["volumes"].append({"name": "tmp", "emptyDir": {}}))
            for spec in [d["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]] for c in spec["containers"]]),
        "registry's secret": doc(lambda d: d["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"].update(
            imagePullSecrets=[{"name": "registry"}], affinity={"nodeAffinity": {}}, runtimeClassName="nvidia")),
        "variables by the run's environment": sub("  submissionMode", "  runtimeEnvYAML: |\n    env_vars: {HF_HUB_OFFLINE: '1'}\n  submissionMode"),
        "object store in bytes": sub("rayStartParams: {}", "rayStartParams: {object-store-memory: '8000000000'}"),
    },
    "rayservice": {"two applications": sub("      - name: sst2\n        route_prefix: /\n", "      - name: sst2\n        route_prefix: /sst2\n")},
    "serve": {"on a GPU": sub("gpus_per_replica: 0", "gpus_per_replica: 0.5\n      device: cuda\n      precision: bf16")},
    "stack": {"another bucket's reader": sub("Action: [s3:ListBucket, s3:GetBucketLocation]", "Action: s3:ListBucket")},
    "slurm": {
        "mail and signal": sub("#SBATCH --exclusive\n", "#SBATCH --exclusive\n#SBATCH --mail-type=END,FAIL\n#SBATCH --signal=B:TERM@120\n"),
        "named machines": sub("#SBATCH --exclusive\n", "#SBATCH --exclusive\n#SBATCH --nodelist=gpu[01-02]\n"),
        "half an hour": sub("--time=04:00:00", "--time=30"),
        "GPUs in all": sub("#SBATCH --gpus-per-node=4", "#SBATCH --gpus-per-node=4\n#SBATCH --gpus=8"),
        "append": sub("#SBATCH --exclusive\n", "#SBATCH --exclusive\n#SBATCH --open-mode=append\n#SBATCH --tmp=20G\n"),
    },
    "dockerfile": {
        "built in two stages": sub("FROM rayproject/ray:2.60.0-py311-gpu\n",
            "FROM python:3.11-slim AS wheels\nRUN echo made > /made\nFROM rayproject/ray:2.60.0-py311-gpu\nCOPY --from=wheels /made /tmp/made\n"),
        "path is extended": sub("ENV RAY_AUTH_MODE=token", "ENV PATH=/home/ray/bin:$PATH RAY_AUTH_MODE=token"),
        "command": sub("USER 1000\n", 'USER 1000\nCMD ["python", "-m", "sst2_ray", "--help"]\n'),
    },
}  # fmt: skip


@pytest.mark.parametrize("place", RIGHT)
def test_what_is_right_is_not_accused(place: str, home: Path, tmp_path: Path) -> None:
    del home
    assert accused(RIGHT[place], text(place), lambda changed: told_of(tmp_path, place, changed)) == {}


def test_the_settings_that_doctor_knows_are_those_of_the_application() -> None:
    from sst2_ray.serving.app import ServeSettings

    assert set(serve_config._SETTINGS) == {field.name for field in dataclasses.fields(ServeSettings)}


@pytest.mark.usefixtures("home")
def test_kinds_of_disks_follow_the_zone_that_the_cluster_is_moved_to(tmp_path: Path) -> None:
    path = tmp_path / "gcp.yaml"
    path.write_text(
        text("gcp").replace("availability_zone: us-central1-a", "availability_zone: us-central1-a,us-central1-b")
    )
    cluster = load_cluster_file(path)
    cluster.set_zone("us-central1-b")
    for_ray = yaml.safe_load(cluster.for_ray().read_text())
    disk = for_ray["available_node_types"]["gpu_spot"]["node_config"]["disks"][0]
    assert disk["initializeParams"]["diskType"] == "zones/us-central1-b/diskTypes/pd-balanced"
    assert for_ray["provider"]["availability_zone"] == "us-central1-b"


def test_there_are_files_of_every_place() -> None:
    assert sum(map(len, MISSED.values())) >= 170 and {*SHIPPED, *BESIDE} - {*MISSED} == {"setup"}
