"""Tests of what a process may use of its machine: cores by affinity and quota, memory by the cgroups above it, and what Ray is told."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray.cgroups import cgroup_cpu_quota, memory_limit, num_usable_cpus
from sst2_ray.errors import InputError
from sst2_ray.run.planning import nodes
from sst2_ray.run.planning.nodes import addable_types, this_machine
from sst2_ray.run.planning.placement import Node
from sst2_ray.run.ray.node_types import NodeGroup


@pytest.fixture
def cgroups(tmp_path: Path):
    """Make a tree of cgroup files; returns what the functions take."""

    def make(own: str, **files: str) -> tuple[Path, Path]:
        for name, content in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        (tmp_path / "own").write_text(own)
        return tmp_path / "cgroup", tmp_path / "own"

    return make


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu_dot_max": "max 100000"}, math.inf),
        ("0::/\n", {"cpu_dot_max": "90000 100000"}, 0.9),
        ("0::/slurm/job1\n", {"slurm__cpu_dot_max": "400000 100000", "slurm__job1__cpu_dot_max": "250000 100000"}, 2.5),
        ("0::/slurm/job1\n", {"slurm__cpu_dot_max": "150000 100000", "slurm__job1__cpu_dot_max": "max 100000"}, 1.5),
        ("3:cpu,cpuacct:/\n", {"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}, math.inf),
        ("3:cpu:/docker/x\n", {"cpu__cpu_dot_cfs_quota_us": "50000", "cpu__cpu_dot_cfs_period_us": "100000"}, 0.5),
    ],
)
def test_the_least_quota_of_the_cgroups_above_counts(cgroups, own: str, files: dict[str, str], quota: float) -> None:
    assert cgroup_cpu_quota(*cgroups(own, **files)) == quota


@pytest.mark.parametrize(("quota", "cpus"), [(0.1, 1), (0.9, 1), (1.0, 1), (1.9, 1), (2.5, 2), (math.inf, 8)])
def test_a_quota_grants_whole_cores_and_at_least_one(monkeypatch: pytest.MonkeyPatch, quota: float, cpus: int) -> None:
    monkeypatch.setattr("sst2_ray.cgroups.cgroup_cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert num_usable_cpus() == cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_cores_that_the_affinity_leaves_out_are_not_counted() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from sst2_ray.run.planning.nodes import this_machine; print(this_machine().nodes[0].cpus)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1.0\n"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory_dot_max": "1000"}, None),
        ("0::/slurm/job1\n", {"slurm__job1__memory_dot_max": "2000000", "slurm__memory_dot_max": "1000000"}, 1000000),
        ("0::/slurm/job1\n", {"slurm__job1__memory_dot_max": "max"}, None),
        ("4:memory:/job\n", {"memory__job__memory_dot_limit_in_bytes": "5000000"}, 5000000),
        ("4:memory:/job\n", {"memory__job__memory_dot_limit_in_bytes": str(2**63 - 4096)}, None),
    ],
)
def test_the_memory_that_a_nested_cgroup_grants_is_known(cgroups, own, files, limit: int | None) -> None:
    """Ray reads the topmost one itself."""
    assert memory_limit(*cgroups(own, **files)) == limit


def test_this_machine_has_what_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 7, "GPU": 3}')
    (node,) = this_machine().nodes
    assert (node.cpus, node.gpus) == (7, 3)


@pytest.mark.parametrize("said", ["nonsense", "[1]", '{"CPU": "two"}', "7"])
def test_resources_that_cannot_be_read_are_one_line(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", said)
    with pytest.raises(InputError, match=r"^RAY_OVERRIDE_RESOURCES .*: must be a JSON object of amounts"):
        this_machine()


@pytest.mark.parametrize(
    ("shapes", "more"),
    [
        ([], [(8.0, 1.0, 8), (8.0, 1.0, 2), (16.0, 0.0, 3)]),
        ([(0, 0), *[(8, 1)] * 3], [(8.0, 1.0, 5), (8.0, 1.0, 2), (16.0, 0.0, 3)]),
        ([(8, 1)] * 9 + [(16, 0)], [(8.0, 1.0, 1), (16.0, 0.0, 2)]),
        ([(8, 1)] * 10, [(16.0, 0.0, 3)]),
    ],
)
def test_a_node_that_is_there_is_taken_from_one_type_only(shapes, more) -> None:
    """Spot and on-demand nodes of one shape, and a type of another."""
    groups = [
        NodeGroup(name="spot", resources={"CPU": 8, "GPU": 1}, max_count=8),
        NodeGroup(name="on_demand", resources={"CPU": 8, "GPU": 1}, max_count=2),
        NodeGroup(name="cpu", resources={"CPU": 16}, max_count=3),
    ]
    there = [Node(address="a", cpus=c, gpus=g, free_cpus=c, free_gpus=g) for c, g in shapes]
    assert addable_types(groups, there) == tuple(more)


@pytest.mark.parametrize(
    ("files", "visible", "count"),
    [
        ("nvidia0 nvidia1 nvidiactl nvidia-uvm", None, 2),
        (" ".join(f"nvidia{number}" for number in range(16)), None, 16),
        (" ".join(f"nvidia{number}" for number in range(16)), "3,10,12", 3),
        ("nvidia0 nvidia1", "", 0),
        ("nvidia0 nvidia1", "1", 1),
        ("nvidia0 nvidia1", "0,-1,1", 1),
        ("nvidia0 nvidia1", "0,7", 1),
        ("nvidia0", "MIG-5c1ae2ab-0001, MIG-5c1ae2ab-0002,MIG-5c1ae2ab-0003", 3),
        ("nvidia0 nvidia1", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", 1),
        ("nvidiactl", "0", 0),
    ],
)
def test_the_gpus_of_this_machine_are_those_that_cuda_would_see(files, visible, count, tmp_path, monkeypatch) -> None:
    for name in files.split():
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert nodes.num_gpus(tmp_path) == count


def test_under_windows_the_driver_is_asked(tmp_path, monkeypatch) -> None:
    (tmp_path / "dxg").touch()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA RTX A2000 (UUID: GPU-1)'\necho '  MIG 1g'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nodes.num_gpus(tmp_path) == 1
    (tmp_path / "nvidia-smi").unlink()
    assert nodes.num_gpus(tmp_path) == 0
