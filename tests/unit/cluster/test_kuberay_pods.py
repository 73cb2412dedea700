"""The pods of the shipped manifest: whether they fit the nodes that its page names, and what the `restricted` standard asks of them."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sst2_ray.cluster.clouds import kuberay
from sst2_ray.cluster.clouds.kuberay import SCHEMAS_VARIABLE
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section
from tests.support.cluster_files import FILES, REPOSITORY, rendered

PAGE = (REPOSITORY / "docs/cluster-kubernetes.md").read_text()


def pods() -> dict[str, dict[str, Any]]:
    """Pod specs by name, the autoscaler's container beside the head's as the operator puts it there."""
    spec = rendered("kuberay")["spec"]
    cluster = spec["rayClusterSpec"]
    head = copy.deepcopy(cluster["headGroupSpec"]["template"]["spec"])
    options = cluster["autoscalerOptions"]
    head["containers"].append(
        {"name": "autoscaler", "resources": options["resources"], "securityContext": options["securityContext"]}
    )
    (workers,) = cluster["workerGroupSpecs"]
    return {"head": head, "worker": workers["template"]["spec"], "submitter": spec["submitterPodTemplate"]["spec"]}


def cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def gib(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi)", text).groups()  # type: ignore[union-attr]
    return float(number) / (1 if unit == "Gi" else 1024)


def left_for_pods(cpus: int, memory_gib: float) -> tuple[float, float]:
    """Cores and GiB that GKE leaves of a node, by its documented steps; EKS and AKS reserve less of nodes of these sizes.

    Half a core and 0.5 GiB of that are kept for what runs on every node: proxy, logging, device plugin.
    """
    steps = ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06))
    reserved, rest = 0.1, memory_gib
    for size, share in steps:
        reserved += min(rest, size) * share
        rest = max(0.0, rest - size)
    cpu = 0.06 + 0.01 + 0.005 * min(2, cpus - 2) + 0.0025 * max(0, cpus - 4)
    return cpus - cpu - 0.4, memory_gib - reserved - 0.5


@pytest.mark.parametrize(
    ("pod", "named"),
    [
        ("head", r"(\d+) CPUs and (\d+) GiB for the head"),
        ("worker", r"(\d+) CPUs, (\d+) GiB and a GPU for each worker"),
    ],
)
def test_a_pod_fits_the_node_that_the_page_names(pod: str, named: str) -> None:
    found = re.search(named, PAGE)
    assert found is not None, named
    cpus, memory = left_for_pods(int(found[1]), float(found[2]))
    requests = [container["resources"]["requests"] for container in pods()[pod]["containers"]]
    assert sum(cores(request["cpu"]) for request in requests) <= cpus
    assert sum(gib(request["memory"]) for request in requests) <= memory


@pytest.mark.parametrize("pod", ["head", "worker", "submitter"])
def test_every_container_is_let_into_a_namespace_that_enforces_restricted(pod: str) -> None:
    spec = pods()[pod]
    whole = spec["securityContext"]
    assert whole["runAsNonRoot"] is True and whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in spec and "hostPID" not in spec
    for container in spec["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}, container["name"]
    for volume in spec.get("volumes", []):
        assert set(volume) - {"name"} <= {"persistentVolumeClaim", "emptyDir", "configMap", "secret", "projected"}


def test_the_claim_of_the_page_is_the_one_that_the_manifest_mounts() -> None:
    claim = yaml.safe_load(re.search(r"<<'CLAIM'\n(.*?)\n\s*CLAIM\n", PAGE, re.DOTALL)[1])  # type: ignore[index]
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"] and gib(claim["spec"]["resources"]["requests"]["storage"])
    for pod in ("head", "worker"):
        claims = [
            v["persistentVolumeClaim"]["claimName"] for v in pods()[pod]["volumes"] if "persistentVolumeClaim" in v
        ]
        assert claims == [claim["metadata"]["name"]]


def with_hub_token() -> dict[str, Any]:
    """The manifest with the variable of its comment in head and workers, as the comment says."""
    comment = re.search(r"- (\{name: HF_TOKEN, .*\}\}\})", FILES["kuberay"].read_text())
    assert comment is not None
    variable = yaml.safe_load(comment[1])
    manifest = rendered("kuberay")
    cluster = manifest["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        group["template"]["spec"]["containers"][0].setdefault("env", []).append(copy.deepcopy(variable))
    return manifest


def test_the_secret_of_the_page_is_the_one_that_the_variable_reads() -> None:
    name, key = re.search(r"kubectl create secret generic (\S+) --from-file=(\w+)=", PAGE).groups()  # type: ignore[union-attr]
    (container,) = with_hub_token()["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    (variable,) = [variable for variable in container["env"] if variable["name"] == "HF_TOKEN"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": name, "key": key}


def test_a_token_from_a_secret_satisfies_the_operators_schema() -> None:
    folder = os.environ.get(SCHEMAS_VARIABLE)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{SCHEMAS_VARIABLE} names no folder with KubeRay's schemas")
    found = Findings()
    kuberay.check_manifest_schema(Section(with_hub_token()), found)
    assert [finding.line() for finding in found if finding.level != "ok"] == []
