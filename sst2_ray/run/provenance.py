"""Provenance of a trial's numbers: the code, the versions and the chip, as its row in the results table names them."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from sst2_ray import formatting
from sst2_ray.version import __version__

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

COMMIT_VARIABLE = "SST2_RAY_GIT_COMMIT"
"""Environment variable with the commit of code that was uploaded without .git; `-dirty` at its end: it was changed."""

_GIT_TIMEOUT_S = 10


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


def git_state(file: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout that a file belongs to, and whether the checkout has uncommitted changes.

    A file that is not under version control itself, such as an installed package in somebody else's checkout, is not given
    that project's commit: `COMMIT_VARIABLE` counts, else (None, None).
    """
    folder = file.resolve().parent
    tracked = _git(folder, "ls-files", "--error-unmatch", file.name)
    commit = _git(folder, "rev-parse", "HEAD") if tracked is not None else None
    if commit is None:
        given = os.environ.get(COMMIT_VARIABLE)
        return (given.removesuffix("-dirty"), given.endswith("-dirty")) if given else (None, None)
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    """Run a git command; return its output, None where it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


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
