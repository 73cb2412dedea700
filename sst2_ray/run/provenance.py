"""Provenance of a trial's numbers: the code, the versions and the chip, as its row in the results table names them."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from sst2_ray import formatting
from sst2_ray.version import __version__, git_state

PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "deepspeed",
    "sentence-transformers",
    "tokenizers",
    "datasets",
    "pyarrow",
    "numpy",
    "flash-attn",
)
"""Distributions whose versions are recorded where they are installed."""


class Provenance(TypedDict):
    """The provenance fields of `TrialRecord`."""

    git_commit: str | None
    git_dirty: bool | None
    versions_json: str
    device: str
    chip: str


def collect_provenance(*, gpu_name: str | None = None, cuda_version: str | None = None) -> Provenance:
    """Collect what can be told without torch or ray.

    Args:
        gpu_name: model name of the worker's GPU; None: training runs on the CPU, whose name is looked up.
        cuda_version: CUDA version that torch was built for (`torch.version.cuda`).
    """
    commit, dirty = git_state(Path(__file__))
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "versions_json": json.dumps(package_versions(cuda_version=cuda_version)),
        "device": "cpu" if gpu_name is None else "cuda",
        "chip": gpu_name or cpu_name(),
    }


def package_versions(*, cuda_version: str | None = None) -> dict[str, str]:
    """Return the versions of this package, Python and `PACKAGES` from installed metadata; nothing is imported."""
    versions = {"sst2-ray": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if cuda_version:
        versions["cuda"] = cuda_version
    return versions


@functools.cache
def cpu_name() -> str:
    """Return the model name of the CPU with its number of cores, e.g. 'AMD EPYC 9R14 (8 cores)'."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found.group(1).strip() if found else name
    except OSError:
        pass  # not Linux: the platform's own name does
    num_cores = os.cpu_count() or 1
    return f"{name} ({formatting.count(num_cores, 'core')})"
