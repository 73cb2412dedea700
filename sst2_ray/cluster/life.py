"""Times after which the machines of a cluster file end by themselves: what its autostop commands say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from sst2_ray.cluster.file import ClusterFile
from sst2_ray.config.section import Section

DEFAULTS = {"--idle-minutes": 30.0, "--max-hours": 72.0}
"""Times of cluster/node/autostop.py where a command does not state them."""


def with_life(cluster: ClusterFile, limits: Mapping[str, float]) -> ClusterFile:
    """Return the file with other times after which its machines end by themselves.

    Args:
        cluster: the file.
        limits: by names of `DEFAULTS`, 0: never; what is not named is as the file says.
    """
    if not limits:
        return cluster
    document = dict(cluster.document.raw)
    for key in ("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        role = "worker" if key.startswith("worker") else "head"
        commands = cluster.document.texts(key)
        for flag, value in limits.items():
            commands = [re.sub(rf"(autostop\.sh .*{flag})[= ]\S+", rf"\1 {value:g}", text) for text in commands]
            if role == "head" or flag == "--max-hours":  # only the head's watch counts idle minutes
                stated = rf"(autostop\.sh {role}\b)(?!.*{flag})"
                commands = [re.sub(stated, rf"\1 {flag} {value:g}", text) for text in commands]
        if commands:
            document[key] = commands
    return replace(cluster, document=Section(document))


def life(cluster: ClusterFile, flag: str) -> float | None:
    """Return a time of the head's autostop (--idle-minutes, --max-hours), None where the file has none."""
    found = re.search(
        rf"autostop\.sh head .*{flag}[= ]([0-9.]+)", " ; ".join(cluster.document.texts("head_start_ray_commands"))
    )
    if found:
        return float(found[1]) or None
    watches = any("autostop.sh head" in text for text in cluster.document.texts("head_start_ray_commands"))
    return DEFAULTS[flag] if watches else None
