"""Checks that several places share: locations, and machine types against the table of sizes."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import json
import re
import subprocess  # nosec B404: bash reads a script, and runs nothing
from collections.abc import Iterable
from pathlib import Path

from sst2_ray.cluster.file import NodeType, shipped
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import Machine
from sst2_ray.config.section import Section

Limits = dict[str, tuple[float, float] | None]
"""Least and largest value by key; None: the key is not taken."""

Harmful = tuple[str, str, str]
"""Pattern of what must not stand in a text, its harm, the remedy."""


@functools.cache
def places(kind: str) -> tuple[str, ...]:
    """Return the locations of a kind in places.json."""
    return tuple(json.loads((Path(__file__).parents[1] / "places.json").read_text())[kind])


def check_harmful(where: str, text: str, harmful: Iterable[Harmful], found: Findings, *, prefix: str = "") -> None:
    """Add an error for each pattern that `text` matches. `prefix`: of the harm, where several texts stand at one place."""
    for pattern, harm, remedy in harmful:
        if re.search(pattern, text):
            found.error(where, f"{prefix}{harm}", remedy)


def check_place(where: str, name: str, kind: str, found: Findings) -> None:
    """Check a region against the list of those that exist: near one it is a misspelling, else it may be newer than the list."""
    if name in places(kind):
        return
    near = difflib.get_close_matches(name, places(kind), n=3, cutoff=0.75)
    if near:
        found.error(where, f"{name!r} does not exist", f"did you mean {' or '.join(near)}?")
    else:
        found.warning(where, f"{name!r} is not among the locations known here", "is it spelled right?")


def check_machine(
    where: str, machine: Machine | None, name: str, node_type: NodeType, found: Findings, *, may_have_gpu: bool = True
) -> None:
    """Check GPU count, age of the GPU and memory.

    `machine`: None where the table does not hold the type; `may_have_gpu`: types of this family have GPUs.
    """
    if machine is None and not may_have_gpu and not node_type.is_head:
        declared = node_type.resources.number("GPU") or 0
        what = f"{name} has no GPU: " + (f"resources declare {declared:g}" if declared else "training runs on its CPUs")
        add = found.error if declared else found.warning
        add(where, what, "choose a machine with a GPU unless that is meant")
    if machine is None:
        what = f"{name} exists but is not in the table of prices: its GPUs, memory and cost are not checked"
        found.warning(where, what, "give --price-per-hour for the cost")
        return
    before = len(found)
    if node_type.is_head:
        _check_head(where, machine, found)
    else:
        _check_worker(where, machine, node_type, found)
    if machine.gpus and not machine.bf16:
        what = f"{machine.gpu} has neither bf16 nor fused attention: fp32, several times slower"
        found.warning(where, what, "L4, A10, A100 and newer have them")
    if len(found) == before:
        gpu = f"{machine.gpus} {machine.gpu}, " if machine.gpus else ""
        found.ok(where, f"{name}: {gpu}{machine.cpus} CPUs, {machine.memory_gib:g} GiB")


def _check_head(where: str, machine: Machine, found: Findings) -> None:
    if machine.gpus:
        what = f"the head is a GPU machine ({machine.gpus} {machine.gpu}), paid from `up` to `down`"
        found.warning(where, what, "a small machine without GPU does")
    if machine.memory_gib < 8:
        found.warning(where, f"{machine.memory_gib:g} GiB for Ray's services and the drivers", "16 GiB do")


def _check_worker(where: str, machine: Machine, node_type: NodeType, found: Findings) -> None:
    gpus, cpus = node_type.resources.whole("GPU"), node_type.resources.whole("CPU")
    if gpus is not None and gpus != machine.gpus:
        what = f"{machine.name} has {machine.gpus} GPUs, resources declare {gpus}: runs would wait for ever or leave GPUs idle"
        found.error(where, what, f"set resources.GPU to {machine.gpus}")
    if not machine.gpus:
        what = f"{machine.name} has no GPU: training runs on its CPUs"
        found.warning(where, what, "choose a machine with a GPU unless that is meant")
    if cpus is not None and cpus > machine.cpus:
        what = f"{machine.name} has {machine.cpus} CPUs, resources declare {cpus}"
        found.error(where, what, f"set resources.CPU to {machine.cpus}")


def check_limits(section: Section, limits: Limits, what: str, found: Findings) -> None:
    """Check numbers against a table of limits."""
    for key, bounds in limits.items():
        value = section.number(key)
        if key in section and bounds is None:
            found.error(section.at(key), f"{what} takes no {key}: the launch is refused", "remove it")
        elif value is not None and bounds is not None and not bounds[0] <= value <= bounds[1]:
            found.error(
                section.at(key), f"{value:g}: {what} takes {bounds[0]:g} to {bounds[1]:g}", "a value in between"
            )


@functools.cache
def nodes_python() -> str:
    """Return the version of Python, e.g. 3.11, that the lock of the nodes is made for; empty where it does not lie here."""
    path = shipped("cluster/node/lock.sh")
    found = re.search(r"--python-version (\d+\.\d+)", path.read_text(encoding="utf-8")) if path.is_file() else None
    return found[1] if found else ""


def check_image_tag(where: str, image: str, found: Findings) -> None:
    """Check the versions that the tag of one of Ray's images (rayproject/ray) names: Ray refuses others beside it."""
    ray = re.search(r"(?:^|/)rayproject/ray(?:-ml)?:(\d+\.\d+\.\d+)", image)
    python = re.search(r":[^/]*-py(\d)(\d+)\b", image)
    here = importlib.metadata.version("ray")
    if ray and ray[1] != here:
        found.error(where, f"{image} has Ray {ray[1]}, this project runs on {here}", f"rayproject/ray:{here}-...")
    if python and nodes_python() not in ("", f"{python[1]}.{python[2]}"):
        what = f"{image} has Python {python[1]}.{python[2]}, the packages are locked for {nodes_python()}"
        found.error(where, what, f"an image with py{nodes_python().replace('.', '')}")


def check_gpu_image(where: str, image: str, found: Findings) -> None:
    """Check that one of Ray's images is one for GPUs, with a CUDA that its driver's age allows."""
    if re.search(r"rayproject/ray[\w-]*:\S*-cpu$|rayproject/ray[\w-]*:[\d.]+(-py\d+)?$", image):
        found.warning(where, f"{image} is the image for machines without a GPU", "the tag with -gpu")
    cuda = re.search(r"rayproject/ray[\w-]*:\S*-cu(\d{2})\d", image)
    if cuda and int(cuda[1]) < 12:
        found.error(where, f"{image}: CUDA {cuda[1]} is older than what torch is built for", "the tag with -gpu")


def check_shell(where: str, script: str, found: Findings) -> None:
    """Check that the shell can read a script: its first line, the ends of its lines, and its grammar."""
    if "\r" in script:
        what = "lines end as on Windows (CRLF): the shell takes the last letter for a part of each command"
        found.error(where, what, "sed -i 's/\\r$//' FILE")
        return
    if not script.startswith("#!"):
        found.error(where, "has no interpreter in its first line", "#!/usr/bin/env bash")
    try:
        read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)  # nosec B603 B607
    except OSError:  # no bash here
        return
    if read.returncode != 0:
        problem = " ".join(read.stderr.split())[:160]
        found.error(where, f"the shell cannot read it: {problem}", "correct the line")
