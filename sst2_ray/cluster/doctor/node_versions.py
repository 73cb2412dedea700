"""Compare what nodes say of themselves: Ray accepts only the same Ray and the same patch of Python everywhere."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.doctor.laptop import local_source_hash
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.ssh import Host
from sst2_ray.config.section import Section
from sst2_ray.formatting import count

PROBE = Path(__file__).with_name("probe.py")
# Differences in these change numbers or break collectives; Ray and Python differences keep a node out altogether.
_SAME = ("torch", "cuda", "deepspeed", "transformers")
_ENVIRONMENT_GB = 10.0
"""Size of the packages with torch for CUDA, and of what pip unpacks to install them."""
_WORKING_GB = 4.0
"""Size of the default models' cache, and of the checkpoint of ModernBERT-base that a run keeps and the one it writes."""
_ROOMY_GB = 20.0
"""Space that leaves Ray room to spill objects, and a run to keep its checkpoints."""
_MAX_CLOCK_SKEW_S = 5.0
_DRIVER_FOR_CUDA = {12: 525, 13: 580}
"""Oldest NVIDIA driver of each CUDA generation (NVIDIA's table of minor version compatibility)."""
_RENEW = "remove ~/.sst2-ray/venv there and run `sst2-ray up`"


def check_hosts(cluster: ClusterFile, *, up: bool) -> Findings:
    """Ask every host of an on-prem file over SSH and compare. `up`: the cluster runs, so an environment must be there."""
    found = Findings()
    if not cluster.hosts:
        return found
    cloud = cloud_of(cluster)
    with ThreadPoolExecutor(max_workers=min(16, len(cluster.hosts))) as pool:
        answers = list(pool.map(lambda address: _ask(cloud.host(cluster, address)), cluster.hosts))
    described: dict[str, Section] = {}
    for address, (node, problem, remedy) in zip(cluster.hosts, answers, strict=True):
        if node is None:
            found.error(address, problem, remedy)
        else:
            described[address] = node
            check_node(address, node, found, prepared=up)
    compare(described, found)
    return found


def _ask(host: Host) -> tuple[Section | None, str, str]:
    """Return (what the host says of itself, or what is wrong, and the remedy)."""
    asked = time.time()
    # The node's own Python where set-up has run, else whatever the system has: even that tells sizes, GPUs and clocks.
    answer = host.run('"$(command -v python || command -v python3)" -', stdin=PROBE.read_text(encoding="utf-8"))
    if answer.returncode != 0:
        text = " ".join(answer.stderr.split())[-200:] or f"exit code {answer.returncode}"
        return None, f"cannot be asked over SSH: {text}", f"try: ssh -i {host.key} {host.user}@{host.address}"
    try:
        described = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        what = "answers over SSH with something else than the probe's JSON"
        return None, what, "does its ~/.bashrc print or change directory?"
    described["skew_s"] = described["clock"] - (asked + time.time()) / 2
    return Section(described), "", ""


def check_node(where: str, node: Section, found: Findings, *, prepared: bool) -> None:
    """Check what one node says of itself. `prepared`: set-up has run there."""
    if "ray" not in node.section("versions"):
        if prepared:
            found.error(where, "Ray is not installed", "run `sst2-ray up`, its set-up installs it")
        else:
            found.ok(where, f"Python {node.text('python')}, Ray not installed yet: `sst2-ray up` does that")
    differing = node.texts("differing")
    if prepared and differing:
        what = f"{count(len(differing), 'package')} other than in the lock: {', '.join(differing[:3])}"
        found.error(where, what, _RENEW)
    token, skew = node.text("token"), node.number("skew_s") or 0.0
    if prepared and token not in ("600", "400", "env"):
        what = f"token {'missing' if not token else 'of mode ' + token}"
        found.error(where, what, "list ~/.ray/auth_token under file_mounts; set-up makes it 600")
    if abs(skew) > _MAX_CLOCK_SKEW_S:
        what = f"its clock is {skew:+.0f} s off: records would be out of order, object stores refuse requests"
        found.error(where, what, "switch time synchronization on (chrony)")
    _check_disk(where, node, found)
    shm = node.number("shm_gib") or 0.0
    if 0 < shm < 1:
        what = f"/dev/shm of {shm:g} GiB: Ray's object store falls back to the disk"  # nosec B108
        found.warning(where, what, "a quarter of the memory (docker: --shm-size)")
    check_gpus(where, node, found)


def _check_disk(where: str, node: Section, found: Findings) -> None:
    free = node.number("disk_free_gb") or 0.0
    needed = _WORKING_GB + (0.0 if "ray" in node.section("versions") else _ENVIRONMENT_GB)
    if free < _ROOMY_GB:
        tell = found.error if free < needed else found.warning
        remedy = f"{needed:g} GB at least, {_ROOMY_GB:g} with checkpoints and spilled objects"
        tell(where, f"{free:g} GB free in the home folder", remedy)


def check_gpus(where: str, node: Section, found: Findings) -> None:
    """Check driver, errors and clocks of a node's GPUs."""
    gpus, versions, before = node.sections("gpus"), node.section("versions"), len(found)
    for index, gpu in enumerate(gpus):
        if "problem" in gpu:
            remedy = "the driver is missing or broken: another image, or reboot"
            found.error(where, f"nvidia-smi fails: {gpu.text('problem')}", remedy)
            return
        if gpu.text("ecc.errors.uncorrected.volatile.total") not in ("0", "[N/A]", "[Not Supported]"):
            what = f"GPU {index} has uncorrected memory errors"
            found.error(where, what, "end this machine, the cloud replaces it")
        degrees = gpu.text("temperature.gpu")
        if degrees.isdigit() and int(degrees) > 85:
            what = f"GPU {index} is at {degrees} degrees and throttles"
            found.warning(where, what, "check its cooling, or another machine")
    if gpus and versions.get("cuda") == "cpu":
        remedy = "install torch from the index of your CUDA version"
        found.error(where, "torch is built for CPU, the GPUs would be idle", remedy)
    cuda, installed = _major(versions.text("cuda")), _major(gpus[0].text("driver_version")) if gpus else 0
    if installed and installed < _DRIVER_FOR_CUDA.get(cuda, 0):
        what = f"NVIDIA driver {installed} is too old for torch's CUDA {cuda}: the GPUs would not be found"
        found.error(where, what, f"driver {_DRIVER_FOR_CUDA[cuda]} or newer: another image, or update it")
    if gpus and len(found) == before:
        name, driver, clock = (gpus[0].text(key) for key in ("name", "driver_version", "clocks.max.sm"))
        found.ok(where, f"{len(gpus)} x {name}, driver {driver}, {clock} MHz at most")


def _major(version: str) -> int:
    return int(version.partition(".")[0]) if version[:1].isdigit() else 0


def compare(nodes: Mapping[str, Section], found: Findings) -> None:
    """Compare every node with the first (the head), and the head's Ray with this machine's."""
    ready = {where: node for where, node in nodes.items() if "ray" in node.section("versions")}
    if not ready:
        return
    (head_name, head), *others = ready.items()
    before, here, theirs = len(found), importlib.metadata.version("ray"), head.section("versions").text("ray")
    if theirs != here:
        remedy = f"install ray=={theirs} here, or run `sst2-ray up` once no job runs: it restarts Ray"
        found.error(head_name, f"Ray {theirs}, this machine has {here}", remedy)
    for where, node in others:
        _compare_with_head(where, node, head, found)
    for where, node in ready.items():
        source = node.text("source")
        if source and source != local_source_hash():
            what = f"has another state of the project ({source}, here {local_source_hash()}) for its spot watcher"
            found.warning(where, what, "replaced at the next `sst2-ray up`; jobs that run are not affected")
    if len(found) == before:
        versions = ", ".join(f"{name} {head.section('versions').text(name, 'none')}" for name in ("ray", *_SAME))
        python = head.text("python")
        found.ok("node versions", f"{len(ready)} of {len(nodes)} nodes: Python {python}, {versions}")


def _compare_with_head(where: str, node: Section, head: Section, found: Findings) -> None:
    mine, theirs = node.section("versions"), head.section("versions")
    kept_out = {"Python": (node.text("python"), head.text("python")), "Ray": (mine.text("ray"), theirs.text("ray"))}
    for name, (here, there) in kept_out.items():
        if here != there:
            found.error(where, f"{name} {here}, the head has {there}: Ray refuses the node", _RENEW)
    for name in _SAME:
        here, there = mine.text(name, "none"), theirs.text(name, "none")
        if here != there:
            found.error(where, f"{name} {here}, the head has {there}: workers would not compute the same", _RENEW)
