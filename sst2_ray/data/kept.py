"""Results of reading and tokenizing, kept below the user's cache folder: the same data are not read and tokenized twice.

An entry is a folder, complete as soon as it has its name, a digest of all that it follows from: the bytes of the files, the
settings, the code that worked on them. Whoever deletes one loses nothing but time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from sst2_ray.home import cache_folder

T = TypeVar("T")

SWITCH = "SST2_RAY_KEEP_DATA"
"""0: nothing is kept, and nothing that was kept is read."""

MOST_BYTES = 20 * 2**30
"""All entries together; those not used for the longest time go first."""

LEAST_FREE_BYTES = 5 * 2**30
"""Free space of the disk below which nothing more is kept."""

_UNFINISHED = "new-"
"""Beginning of the name of an entry that is being written."""

_IN_USE_S = 86_400.0
"""Seconds after its last use in which an entry is not deleted: a run may have mapped it, on another machine of this home."""

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)
"""What reading an entry raises that a full disk or a power cut has left in part; most of Arrow's errors are among them."""

_KEEPS: ContextVar[bool] = ContextVar("keeps", default=True)


def digest_of(value: object, *, code: Iterable[Path], files: Iterable[Path] = ()) -> str:
    """Hash plain values, source files, and the names and bytes of data files. Raises OSError where one cannot be read."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode())
    for path in (*sorted(code), *files):
        with path.open("rb") as file:
            digest.update(b"\0" + path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def read_kept(key: str, load: Callable[[Path], T]) -> T | None:
    """Return what `load` makes of an entry's folder; None: there is none, or it is damaged and was deleted."""
    root = _root()
    if root is None or not (root / key).is_dir():
        return None
    try:
        found = load(root / key)
    except (OSError, *_DAMAGED) as error:
        # Too many open files, or too little memory, are no fault of the entry, which another process may be reading.
        if not isinstance(error, OSError) or error.errno in (None, errno.ENOENT):
            shutil.rmtree(root / key, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):  # the time of its last use
        os.utime(root / key)
    return found


def keep(key: str, save: Callable[[Path], None]) -> bool:
    """Make an entry of what `save` writes into a folder; False where it is not kept: it is switched off, or the disk is full."""
    root = _root() if _KEEPS.get() else None
    try:
        if root is None or shutil.disk_usage(root).free < LEAST_FREE_BYTES:
            return False
        scratch = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
    except OSError:  # a quota, or no inodes
        return False
    try:
        save(scratch)
        scratch.rename(root / key)
    except OSError:  # full, or another process was faster
        shutil.rmtree(scratch, ignore_errors=True)
    except BaseException:  # what `save` refuses, or Ctrl-C
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _make_room(root, but=key)
    return (root / key).is_dir()


@contextlib.contextmanager
def keeping_nothing() -> Iterator[None]:
    """Keep nothing new: for what says that it writes nothing."""
    token = _KEEPS.set(False)
    try:
        yield
    finally:
        _KEEPS.reset(token)


def _root() -> Path | None:
    """Return the folder of all entries; None: nothing is kept."""
    folder = None if os.environ.get(SWITCH) == "0" else cache_folder()
    if folder is None:
        return None
    with contextlib.suppress(OSError):
        (folder / "data").mkdir(exist_ok=True, mode=0o700)
        return folder / "data"
    return None


def _make_room(root: Path, *, but: str) -> None:
    """Delete the entries that were not used for the longest time, until the rest is small enough; none that is in use."""
    with contextlib.suppress(OSError):  # another process does the same
        used = {path: path.stat().st_mtime for path in root.iterdir() if path.name != but}
        for entry in [path for path in used if path.name.startswith(_UNFINISHED)]:
            del used[entry]
            newest = max((path.stat().st_mtime for path in (entry, *entry.rglob("*"))), default=0.0)
            if newest < time.time() - _IN_USE_S:  # its process was killed
                shutil.rmtree(entry, ignore_errors=True)
        room = MOST_BYTES - _size(root / but)
        for entry in sorted(used, key=lambda path: -used[path]):
            room -= _size(entry)
            if room < 0 and used[entry] < time.time() - _IN_USE_S:
                shutil.rmtree(entry, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*"))
