"""The shipped RayService and Serve config: doctor accepts them, names planted mistakes, and Ray Serve reads them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from sst2_ray.cluster.clouds.kuberay import SCHEMAS_VARIABLE, KubeRay
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.serving.app import ServeSettings
from tests.support.cluster_files import REPOSITORY, VALUES

MANIFEST = REPOSITORY / "cluster/kuberay-rayservice.yaml"


def shipped() -> dict[str, Any]:
    text = MANIFEST.read_text().replace("YOUR_MODEL", "s3://models/sst2")
    document: dict[str, Any] = yaml.safe_load(text.replace("YOUR_REGISTRY", VALUES["YOUR_REGISTRY"]))
    return document


def lines(folder: Path, document: dict[str, Any]) -> list[str]:
    """Return what doctor's rules say besides that all is well; the operator's schema is checked elsewhere."""
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(document))
    found = KubeRay().check(load_cluster_file(path))
    return [finding.line() for finding in found if finding.level != "ok" and finding.where != "schema"]


def serve_config(document: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(document["spec"]["serveConfigV2"])
    return config


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """A change of the Serve config inside the manifest."""

    def apply(document: dict[str, Any]) -> None:
        config = serve_config(document)
        change(config)
        document["spec"]["serveConfigV2"] = yaml.safe_dump(config)

    return apply


def worker(document: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = document["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return group


def test_the_shipped_manifest_is_accepted(tmp_path: Path) -> None:
    assert lines(tmp_path, shipped()) == []


def test_its_cluster_fits_kuberays_schema(tmp_path: Path) -> None:
    folder = os.environ.get(SCHEMAS_VARIABLE)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{SCHEMAS_VARIABLE} names no folder with KubeRay's schemas")
    path = tmp_path / "service.yaml"
    document = shipped()
    for expected in (0, 1):
        path.write_text(yaml.safe_dump(document))
        found = KubeRay().check(load_cluster_file(path))
        assert sum("KubeRay's schema: " in finding.what for finding in found) == expected
        worker(document).update(replicas="two")


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (changed(lambda c: c.update(applications=[])), "has no application"),
        (changed(lambda c: c["applications"][0]["args"].pop("model_dir")), "there is nothing to serve"),
        (
            changed(lambda c: c["applications"][0]["args"].update(require_token=False)),
            "every pod of the cluster can ask",
        ),
        (changed(lambda c: c["applications"][0]["args"].update(num_replicas=9)), "the worker groups reach 4"),
        (
            changed(lambda c: c["applications"][0].update(import_path="app:build")),
            "is not the application of this project",
        ),
        (changed(lambda c: c["http_options"].update(host="127.0.0.1")), "the service cannot reach loopback"),
        (lambda d: d["spec"].update(serveConfigV2="a: [b"), "cannot be read as YAML"),
        (lambda d: worker(d)["template"]["spec"]["containers"][0].pop("env"), "does not start without a token"),
        (lambda d: d["spec"]["rayClusterConfig"].pop("authOptions"), "no token"),
        (lambda d: d.update(kind="RayCluster"), "a server a RayService"),
    ],
)
def test_a_planted_mistake_is_named(tmp_path: Path, mistake: Callable[[dict[str, Any]], object], told: str) -> None:
    document = copy.deepcopy(shipped())
    mistake(document)
    assert any(told in line for line in lines(tmp_path, document)), lines(tmp_path, document)


def test_ray_serve_reads_both_configs_and_the_application_knows_their_settings() -> None:
    for config in (serve_config(shipped()), yaml.safe_load((REPOSITORY / "cluster/serve.yaml").read_text())):
        schema = ServeDeploySchema.model_validate(config)
        (application,) = schema.applications
        assert application.import_path == "sst2_ray.serving.app:build"
        assert ServeSettings(**application.args).require_token
