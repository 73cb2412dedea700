"""The home of the user, and one for user ids that nobody has, as containers run with: many libraries need one to be imported."""

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


def cache_folder() -> Path | None:
    """Return this user's folder for what can be made again; None: none can be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    for root in (home, Path(tempfile.gettempdir())):
        try:
            folder = root.expanduser().absolute() / f"sst2-ray-{os.getuid()}"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            is_own = folder.stat().st_uid == os.getuid()  # below /tmp anybody could have made it
        except (OSError, RuntimeError):
            continue
        if is_own and os.access(folder, os.W_OK):
            return folder
    return None


def is_temporary() -> bool:
    """Tell whether what is written below the home is lost at the end."""
    return Path.home().name.startswith(_PREFIX)


def _delete(home: str, pid: int) -> None:
    if os.getpid() == pid:  # not a process forked from it
        shutil.rmtree(home, ignore_errors=True)
