"""Folders on a local disk or an object store (s3://, gs://), through pyarrow.fs."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar

import pyarrow.fs as pafs

from sst2_ray.errors import InputError, first_line
from sst2_ray.formatting import without_secret
from sst2_ray.uris import open_uri

RETRY_FOR_S = 120.0
"""Seconds of an outage that a run survives, unless its config says another number."""

_PROBE_BYTES = 1 << 16
"""Size of the file that is written to find out whether a folder can be written; enough for a run's first files."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EINVAL)
_LASTING_WORDS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")

P = ParamSpec("P")
T = TypeVar("T")


def _may_pass(error: OSError) -> bool:
    """Tell if a later try may succeed: not if something is missing, forbidden or full."""
    lasting = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
    said = str(error)
    return not (isinstance(error, lasting) or error.errno in _LASTING or any(word in said for word in _LASTING_WORDS))


def _retried(method: Callable[Concatenate[Storage, P], T]) -> Callable[Concatenate[Storage, P], T]:
    """Retry transient errors with growing pauses, for `retry_for_s` seconds."""

    @functools.wraps(method)
    def retrying(self: Storage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        deadline, wait = time.monotonic() + self.retry_for_s, _FIRST_WAIT_S
        while True:
            try:
                return method(self, *args, **kwargs)
            except OSError as error:
                if not _may_pass(error) or time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    return retrying


def absolute(uri: str) -> str:
    """Make a storage path absolute, since workers run in folders of their own; a URI stays as it is."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())


def address(uri: str, name: str = "") -> str:
    """Return the address of a storage path, or of a name below it, for tables and messages.

    It is absolute and keeps the scheme and options of a URI, without `user:secret@`.
    """
    head, question, options = without_secret(uri).partition("?") if "://" in uri else (absolute(uri), "", "")
    return f"{head.rstrip('/')}/{name}".rstrip("/") + question + options


def typed(path: str) -> str:
    """Return a path or URI as one would type it: relative if it lies below the current folder."""
    below = "://" not in path and Path(path).is_relative_to(Path.cwd())
    return str(Path(path).relative_to(Path.cwd())) if below else path


@dataclass(frozen=True)
class Storage:
    """A folder. Paths given to its methods are relative to it, use '/' and cannot leave it."""

    filesystem: pafs.FileSystem
    root: str
    retry_for_s: float = 0.0
    """Seconds for which a transient error of an operation is retried."""

    @classmethod
    def open(cls, uri: str, flag: str = "--storage-path") -> Storage:
        """Open a path or a URI. Raises InputError, which begins with `flag`, for a scheme that pyarrow does not know."""
        if "://" not in uri:
            return cls(pafs.LocalFileSystem(), absolute(uri))
        if "#" in uri:  # what follows would be dropped, and another folder opened
            raise InputError(f"{flag} {without_secret(uri)}: '#' cannot stand in a URI; write %23")
        try:
            filesystem, path = open_uri(uri)
        except Exception as error:
            raise InputError(
                f"{flag} {without_secret(uri)}: cannot be opened ({first_line(error)}); use a folder, s3://... or gs://..."
            ) from None
        return cls(filesystem, path.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Tell a local folder from an object store."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def child(self, name: str) -> Storage:
        """Return a folder below this one."""
        return dataclasses.replace(self, root=self.path(name))

    def with_retries(self, seconds: float = RETRY_FOR_S) -> Storage:
        """Return the same folder with transient errors retried for that many seconds."""
        return dataclasses.replace(self, retry_for_s=seconds)

    def path(self, name: str) -> str:
        """Return the path of `name` on the file system. Raises InputError if it leads out of this folder."""
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"{name}: leads out of the storage folder {self.root}; use a name without '..'")
        return f"{self.root}/{name}"

    def probe(self, flag: str = "--storage-path") -> None:
        """Write and delete a small file. Raises InputError, which begins with `flag`, if that fails, also on a full disk."""
        name = f".probe-{uuid.uuid4().hex}"
        created = [p for p in (Path(self.root), *Path(self.root).parents) if not p.exists()] if self.is_local else []
        try:
            self.write_bytes(name, bytes(_PROBE_BYTES))
            self.filesystem.delete_file(self.path(name))
            with contextlib.suppress(OSError):  # another run has begun there meanwhile
                for folder in created:  # a run that is refused later must leave nothing behind
                    folder.rmdir()
        except Exception as error:
            raise InputError(
                f"{flag} {self.root}: cannot be written ({first_line(error)}); choose a folder that every node can write to"
            ) from None

    @_retried
    def exists(self, name: str) -> bool:
        """Tell if a file or folder exists."""
        return self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound

    @_retried
    def read_bytes(self, name: str) -> bytes:
        """Read a file."""
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            data: bytes = stream.read()
        return data

    def read_json(self, name: str) -> Any:
        """Read a JSON file."""
        return json.loads(self.read_bytes(name))

    @_retried
    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file that appears whole or not at all: a rename on a disk, one PUT on an object store."""
        target = self.path(name)
        if not self.is_local:
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(data)
            return
        partial = Path(target).parent / f".{Path(target).name}.{uuid.uuid4().hex}.partial"
        try:
            with _opened(partial) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        folder = os.open(Path(target).parent, os.O_RDONLY)  # the rename must survive a power cut as well
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file, whole or not at all."""
        self.write_bytes(name, json.dumps(value, indent=1).encode())

    @_retried
    def retry(self, operation: Callable[[], T]) -> T:
        """Run `operation`, retrying transient storage errors; for libraries that read or write a path themselves."""
        return operation()

    @_retried
    def upload(self, source: Path, name: str) -> None:
        """Copy a local file or folder into this folder."""
        if source.is_dir():
            self.filesystem.create_dir(self.path(name), recursive=True)
            for file in sorted(source.rglob("*")):
                if file.is_file():
                    self.upload(file, f"{name}/{file.relative_to(source).as_posix()}")
            return
        if self.is_local:
            Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(
            str(source),
            self.path(name),
            source_filesystem=pafs.LocalFileSystem(),
            destination_filesystem=self.filesystem,
        )

    @_retried
    def download(self, name: str, target: Path) -> None:
        """Copy a file or folder of this folder to a local path."""
        is_folder = self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.Directory
        (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
        pafs.copy_files(
            self.path(name),
            str(target),
            source_filesystem=self.filesystem,
            destination_filesystem=pafs.LocalFileSystem(),
        )

    @_retried
    def list(self, name: str = "") -> list[str]:
        """List the names directly below a folder; empty if it does not exist."""
        folder = self.path(name) if name else self.root
        infos = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return sorted(info.base_name for info in infos)

    @_retried
    def delete(self, name: str) -> None:
        """Delete a file or a folder, if it exists."""
        info = self.filesystem.get_file_info(self.path(name))
        if info.type == pafs.FileType.Directory:
            self.filesystem.delete_dir(info.path)
        elif info.type == pafs.FileType.File:
            self.filesystem.delete_file(info.path)


def _opened(path: Path) -> BinaryIO:
    """Open a new file in a folder that is made if need be, also where another run's probe is just taking it away."""
    for _ in range(20):
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("wb")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")
