"""The version of this package, and the commit of its code."""

from __future__ import annotations

import os
import subprocess  # nosec B404: git, never through a shell
from pathlib import Path

__version__ = "0.1.0"

COMMIT_VARIABLE = "SST2_RAY_GIT_COMMIT"
"""Environment variable with the commit of code that was uploaded without .git; `-dirty` at its end: it was changed."""

_GIT_TIMEOUT_S = 10


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
