"""A home for user ids that nobody has, as containers run with: many libraries cannot be imported without one."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "sst2-ray-home-"


def have_a_home() -> None:
    """Give a process without HOME, of a user that has none, a private folder as its home; it is deleted at the end."""
    try:
        Path.home()
    except RuntimeError:
        home = tempfile.mkdtemp(prefix=_PREFIX)
        atexit.register(_delete, home, os.getpid())
        os.environ["HOME"] = home
        os.environ.setdefault("LOGNAME", f"uid{os.getuid()}")


def is_temporary() -> bool:
    """Tell whether what is written below the home is lost at the end."""
    return Path.home().name.startswith(_PREFIX)


def _delete(home: str, pid: int) -> None:
    if os.getpid() == pid:  # not a process forked from it
        shutil.rmtree(home, ignore_errors=True)
