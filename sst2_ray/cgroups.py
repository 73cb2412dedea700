"""Cores and memory that this process may use: the machine's, less what its affinity and its cgroups leave out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def num_usable_cpus() -> int:
    """Return the whole cores that this process may compute on, at least 1.

    The machine's, less what its affinity (taskset, Slurm) and the quota of its cgroup (a container) leave out.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, cgroup_cpu_quota())))


def cgroup_cpu_quota(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Return the cores that the process's cgroup and those above it grant; infinity where there is no limit."""
    quotas = (_cpu_quota(folder) for folder in _cgroups("cpu", root, own))
    return min((quota for quota in quotas if quota is not None), default=math.inf)


def memory_limit(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """Return the least memory, in bytes, that a cgroup below the topmost one grants; None where none limits it.

    Ray reads the topmost one itself.
    """
    limits = (
        _number(folder / name)
        for folder in _cgroups("memory", root, own)
        if folder not in (root, root / "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    )
    found = min((limit for limit in limits if limit is not None), default=math.inf)
    return int(found) if found < _physical_memory() else None


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yield the process's cgroup folders, innermost first: of version 2 below `root`, of version 1 below `root`/CONTROLLER."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder == top or top in folder.parents)


def _cpu_quota(folder: Path) -> float | None:
    """Read one cgroup's cores: cpu.max (version 2), or cpu.cfs_quota_us and cpu.cfs_period_us (version 1)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota) / float(period) if quota != "max" else None
    except (OSError, ValueError):
        quota_us, period_us = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _number(file: Path) -> int | None:
    """Read a file of a cgroup; None where it holds no number."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
