"""Broken files of every place, each with one mistake that people make, and right ones that look unusual.

BROKEN was drawn up without a look at doctor's checks, which then found 52 of 103; MORE and THIRD after they were mended, and 44 of 70
and 31 of 62 were found at first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from tests.support.cluster_files import FILES, REPOSITORY, render

Document = dict[str, Any]
Edit = Callable[[str], str]
OTHERS = {
    "rayservice": REPOSITORY / "cluster/kuberay-rayservice.yaml",
    "slurm": REPOSITORY / "cluster/slurm.sbatch",
    "dockerfile": REPOSITORY / "cluster/Dockerfile",
    "setup": REPOSITORY / "cluster/node/setup.sh",
}
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample sst2-ray"
START_WITH_RESOURCES = """ray start --num-cpus 8 --num-gpus=1 --resources='{"fast": 1}' --address=$RAY_HEAD_IP:6379"""
FAMILY = "projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2404-nvidia-580"
PRIVATE_KEY = (
    "-----BEGIN " + "OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXktdjEAAAAA"
)  # in two: nothing here may look like one
PYTHON_310 = "rayproject/ray:2.60.0-py310-gpu"
PLAIN_UBUNTU = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
DRIVER_IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"


def sub(old: str, new: str, count: int = -1) -> Edit:
    """Replace a piece of the text, everywhere or the first `count` times."""

    def edit(text: str) -> str:
        assert old in text, f"the mistake would not be planted: no {old!r}"
        return text.replace(old, new, count)

    return edit


def doc(mistake: Callable[[Document], object]) -> Edit:
    """Change the parsed document."""

    def edit(text: str) -> str:
        document = yaml.safe_load(text)
        mistake(document)
        return yaml.safe_dump(document, sort_keys=False)

    return edit


def without_watch(text: str) -> str:
    """Remove the commands that start a watch."""
    return re.sub(r"initialization_commands:\n(?=  - bash .*autostop)|  - bash .*autostop\.sh .*\n", "", text)


def node(d: Document, name: str = "gpu_spot") -> Document:
    return d["available_node_types"][name]["node_config"]


def arm(d: Document, name: str = "gpu_spot") -> Document:
    return node(d, name)["azure_arm_parameters"]


def group(d: Document) -> Document:
    return d["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]


def pod(d: Document) -> Document:
    return group(d)["template"]["spec"]


def head_pod(d: Document) -> Document:
    return d["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def attach_l4(d: Document) -> None:
    attached = [{"acceleratorType": "nvidia-l4", "acceleratorCount": 1}]
    node(d).update(machineType="n1-standard-8", guestAccelerators=attached)


def no_gpu(d: Document) -> None:
    node(d).update(InstanceType="m7i.2xlarge")
    d["available_node_types"]["gpu_spot"].update(resources={"GPU": 1})


BROKEN: dict[str, dict[str, Edit]] = {
    "aws": {
        "subnet is a VPC": doc(lambda d: node(d).update(SubnetIds=["vpc-0123456789abcdef0"])),
        "security group by its name": doc(lambda d: node(d).update(SecurityGroupIds=["sst2-ray-sst2"])),
        "worker type without a GPU": sub("InstanceType: g6.2xlarge", "InstanceType: c7i.2xlarge"),
        "key twice": sub("max_workers: 8\n", "max_workers: 8\nmax_workers: 2\n", 1),
        "tab in place of blanks": sub("  region: us-west-2", "\tregion: us-west-2"),
        "workers end at once": sub("idle_timeout_minutes: 5", "idle_timeout_minutes: 0"),
        "market type in capitals": sub("MarketType: spot", "MarketType: SPOT"),
        "root disk under another name": sub("DeviceName: /dev/sda1", "DeviceName: /dev/xvda"),
        "gp3 with too few IOPS": sub("VolumeSize: 200, VolumeType: gp3", "VolumeSize: 200, VolumeType: gp3, Iops: 1000"),
        "disk size with its unit": sub("VolumeSize: 200", "VolumeSize: 200GB"),
        "autostop of another cloud": sub("autostop.sh head --cloud aws", "autostop.sh head --cloud gcp"),
        "autostop asks another port": sub('--head "$RAY_HEAD_IP:6379"', '--head "$RAY_HEAD_IP:6380"'),
        "autostop's minutes with a unit": sub("--idle-minutes 30 ", "--idle-minutes 30m "),
        "autostop's role is another": sub("autostop.sh worker", "autostop.sh wokrer"),
        "own key without its name at EC2": sub("ssh_user: ubuntu", "ssh_user: ubuntu\n  ssh_private_key: ~/.ssh/sst2-ray"),
        "image without a driver": sub(DRIVER_IMAGE, PLAIN_UBUNTU),
        "image for Arm": sub("ami/x86_64/base-oss", "ami/arm64/base-oss"),
        "resources under another key": sub("resources: {CPU: 0, GPU: 0}", "resource: {CPU: 0, GPU: 0}"),
        "set-up script that is not there": sub("bash ~/.sst2-ray/node/setup.sh\n", "bash ~/.sst2-ray/node/set-up.sh\n"),
        "container of another Python":
            sub("head_node_type: head\n", f"head_node_type: head\ndocker: {{image: '{PYTHON_310}', container_name: ray}}\n"),
        "stopping is switched off by a word": sub("cache_stopped_nodes: False", 'cache_stopped_nodes: "False"'),
    },
    "gcp": {
        "key of another login": sub("ubuntu:ssh-ed25519", "alice:ssh-ed25519"),
        "private key in the metadata": sub(SSH_KEY, PRIVATE_KEY),
        "more CPUs than the machine": sub("resources: {CPU: 8, GPU: 1}", "resources: {CPU: 16, GPU: 1}"),
        "disk size with its unit": sub("diskSizeGb: 150", "diskSizeGb: 150GB"),
        "longest life with a unit": sub("maxRunDuration: {seconds: 259200}", "maxRunDuration: {seconds: 72h}"),
        "image family without the word": sub("global/images/family/common", "global/images/common"),
        "machine type of another zone": sub("machineType: g2-standard-8", "machineType: zones/us-east1-b/machineTypes/g2-standard-8"),
        "head is preemptible": doc(lambda d: node(d, "head")["scheduling"].update(provisioningModel="SPOT")),
        "kind of address that does not exist": sub("type: ONE_TO_ONE_NAT", "type: ONE_TO_ONE_NET"),
        "scope by its short name": sub('scopes: ["https://www.googleapis.com/auth/cloud-platform"]', "scopes: [cloud-platform]"),
        "Google ends it sooner than the file says": sub("maxRunDuration: {seconds: 259200}", "maxRunDuration: {seconds: 3600}"),
        "default network": doc(lambda d: node(d).update(networkInterfaces=[{"network": "global/networks/default"}])),
    },
    "azure": {
        "more GPUs than the machine": sub("resources: {CPU: 24, GPU: 1}", "resources: {CPU: 24, GPU: 4}"),
        "SKU is a number": sub('imageSku: "2204"', "imageSku: 2204"),
        "image of old drivers": sub('imageSku: "2204"', 'imageSku: "1804"'),
        "disk size with its unit": sub("osDiskSize: 128", "osDiskSize: 128GB"),
        "price is a text": sub("maxPrice: -1", 'maxPrice: "-1"'),
        "key of the provider in other letters": sub("subscription_id:", "subscriptionId:"),
        "private key without the public one": sub("ssh_user: ubuntu", "ssh_user: ubuntu\n  ssh_private_key: ~/.ssh/sst2-ray"),
        "head without Azure's client": doc(lambda d: d.update(head_setup_commands=["bash ~/.sst2-ray/node/setup.sh"])),
        "head is spot": doc(lambda d: arm(d, "head").update(priority="Spot", evictionPolicy="Delete")),
    },
    "onprem": {
        "address with its mask": sub("head_ip: 192.168.7.10", "head_ip: 192.168.7.10/24"),
        "public half of the key": sub("ssh_private_key: ~/.ssh/sst2-ray", "ssh_private_key: ~/.ssh/sst2-ray.pub"),
        "workers start heads of their own": sub("ray start --address=$RAY_HEAD_IP:6379", "ray start --head --port=6379"),
        "head joins nobody and leads nobody": sub("ray start --head ", "ray start "),
        "more workers than machines": sub("upscaling_speed: 1.0", "min_workers: 5\nmax_workers: 5\nupscaling_speed: 1.0"),
        "login with its host": sub("ssh_user: ubuntu", "ssh_user: ubuntu@192.168.7.10"),
        "number of GPUs in words": sub("ray start --address", "ray start --num-gpus=four --address"),
        "name of the local link": sub("192.168.7.11", "gpu1.local"),
        "session folder for everybody": sub("ray start --address", "ray start --temp-dir=/tmp/ray --address"),
        "session folder too long for sockets": sub("ray start --address", f"ray start --temp-dir=/mnt/{'scratch/' * 10}ray --address"),
        "minutes in words": sub("idle_timeout_minutes: 60", "idle_timeout_minutes: sixty"),
        "type of provider in capitals": sub("type: local", "type: Local"),
    },
    "kuberay": {
        "old version of the API": sub("apiVersion: ray.io/v1\n", "apiVersion: ray.io/v1alpha1\n"),
        "kind of another spec": sub("kind: RayJob", "kind: RayCluster"),
        "more GPUs asked for than allowed": doc(lambda d: pod(d)["containers"][0]["resources"]["requests"].update({"nvidia.com/gpu": "2"})),
        "two ports of one name": sub("containerPort: 8265, name: dashboard", "containerPort: 8265, name: gcs-server"),
        "workers write to another claim": doc(lambda d: pod(d)["volumes"][0]["persistentVolumeClaim"].update(claimName="storage-2")),
        "shared memory is not mounted": doc(lambda d: pod(d)["containers"][0]["volumeMounts"].pop(1)),
        "shared memory on a disk": sub("emptyDir: {medium: Memory, sizeLimit: 8Gi}", "emptyDir: {sizeLimit: 8Gi}"),
        "version is a number": sub('rayVersion: "2.60.0"', "rayVersion: 2.60"),
        "image of another Python": doc(lambda d: pod(d)["containers"][0].update(image="rayproject/ray:2.60.0-py310-gpu")),
        "GPUs for a week after the run": sub("ttlSecondsAfterFinished: 600", "ttlSecondsAfterFinished: 604800"),
        "GPU under another name": sub('nvidia.com/gpu: "1"', 'nvidia.com/gpus: "1"'),
        "toleration that is none": sub("{key: nvidia.com/gpu, operator: Exists,", "{key: nvidia.com/gpu, operator: Exist,"),
        "more replicas than the most": sub("replicas: 0\n", "replicas: 6\n", 1),
        "root that must not be root": sub("runAsUser: 1000, fsGroup", "runAsUser: 0, fsGroup"),
        "variable is a number": sub('value: "120"', "value: 120"),
        "start parameter is a number": sub('num-cpus: "0"', "num-cpus: 0"),
        "name in capitals": sub("generateName: sst2-train-", "generateName: SST2_Train-"),
        "grace with a unit": sub("terminationGracePeriodSeconds: 120", "terminationGracePeriodSeconds: 2m"),
    },
    "rayservice": {
        "function that is not there": sub("import_path: sst2_ray.serving.app:build", "import_path: sst2_ray.serving.application:build"),
        "more CPUs than a pod": sub("cpus_per_replica: 4", "cpus_per_replica: 8"),
        "more replicas than pods": sub("num_replicas: 2", "num_replicas: 12"),
        "port that no container has": sub("host: 0.0.0.0, port: 8000", "host: 0.0.0.0, port: 9000"),
        "argument that is not there": sub("tokens_per_batch: 131072", "token_per_batch: 131072"),
        "only the pod itself is listened to": sub("host: 0.0.0.0", "host: 127.0.0.1"),
    },
    "slurm": {
        "one node of two": sub("srun --export=ALL --kill", "srun --nodes=1 --ntasks=1 --export=ALL --kill"),
        "binds the task to a core": sub(" --cpu-bind=none", ""),
        "waits for more nodes than there are": sub('--min-nodes "$SLURM_JOB_NUM_NODES"', "--min-nodes 4"),
        "lines end as on Windows": sub("\n", "\r\n"),
        "time of four parts": sub("--time=04:00:00", "--time=00:04:00:00"),
        "GPUs under another name": sub("--gpus-per-node=4", "--gres=gpus:4"),
        "more GPUs for Ray than allocated": sub('--num-gpus="${SLURM_GPUS_ON_NODE:-0}"', "--num-gpus=8"),
        "run does not find the cluster": sub('-- env RAY_ADDRESS="$head_ip:$port" bash', "-- bash"),
        "option with one dash": sub("#SBATCH --nodes=2", "#SBATCH -nodes=2"),
        "memory said twice": sub("#SBATCH --mem=0\n", "#SBATCH --mem=0\n#SBATCH --mem-per-gpu=32G\n"),
        "one core a node": sub("#SBATCH --ntasks-per-node=1\n", "#SBATCH --ntasks-per-node=1\n#SBATCH --cpus-per-task=1\n"),
        "no interpreter": sub("#!/usr/bin/env bash\n", ""),
    },
    "dockerfile": {
        "another Python": sub("ray:2.60.0-py311-gpu", "ray:2.60.0-py310-gpu"),
        "another Ray": sub("ray:2.60.0-py311-gpu", "ray:2.44.0-py311-gpu"),
        "no version": sub("ray:2.60.0-py311-gpu", "ray:latest-gpu"),
        "copies what is not there": sub("COPY --chown=1000:100 jobs ", "COPY --chown=1000:100 job "),
        "installs what was not copied": sub("-r /tmp/build/requirements.lock", "-r /tmp/requirements.lock"),
        "token is off": sub("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        "ends as root": sub("USER 1000", "USER root"),
    },
    "setup": {
        "another Python than the lock's": sub("PYTHON_VERSION=3.11", "PYTHON_VERSION=3.12"),
        "another lock": sub("$HERE/requirements.lock", "$HERE/requirements.txt"),
        "token is off": sub("export RAY_AUTH_MODE=token\n", ""),
        "lines end as on Windows": sub("\n", "\r\n"),
        "goes on after an error": sub("set -euo pipefail\n", ""),
    },
}  # fmt: skip
MORE: dict[str, dict[str, Edit]] = {
    "aws": {
        "nothing ends the workers":
            doc(lambda d: d.update(worker_start_ray_commands=[c for c in d["worker_start_ray_commands"] if "autostop" not in c])),
        "number as a text": sub("max_workers: 8\n", 'max_workers: "8"\n', 1),
        "machine too small for a head": sub("InstanceType: m6i.xlarge", "InstanceType: t3.micro"),
        "zone as the region": sub("region: us-west-2\n", "region: us-west-2a\n"),
        "zones with semicolons": sub("us-west-2a,us-west-2b,us-west-2c", "us-west-2a;us-west-2b"),
        "commands are one text": doc(lambda d: d.update(setup_commands=d["setup_commands"][0])),
        "disk beyond the limit": sub("VolumeSize: 200", "VolumeSize: 100000"),
        "key pair with its suffix": doc(lambda d: node(d).update(KeyName="sst2-ray.pem")),
        "priority in words": sub("priority: 10", "priority: high"),
        "container without a name":
            sub("head_node_type: head\n", "head_node_type: head\ndocker: {image: 'rayproject/ray:2.60.0-py311-gpu'}\n"),
        "head's address under another name": sub("$RAY_HEAD_IP:6379 --object", "$HEAD_IP:6379 --object"),
        "subnet is no list": doc(lambda d: node(d).update(SubnetIds="subnet-0123456789abcdef0")),
        "profile's number in place of its name": doc(lambda d: node(d).update(IamInstanceProfile={"Arn": "arn:aws:iam::123:role/sst2"})),
        "start that never returns": sub("ray start --head ", "ray start --head --block "),
        "GPUs declared on a machine without": doc(no_gpu),
        "zone of the machine is another": doc(lambda d: node(d).update(Placement={"AvailabilityZone": "us-west-2d"})),
    },
    "gcp": {
        "zone as the region": sub("region: us-central1\n", "region: us-central1-a\n"),
        "GPU that cannot be attached": doc(attach_l4),
        "label in capitals": doc(lambda d: node(d).update(labels={"Team": "NLP"})),
        "tags are a list": doc(lambda d: node(d).update(tags=["ssh"])),
        "true as a text": sub("autoDelete: true", 'autoDelete: "true"'),
        "life is a text": sub("maxRunDuration: {seconds: 259200}", "maxRunDuration: 72h"),
        "network is no list": doc(lambda d: node(d).update(networkInterfaces=node(d)["networkInterfaces"][0])),
        "TRUE without quotation marks": sub('value: "TRUE"', "value: TRUE"),
        "image by its short name":
            sub("projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2404-nvidia-580", "ubuntu-2404-lts"),
        "kind of disk that does not exist":
            doc(lambda d: node(d)["disks"][0]["initializeParams"].update(diskType="zones/us-central1-a/diskTypes/pd-standrad")),
    },
    "azure": {
        "zones are a text": doc(lambda d: arm(d).update(zones="1")),
        "location of another cloud": sub("location: westus2", "location: us-west-2"),
        "policy in small letters": sub("evictionPolicy: Delete", "evictionPolicy: Destroy"),
        "yes as a text": sub("use_internal_ips: True", 'use_internal_ips: "no"'),
        "group ends with a dot": sub("resource_group: sst2-ray\n", "resource_group: sst2-ray.\n"),
        "priority beside node_config": doc(lambda d: d["available_node_types"]["gpu_spot"].update(priority="Spot")),
        "disk beside the parameters": doc(lambda d: node(d).update(osDiskSize=256)),
    },
    "onprem": {
        "workers look for any cluster": sub("--address=$RAY_HEAD_IP:6379", "--address=auto"),
        "port of six digits": sub("--port=6379", "--port=637900"),
        "port in words": sub("--object-manager-port=8076", "--object-manager-port=any"),
        "start that never returns": sub("ray start --address", "ray start --block --address"),
        "no CPUs by a minus": sub("ray start --address", "ray start --num-cpus=-4 --address"),
        "address of another network": sub("head_ip: 192.168.7.10", "head_ip: 0.0.0.0"),
    },
    "kuberay": {
        "Ray's own image, without the project": sub("registry.example.org/acme/sst2-ray:2.60.0", "rayproject/ray:2.60.0-py311-gpu"),
        "submitter restarts for ever": sub("restartPolicy: Never", "restartPolicy: Always"),
        "containers beside the pod's spec": doc(lambda d: group(d)["template"].update(containers=pod(d).pop("containers"))),
        "two volumes of one name": doc(lambda d: pod(d)["volumes"].append(dict(pod(d)["volumes"][1]))),
        "mount without a path": doc(lambda d: pod(d)["containers"][0]["volumeMounts"][0].pop("mountPath")),
        "memory without a unit":
            doc(lambda d: [pod(d)["containers"][0]["resources"][k].update(memory="24") for k in ("limits", "requests")]),
        "half a GPU":
            doc(lambda d: [pod(d)["containers"][0]["resources"][k].update({"nvidia.com/gpu": "0.5"}) for k in ("limits", "requests")]),
        "command without python": sub("entrypoint: python /home", "entrypoint: /home"),
        "bucket with one slash": sub("--storage-path /mnt/storage/sst2", "--storage-path s3:/bucket/sst2"),
        "cluster under the service's key": sub("rayClusterSpec:", "rayClusterConfig:"),
        "secret without a key":
            doc(lambda d: pod(d)["containers"][0].update(env=[{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token"}}}])),
        "start parameter that Ray lacks": sub('num-cpus: "0"', 'num-cpu: "0"'),
        "selector is true": doc(lambda d: pod(d).update(nodeSelector={"gpu": True})),
        "variable twice": doc(lambda d: head_pod(d)["containers"][0]["env"].append({"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "3"})),
        "key of the container misspelled": doc(lambda d: pod(d)["containers"][0].update(volumeMount=[])),
        "GPU number in the requests alone": doc(lambda d: pod(d)["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu")),
    },
    "slurm": {
        "two options in one line": sub("#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1", "#SBATCH --nodes=2 --ntasks-per-node=1 --foo=3"),
        "one GPU is visible": sub("set -euo pipefail\n", "set -euo pipefail\nexport CUDA_VISIBLE_DEVICES=0\n"),
        "port is the job's number": sub("port=$((20000 + SLURM_JOB_ID % 20000))", "port=$SLURM_JOB_ID"),
        "quotation is not closed": sub('"${SST2_RAY_VENV:-.venv}/bin/activate"', '"${SST2_RAY_VENV:-.venv}/bin/activate'),
        "session folder for everybody": sub('RAY_TMPDIR="/tmp/sst2-ray-$(id -un)"', 'RAY_TMPDIR="/tmp/ray"'),
        "arguments are dropped": sub(' "$@" || true', " || true"),
        "no nodes": sub("--nodes=2", "--nodes=0"),
    },
    "dockerfile": {
        "instruction misspelled": sub("COPY --chown=1000:100 jobs", "COYP --chown=1000:100 jobs"),
        "packages without versions": sub("USER 1000\n", "RUN pip install wandb\nUSER 1000\n"),
        "system packages without rights": sub("# Dependencies first", "RUN apt-get update && apt-get install -y git\n# Dependencies first"),
        "working folder is relative": sub("WORKDIR /home/ray/sst2-ray", "WORKDIR home/ray/sst2-ray"),
        "jobs lie elsewhere than the manifest says": sub("/home/ray/sst2-ray/jobs", "/opt/jobs"),
    },
    "setup": {
        "condition is not closed": sub('is installed"\nelse', 'is installed"\nelse if'),
        "blanks around =": sub("PYTHON_VERSION=3.11", "PYTHON_VERSION = 3.11"),
        "without hashes": sub("--require-hashes ", ""),
    },
}  # fmt: skip

THIRD: dict[str, dict[str, Edit]] = {
    "aws": {
        "GPU type as the head": sub("head_node_type: head", "head_node_type: gpu_spot"),
        "workers in the old form": doc(lambda d: d.update(worker_nodes={"InstanceType": "g6.2xlarge"})),
        "login of another image": sub("ssh_user: ubuntu", "ssh_user: root"),
        "token of another name": sub('"~/.ray/auth_token": "~/.ray/auth_token"', '"~/.ray/token": "~/.ray/auth_token"'),
        "name too long": sub("cluster_name: sst2\n", f"cluster_name: {'sst2-' * 14}x\n"),
        "GPU on the head": sub("InstanceType: m6i.xlarge", "InstanceType: g6.xlarge"),
        "no disks": doc(lambda d: node(d).update(BlockDeviceMappings=[])),
        "shutdown only stops": doc(lambda d: node(d).update(InstanceInitiatedShutdownBehavior="stop")),
        "metadata for everybody": doc(lambda d: node(d).update(MetadataOptions={"HttpTokens": "optional"})),
        "interfaces beside groups":
            doc(lambda d: node(d).update(NetworkInterfaces=[{"DeviceIndex": 0}], SecurityGroupIds=["sg-0123456789abcdef0"])),
        "head's profile on workers": doc(lambda d: node(d).update(IamInstanceProfile={"Name": "sst2-ray-sst2-us-west-2-head"})),
        "zone with a hyphen": sub("us-west-2a,us-west-2b,us-west-2c", "us-west-2-a"),
        "workers never end": sub("--lost-minutes 15", "--lost-minutes 0"),
        "relative script": sub("bash ~/.sst2-ray/node/setup.sh\n", "bash cluster/node/setup.sh\n"),
    },
    "gcp": {
        "project by its number": sub("project_id: acme-nlp", "project_id: 123456789"),
        "GPU that is moved": sub("onHostMaintenance: TERMINATE", "onHostMaintenance: MIGRATE"),
        "head's account on workers": sub("sst2-ray-worker@", "sst2-ray-head@"),
        "image for Arm": sub("common-cu129-ubuntu-2404-nvidia-580", "common-cu129-ubuntu-2404-nvidia-580-arm64"),
        "disk beyond the limit": sub("diskSizeGb: 150", "diskSizeGb: 150000"),
        "zone that does not exist": sub("availability_zone: us-central1-a", "availability_zone: us-central1-z"),
        "tiny head": sub("machineType: e2-standard-4", "machineType: e2-micro"),
        "items are a mapping": doc(lambda d: node(d)["metadata"].update(items={"ssh-keys": "ubuntu:x"})),
        "half a key": sub(SSH_KEY, "ssh-ed25519"),
    },
    "azure": {
        "tiny head": sub("vmSize: Standard_D4s_v5", "vmSize: Standard_B1s"),
        "no location": sub("  location: westus2\n", ""),
        "version is a number": sub("imageVersion: latest", "imageVersion: 22.04"),
        "size in small letters": sub("vmSize: Standard_NC24ads_A100_v4", "vmSize: standard_nc24ads_a100_v4"),
        "zone of another cloud": doc(lambda d: d["provider"].update(availability_zone="us-west-2a")),
    },
    "onprem": {
        "key in the file itself": sub("ssh_private_key: ~/.ssh/sst2-ray", f"ssh_private_key: '{PRIVATE_KEY}'"),
        "workers under another key": sub("worker_ips:", "workers_ips:"),
        "relative script": sub("bash ~/.sst2-ray/node/setup.sh", "bash node/setup.sh"),
        "key of SSH that Ray lacks": sub("ssh_user: ubuntu", "ssh_user: ubuntu\n  ssh_port: 2222"),
        "range of addresses": sub("[192.168.7.11, 192.168.7.12]", "[192.168.7.11-14]"),
        "address of the local link": sub("192.168.7.10", "169.254.1.10"),
    },
    "kuberay": {
        "claim with underscores": sub("claimName: sst2-ray-storage", "claimName: sst2_ray_storage"),
        "memory in small letters": sub("medium: Memory", "medium: memory"),
        "mode in capitals": sub("mode: token", "mode: Token"),
        "deadline as a text": sub("activeDeadlineSeconds: 86400", 'activeDeadlineSeconds: "86400"'),
        "groups are a mapping": doc(lambda d: d["spec"]["rayClusterSpec"].update(workerGroupSpecs=group(d))),
        "idle GPUs for a day": sub("idleTimeoutSeconds: 120", "idleTimeoutSeconds: 86400"),
        "effect that does not exist": sub("operator: Exists, effect: NoSchedule", "operator: Exists, effect: NoScheduled"),
        "claim without its key":
            doc(lambda d: pod(d)["volumes"].__setitem__(0, {"name": "storage", "persistentVolumeClaim": "sst2-ray-storage"})),
        "volume of no kind": doc(lambda d: pod(d)["volumes"].__setitem__(0, {"name": "storage", "pvc": {"claimName": "sst2-ray-storage"}})),
        "account with a blank": doc(lambda d: head_pod(d).update(serviceAccountName="My SA")),
        "GPU on the head":
            doc(lambda d: [head_pod(d)["containers"][0]["resources"][k].update({"nvidia.com/gpu": "1"}) for k in ("limits", "requests")]),
        "namespace in capitals": doc(lambda d: d["metadata"].update(namespace="ML_Team")),
        "fewer CPUs than none": sub('cpu: "6"', 'cpu: "-6"'),
    },
    "slurm": {
        "GPUs without a number": sub("--gpus-per-node=4", "--gpus-per-node"),
        "no time at all": sub("--time=04:00:00", "--time=0"),
        "goes on after an error": sub("set -euo pipefail\n", ""),
        "head by its name": sub('--address "$head_ip:$port"', '--address "$head_node:$port"'),
        "tasks beside nodes": sub("#SBATCH --nodes=2\n", "#SBATCH --nodes=2\n#SBATCH --ntasks=8\n"),
        "one failure ends all": sub("--kill-on-bad-exit=0", "--kill-on-bad-exit=1"),
        "too few GPUs for Ray": sub('--num-gpus="${SLURM_GPUS_ON_NODE:-0}"', "--num-gpus=0"),
    },
    "dockerfile": {
        "blanks around =": sub("RAY_AUTH_MODE=token", "RAY_AUTH_MODE = token"),
        "everything is copied": sub("COPY --chown=1000:100 sst2_ray /home/ray/sst2-ray/sst2_ray", "COPY . /home/ray/sst2-ray"),
        "another torch than the lock's": sub("USER 1000\n", "RUN pip install torch==2.6.0\nUSER 1000\n"),
        "for Arm": sub("FROM rayproject", "FROM --platform=linux/arm64 rayproject"),
        "token in the image": sub("RAY_USAGE_STATS_ENABLED=0", "HF_TOKEN=hf_" + "a" * 34),
    },
    "setup": {
        "token misspelled": sub("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=tokn"),
        "one more package at any version": sub("echo \"setup: $(", "uv pip install --python \"$VENV/bin/python\" wandb\necho \"setup: $("),
        "readable by all": sub("chmod 600 ~/.ray/auth_token", "chmod 644 ~/.ray/auth_token"),
    },
}  # fmt: skip

SHIPPED = {**FILES, **OTHERS}


def text_of(place: str) -> str:
    """The shipped file, with a user's values where it has placeholders."""
    return (
        render(place)
        if place in FILES
        else OTHERS[place]
        .read_text()
        .replace("YOUR_REGISTRY", "registry.example.org/acme")
        .replace("YOUR_MODEL", "s3://models/sst2")
    )


RIGHT: dict[str, dict[str, Edit]] = {
    "aws": {
        "own network": doc(lambda d: node(d).update(SubnetIds=["subnet-0123456789abcdef0"], SecurityGroupIds=["sg-01234567"])),
        "own interface": doc(lambda d: node(d).update(NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": "subnet-01234567",
            "Groups": ["sg-01234567"]}])),
        "own image": doc(lambda d: node(d).update(ImageId="ami-0123456789abcdef0")),
        "faster disk": sub("VolumeSize: 200, VolumeType: gp3", "VolumeSize: 200, VolumeType: gp3, Iops: 6000, Throughput: 500"),
        "Amazon's Linux": lambda text: text.replace("base-oss-nvidia-driver-gpu-ubuntu-22.04", "base-oss-nvidia-driver-gpu-al2023")
        .replace("/dev/sda1", "/dev/xvda").replace("ssh_user: ubuntu", "ssh_user: ec2-user"),
        "a machine newer than the table": doc(lambda d: node(d).update(InstanceType="g6e.48xlarge")),
        "a script of one's own": doc(lambda d: (d["file_mounts"].update({"~/more.sh": "cluster/node/lock.sh"}),
            d["setup_commands"].append("bash ~/more.sh"))),
        "quoted and braced": sub('--head "$RAY_HEAD_IP:6379"', "--head '${RAY_HEAD_IP}:6379'"),
        "longer idle time": sub("--idle-minutes 30 --max-hours 72", "--idle-minutes=45.5 --max-hours=24"),
        "merged keys": sub("      InstanceType: m6i.xlarge\n", "      <<: {EbsOptimized: true}\n      InstanceType: m6i.xlarge\n"),
    },
    "gcp": {
        "image of one's own project": sub(FAMILY, "projects/acme-nlp/global/images/sst2-nvidia-580"),
        "dated image": sub("images/family/common-cu129-ubuntu-2404-nvidia-580", "images/common-cu129-ubuntu-2404-nvidia-580-v20260801"),
        "labels and tags": doc(lambda d: node(d).update(labels={"team": "nlp"}, tags={"items": ["ray"]})),
        "kind of disk": doc(lambda d: node(d)["disks"][0]["initializeParams"].update(diskType="zones/us-central1-a/diskTypes/pd-ssd")),
        "a T4 of one's own": doc(lambda d: (node(d).update(machineType="n1-standard-8",
            guestAccelerators=[{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}]))),
        "scheduling in the old form": doc(lambda d: node(d).update(scheduling=[{**node(d)["scheduling"]}])),
    },
    "azure": {
        "zones": doc(lambda d: d["provider"].update(availability_zone="1,2")),
        "newer image": sub('imageSku: "2204"', 'imageSku: "2404"'),
        "own image": doc(lambda d: arm(d).update(imageId="/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/i")),
        "tags": doc(lambda d: node(d).update(tags={"team": "nlp"})),
    },
    "onprem": {
        "one machine": sub("[192.168.7.11, 192.168.7.12]", "[]"),
        "names": sub("192.168.7.11", "gpu1.cluster.example.org"),
        "another port": sub("6379", "6380"),
        "fewer CPUs": doc(lambda d: d["worker_start_ray_commands"].__setitem__(1, START_WITH_RESOURCES)),
        "private session folder": sub("ray start --address", "ray start --temp-dir=/home/ubuntu/ray --address"),
    },
    "kuberay": {
        "NFS": doc(lambda d: [p["volumes"].__setitem__(0, {"name": "storage", "nfs": {"server": "10.0.0.2",
            "path": "/sst2"}}) for p in (pod(d), head_pod(d))]),
        "secret and selector": doc(lambda d: (pod(d).update(nodeSelector={"cloud.google.com/gke-accelerator": "nvidia-l4"}),
            pod(d)["containers"][0].update(env=[{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token",
            "key": "token"}}}]))),
        "init container": doc(lambda d: pod(d).update(initContainers=[{"name": "wait", "image": "busybox:1.37",
            "command": ["true"], "restartPolicy": "Always"}])),
        "annotations": doc(lambda d: group(d)["template"].update(metadata={"annotations": {"a/b": "1"}, "labels": {"team": "nlp"}})),
        "bucket": sub("--storage-path /mnt/storage/sst2", "--storage-path s3://bucket/sst2"),
        "digest": sub("sst2-ray:2.60.0", "sst2-ray@sha256:" + "0" * 64),
        "named": doc(lambda d: (d["metadata"].clear(), d["metadata"].update(name="sst2-first", namespace="ml-team",
            labels={"team": "nlp"}))),
        "annotated image": sub("sst2-ray:2.60.0", "sst2-ray:2.60.0-py311"),
    },
    "rayservice": {
        "half a GPU": sub("gpus_per_replica: 1", "gpus_per_replica: 0.5"),
        "on CPUs": sub("gpus_per_replica: 1", "gpus_per_replica: 0"),
    },
    "slurm": {
        "two options in one line": sub("#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1", "#SBATCH --nodes=2 --ntasks-per-node=1"),
        "short options": sub("#SBATCH --nodes=2\n", "#SBATCH -N 2\n#SBATCH -p gpu\n#SBATCH -A nlp  # who pays\n"),
        "GPUs by kind": sub("--gpus-per-node=4", "--gres=gpu:a100:4"),
        "a day and two hours": sub("--time=04:00:00", "--time=1-02:00:00"),
        "tasks as many as nodes": sub("#SBATCH --nodes=2\n", "#SBATCH --nodes=2\n#SBATCH --ntasks=2\n"),
        "modules": sub("set -euo pipefail\n", "set -euo pipefail\nmodule load cuda || true\n"),
    },
    "dockerfile": {
        "system packages as root": sub("# Dependencies first",
            "USER root\nRUN apt-get update && apt-get install -y git\nUSER 1000\n# Dependencies first"),
        "one more package": sub("USER 1000\n", "RUN pip install --no-cache-dir wandb==0.20.1\nUSER 1000\n"),
        "the lock's own version": sub("USER 1000\n", "RUN pip install --no-cache-dir ray==2.60.0\nUSER 1000\n"),
        "stages": sub("FROM rayproject/ray:2.60.0-py311-gpu\n", "FROM rayproject/ray:2.60.0-py311-gpu AS base\nFROM base\n"),
    },
    "setup": {
        "one more package": sub('echo "setup: $(', 'uv pip install --constraint "$HERE/clouds.lock" boto3\necho "setup: $('),
    },
}  # fmt: skip
"""Changes that are right, and must not be accused."""
