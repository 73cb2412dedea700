"""Checks that several places share: locations, and machine types against the table of sizes."""

from __future__ import annotations

import difflib
import functools
import json
from pathlib import Path

from sst2_ray.cluster.file import NodeType
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import Machine


@functools.cache
def places(kind: str) -> tuple[str, ...]:
    """Return the locations of a kind in places.json."""
    return tuple(json.loads((Path(__file__).parents[1] / "places.json").read_text())[kind])


def check_place(where: str, name: str, kind: str, found: Findings) -> None:
    """Check a region against the list of those that exist: near one it is a misspelling, else it may be newer than the list."""
    if name in places(kind):
        return
    near = difflib.get_close_matches(name, places(kind), n=3, cutoff=0.75)
    if near:
        found.error(where, f"{name!r} does not exist", f"did you mean {' or '.join(near)}?")
    else:
        found.warning(where, f"{name!r} is not among the locations known here", "is it spelled right?")


def check_machine(where: str, machine: Machine | None, name: str, node_type: NodeType, found: Findings) -> None:
    """Check GPU count, age of the GPU and memory. `machine`: None where the table does not hold the type."""
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
