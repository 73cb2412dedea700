from __future__ import annotations

import copy
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.cluster.doctor import node_versions, probe, running
from sst2_ray.cluster.doctor.probe import MARK, describe
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section

RAY = importlib.metadata.version("ray")


@pytest.fixture
def node() -> dict[str, Any]:
    return {
        "python": "3.11.9", "versions": {"ray": RAY, "torch": "2.9.1", "cuda": "12.8", "deepspeed": "0.19.8", "transformers": "5.23.0"},
        "source": "", "token": "600", "disk_free_gb": 100.0, "shm_gib": 8.0, "gpus": [], "differing": [], "skew_s": 0.1,
    }  # fmt: skip


def lines(findings: list[Any], level: str) -> str:
    return "\n".join(finding.line() for finding in findings if finding.level == level)


def compare(nodes: dict[str, dict[str, Any]]) -> Findings:
    found = Findings()
    node_versions.compare({name: Section(node) for name, node in nodes.items()}, found)
    return found


def check_node(where: str, node: dict[str, Any], *, prepared: bool) -> Findings:
    found = Findings()
    node_versions.check_node(where, Section(node), found, prepared=prepared)
    return found


def read_probe(log: str) -> Findings:
    found = Findings()
    running.read_probe(log, found)
    return found


def test_equal_nodes_have_the_same_versions(node: dict[str, Any]) -> None:
    findings = compare({"head": node, "worker": copy.deepcopy(node)})
    assert lines(findings, "error") == "" and "2 of 2 nodes: Python 3.11.9" in lines(findings, "ok")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"python": "3.11.8"}, "Python 3.11.8, the head has 3.11.9: Ray refuses the node"),
        ({"ray": "2.59.0"}, "Ray 2.59.0, the head has"),
        ({"torch": "2.8.0"}, "torch 2.8.0, the head has 2.9.1"),
        ({"cuda": "cpu"}, "cuda cpu, the head has 12.8"),
        ({"deepspeed": "0.18.0"}, "deepspeed 0.18.0"),
    ],
)
def test_a_node_that_differs_is_named_with_both_versions(
    node: dict[str, Any], change: dict[str, str], told: str
) -> None:
    other = copy.deepcopy(node)
    for key, value in change.items():
        (other if key == "python" else other["versions"])[key] = value
    findings = compare({"head": node, "worker": other})
    assert f"worker: {told}" in lines(findings, "error")


def test_a_head_with_another_ray_than_this_machine_is_named(node: dict[str, Any]) -> None:
    node["versions"]["ray"] = "2.59.0"
    assert f"head: Ray 2.59.0, this machine has {RAY}" in lines(compare({"head": node}), "error")


def test_no_remedy_restarts_ray_under_jobs_that_run(node: dict[str, Any]) -> None:
    node["versions"]["ray"] = "2.59.0"
    node["source"] = "another"
    findings = compare({"head": node})
    assert "install ray==2.59.0 here, or run `sst2-ray up` once no job runs" in lines(findings, "error")
    assert "at the next `sst2-ray up`; jobs that run are not affected" in lines(findings, "warning")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"token": ""}, "token missing"),
        ({"token": "644"}, "token of mode 644"),
        ({"skew_s": -90.0}, "clock is -90 s off"),
        ({"disk_free_gb": 3.0}, "3 GB free"),
        ({"versions": {}}, "Ray is not installed"),
        (
            {"differing": ["numpy 1.0 for 2.0", "a 1 for 2"]},
            "2 packages other than in the lock: numpy 1.0 for 2.0, a 1 for 2",
        ),
        ({"gpus": [{"problem": "no devices were found"}]}, "nvidia-smi fails: no devices"),
    ],
)
def test_what_is_wrong_with_one_node_is_told(node: dict[str, Any], change: dict[str, Any], told: str) -> None:
    assert told in lines(check_node("worker", {**node, **change}, prepared=True), "error")


@pytest.mark.parametrize(
    ("free", "versions", "level"),
    [(3.9, {"ray": RAY}, "error"), (4.1, {"ray": RAY}, "warning"), (13.9, {}, "error"), (14.1, {}, "warning")],
)
def test_a_node_needs_room_for_what_is_not_installed_yet(
    node: dict[str, Any], free: float, versions: dict[str, str], level: str
) -> None:
    found = lines(check_node("worker", {**node, "disk_free_gb": free, "versions": versions}, prepared=False), level)
    assert f"{free:g} GB free in the home folder" in found


def gpu(**change: str) -> dict[str, str]:
    return {
        "name": "NVIDIA L4", "memory.total": "23034", "driver_version": "580.65.06", "compute_cap": "8.9", "clocks.current.sm": "210",
        "clocks.max.sm": "2040", "temperature.gpu": "40", "ecc.errors.uncorrected.volatile.total": "0", **change,
    }  # fmt: skip


def test_healthy_gpus_are_described(node: dict[str, Any]) -> None:
    assert "2 x NVIDIA L4, driver 580.65.06, 2040 MHz" in lines(
        check_node("worker", {**node, "gpus": [gpu(), gpu()]}, prepared=True), "ok"
    )


def test_memory_errors_heat_and_a_cpu_build_of_torch_are_told(node: dict[str, Any]) -> None:
    node["versions"]["cuda"] = "cpu"
    sick = gpu(**{"ecc.errors.uncorrected.volatile.total": "3", "temperature.gpu": "92"})
    findings = check_node("worker", {**node, "gpus": [gpu(), sick]}, prepared=True)
    assert "GPU 1 has uncorrected memory errors" in lines(findings, "error") and "torch is built for CPU" in lines(
        findings, "error"
    )
    assert "GPU 1 is at 92 degrees" in lines(findings, "warning")


@pytest.mark.parametrize(
    ("cuda", "driver", "old"), [("13.0", "570.1", True), ("13.0", "580.2", False), ("12.8", "550.1", False)]
)
def test_a_driver_that_is_too_old_for_torch_is_an_error(
    node: dict[str, Any], cuda: str, driver: str, old: bool
) -> None:
    node["versions"]["cuda"] = cuda
    errors = lines(check_node("w", {**node, "gpus": [gpu(driver_version=driver)]}, prepared=True), "error")
    assert ("too old for torch's CUDA 13" in errors) == old


def test_the_probe_names_packages_that_differ_from_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"ray=={RAY} \\\n    --hash=sha256:00\npyyaml==0.1 ; python_version > '3'\nno-such-package==1\n")
    (told,) = probe.differing(lock)
    assert told.startswith("pyyaml ") and told.endswith(" for 0.1")


def test_a_token_in_a_variable_as_kuberay_hands_it_is_one(
    node: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    assert probe.token() == ""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    node["token"] = probe.token()
    assert node["token"] == "env" and lines(check_node("pod", node, prepared=True), "error") == ""


def test_the_probe_describes_the_machine_it_runs_on() -> None:
    described = describe()
    assert described["versions"]["ray"] == RAY and described["memory_gib"] > 0 and described["disk_free_gb"] > 0


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_driver_without_a_gpu_is_no_mistake_one_that_fails_beside_it_is(
    node: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool
) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(probe, "has_nvidia_gpu", lambda: has_gpu)
    errors = lines(check_node("head", {**node, "gpus": probe.gpus()}, prepared=True), "error")
    assert ("nvidia-smi fails: NVIDIA-SMI has failed" in errors) == has_gpu
    assert has_gpu or errors == ""


def test_a_gpu_is_known_by_its_device_file_or_on_the_bus(tmp_path: Path) -> None:
    bus = tmp_path / "sys/bus/pci/devices/0000:00:1e.0"
    bus.mkdir(parents=True)
    (bus / "vendor").write_text("0x1d0f\n")
    assert not probe.has_nvidia_gpu(tmp_path)
    (bus / "vendor").write_text("0x10de\n")
    assert probe.has_nvidia_gpu(tmp_path)
    (bus / "vendor").unlink()
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert not probe.has_nvidia_gpu(tmp_path)
    (tmp_path / "dev/nvidia0").touch()
    assert probe.has_nvidia_gpu(tmp_path)


def test_findings_are_read_out_of_the_probes_log(node: dict[str, Any]) -> None:
    import json

    log = (
        "chatter\n"
        + MARK
        + json.dumps({"level": "error", "where": "a", "what": "b", "remedy": "c"})
        + "\n"
        + MARK
        + json.dumps({"where": "head", "node": node})
    )
    assert "a: b; c" in lines(read_probe(log), "error")
