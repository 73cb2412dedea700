"""The manifest against KubeRay's own schema, where the folder with it is named by SST2_RAY_KUBERAY_SCHEMAS."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.cluster.clouds import kuberay
from sst2_ray.cluster.clouds.kuberay import SCHEMAS_VARIABLE
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section
from tests.support.cluster_files import planted, rendered


def check_manifest_schema(manifest: dict[str, Any]) -> Findings:
    found = Findings()
    kuberay.check_manifest_schema(Section(manifest), found)
    return found


@pytest.fixture
def schemas() -> Path:
    folder = os.environ.get(SCHEMAS_VARIABLE)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{SCHEMAS_VARIABLE} names no folder with KubeRay's schemas")
    return Path(folder)


@pytest.mark.usefixtures("schemas")
def test_the_shipped_manifest_is_valid() -> None:
    assert [finding.line() for finding in check_manifest_schema(rendered("kuberay")) if finding.level != "ok"] == []


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda d: d["spec"].update(shutDownAfterJobFinishes=True), "shutDownAfterJobFinishes"),
        (lambda d: d["spec"]["rayClusterSpec"]["authOptions"].update(mode="Token"), "authOptions.mode"),
        (lambda d: d["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="2"), "replicas"),
        (lambda d: d["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "num-cpus"),
    ],
)
def test_a_key_or_value_that_the_operator_does_not_know_is_named(
    mistake: Callable[[dict[str, Any]], object], told: str
) -> None:
    errors = [
        finding.line() for finding in check_manifest_schema(planted("kuberay", mistake)) if finding.level == "error"
    ]
    assert any(told in line for line in errors), errors


@pytest.mark.usefixtures("schemas")
def test_another_kind_has_no_schema() -> None:
    findings = check_manifest_schema({**rendered("kuberay"), "kind": "RayJobs"})
    assert [finding.level for finding in findings] == ["error"]


def test_without_the_schemas_doctor_says_that_it_did_not_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SCHEMAS_VARIABLE, raising=False)
    assert [finding.level for finding in check_manifest_schema(rendered("kuberay"))] == ["warning"]
