"""Compare what nodes say of themselves: Ray accepts only the same Ray and the same patch of Python everywhere."""

from __future__ import annotations

import importlib.metadata
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.laptop import local_source_hash
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.ssh import Host, host_of

PROBE = Path(__file__).with_name("probe.py")
# Differences in these change numbers or break collectives; Ray and Python differences keep a node out altogether.
_SAME = ("torch", "cuda", "deepspeed", "transformers")
_MIN_DISK_GB = 20.0
_MAX_CLOCK_SKEW_S = 5.0


def check_hosts(cluster: ClusterFile, addresses: list[str], *, up: bool) -> list[Finding]:
    """Ask every host over SSH and compare. `up`: the cluster is running, so an environment must be there."""
    if not addresses:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(addresses))) as pool:
        answers = list(pool.map(lambda address: _ask(host_of(cluster, address)), addresses))
    findings: list[Finding] = []
    described: dict[str, dict[str, Any]] = {}
    for address, answer in zip(addresses, answers, strict=True):
        if isinstance(answer, Finding):
            findings.append(answer)
        else:
            described[address] = answer
            findings += check_node(address, answer, prepared=up)
    return [*findings, *compare(described)]


def _ask(host: Host) -> dict[str, Any] | Finding:
    asked = time.time()
    # The node's own Python where set-up has run, else whatever the system has: even that tells sizes, GPUs and clocks.
    answer = host.run('"$(command -v python || command -v python3)" -', stdin=PROBE.read_text(encoding="utf-8"))
    if answer.returncode != 0:
        text = " ".join(answer.stderr.split())[-200:] or f"exit code {answer.returncode}"
        return error(
            host.address, f"cannot be asked over SSH: {text}", f"try: ssh -i {host.key} {host.user}@{host.address}"
        )
    try:
        described: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return error(
            host.address,
            "answers over SSH with something else than the probe's JSON",
            "does its ~/.bashrc print or change directory?",
        )
    described["skew_s"] = described["clock"] - (asked + time.time()) / 2
    return described


def check_node(where: str, node: dict[str, Any], *, prepared: bool) -> list[Finding]:
    """What one node says of itself."""
    findings = []
    if "ray" not in node["versions"]:
        findings.append(
            error(where, "Ray is not installed", "run `sst2-ray up`, its set-up installs it") if prepared
            else ok(where, f"Python {node['python']}, Ray not installed yet: `sst2-ray up` does that")
        )  # fmt: skip
    if prepared and node["token"] not in ("600", "400"):
        findings.append(
            error(
                where,
                f"token {'missing' if not node['token'] else 'of mode ' + node['token']}",
                "list ~/.ray/auth_token under file_mounts; set-up makes it 600",
            )
        )
    if abs(node.get("skew_s", 0.0)) > _MAX_CLOCK_SKEW_S:
        findings.append(
            error(
                where,
                f"its clock is {node['skew_s']:+.0f} s off: records would be out of order, object stores refuse requests",
                "switch time synchronisation on (chrony)",
            )
        )
    if node["disk_free_gb"] < _MIN_DISK_GB:
        findings.append(
            error(
                where,
                f"{node['disk_free_gb']:g} GB free in the home folder",
                f"{_MIN_DISK_GB:g} GB for packages, model cache and spilled objects",
            )
        )
    if 0 < node["shm_gib"] < 1:
        findings.append(
            warning(
                where,
                f"/dev/shm of {node['shm_gib']:g} GiB: Ray's object store falls back to the disk",  # nosec B108
                "a quarter of the memory (docker: --shm-size)",
            )
        )
    return [*findings, *check_gpus(where, node)]


def check_gpus(where: str, node: dict[str, Any]) -> list[Finding]:
    """Driver, errors, clocks and FlashAttention of a node's GPUs."""
    findings = []
    for index, gpu in enumerate(node["gpus"]):
        if "problem" in gpu:
            return [
                error(
                    where,
                    f"nvidia-smi fails: {gpu['problem']}",
                    "the driver is missing or broken: another image, or reboot",
                )
            ]
        if gpu["ecc.errors.uncorrected.volatile.total"] not in ("0", "[N/A]", "[Not Supported]"):
            findings.append(
                error(where, f"GPU {index} has uncorrected memory errors", "end this machine, the cloud replaces it")
            )
        if gpu["temperature.gpu"].isdigit() and int(gpu["temperature.gpu"]) > 85:
            findings.append(
                warning(
                    where,
                    f"GPU {index} is at {gpu['temperature.gpu']} degrees and throttles",
                    "check its cooling, or another machine",
                )
            )
    if node["gpus"] and node["versions"].get("cuda") == "cpu":
        findings.append(
            error(
                where,
                "torch is built for CPU, the GPUs would be idle",
                "install torch from the index of your CUDA version",
            )
        )
    if node["flash_attn_problem"]:
        findings.append(
            warning(
                where,
                f"flash-attn cannot be imported ({node['flash_attn_problem']}), training falls back to sdpa",
                "install the wheel that fits torch, cluster/node/constraints.txt",
            )
        )
    if node["gpus"] and not findings:
        first = node["gpus"][0]
        findings.append(
            ok(
                where,
                f"{len(node['gpus'])} x {first['name']}, driver {first['driver_version']}, {first['clocks.max.sm']} MHz at most",
            )
        )
    return findings


def compare(nodes: dict[str, dict[str, Any]]) -> list[Finding]:
    """Every node against the first (the head), and Ray against this machine."""
    ready = {where: node for where, node in nodes.items() if "ray" in node["versions"]}
    if not ready:
        return []
    head_name, head = next(iter(ready.items()))
    findings, here = [], importlib.metadata.version("ray")
    if head["versions"]["ray"] != here:
        findings.append(
            error(
                head_name,
                f"Ray {head['versions']['ray']}, this machine has {here}",
                f"install ray=={head['versions']['ray']} here, or run `sst2-ray up` once no job runs: it restarts Ray",
            )
        )
    for where, node in list(ready.items())[1:]:
        if node["python"] != head["python"]:
            findings.append(
                error(
                    where,
                    f"Python {node['python']}, the head has {head['python']}: Ray refuses the node",
                    "remove ~/.sst2-ray/venv there and run `sst2-ray up`",
                )
            )
        if node["versions"]["ray"] != head["versions"]["ray"]:
            findings.append(
                error(
                    where,
                    f"Ray {node['versions']['ray']}, the head has {head['versions']['ray']}: Ray refuses the node",
                    "remove ~/.sst2-ray/venv there and run `sst2-ray up`",
                )
            )
        for name in _SAME:
            mine, theirs = node["versions"].get(name, "none"), head["versions"].get(name, "none")
            if mine != theirs:
                findings.append(
                    error(
                        where,
                        f"{name} {mine}, the head has {theirs}: workers would not compute the same",
                        "remove ~/.sst2-ray/venv there and run `sst2-ray up`",
                    )
                )
    mounted = {where: node["source"] for where, node in ready.items() if node["source"]}
    for where, source in mounted.items():
        if source != local_source_hash():
            findings.append(
                warning(
                    where,
                    f"has another state of the project ({source}, here {local_source_hash()}) for its spot watcher",
                    "replaced at the next `sst2-ray up`; jobs that run are not affected",
                )
            )
    if not findings:
        versions = ", ".join(f"{name} {head['versions'].get(name, 'none')}" for name in ("ray", *_SAME))
        findings.append(ok("lockstep", f"{len(ready)} of {len(nodes)} nodes: Python {head['python']}, {versions}"))
    return findings
