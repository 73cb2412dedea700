"""One folder on a local disk or an object store (s3://, gs://), through pyarrow.fs."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.fs as pafs

from sst2_ray.errors import InputError

RETRY_FOR_S = 120.0
"""Seconds of an outage that a run survives."""

_PROBE_BYTES = 1 << 16
"""Enough for a run's first files."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EINVAL)
_LASTING_WORDS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def _may_pass(error: OSError) -> bool:
    """Whether waiting can help: not where something is missing, forbidden or full."""
    lasting = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
    said = str(error)
    return not (isinstance(error, lasting) or error.errno in _LASTING or any(word in said for word in _LASTING_WORDS))


def _retried(method: _F) -> _F:
    """Retry transient errors with growing pauses, for `retry_for_s` seconds."""

    @functools.wraps(method)
    def attempt(self: Storage, *args: Any, **kwargs: Any) -> Any:
        deadline, wait = time.monotonic() + self.retry_for_s, _FIRST_WAIT_S
        while True:
            try:
                return method(self, *args, **kwargs)
            except OSError as error:
                if not _may_pass(error) or time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    return attempt  # type: ignore[return-value]


def absolute(uri: str) -> str:
    """What means the same storage from every folder: workers run in folders of their own."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())


def address(uri: str, name: str = "") -> str:
    """A storage path, or what lies below it, as tables and commands name it: absolute, with its scheme and options, without
    `user:secret@`."""
    head, question, options = uri.partition("?") if "://" in uri else (absolute(uri), "", "")
    return f"{without_secret(head).rstrip('/')}/{name}".rstrip("/") + question + options


def without_secret(uri: str) -> str:
    """Without `user:secret@`, for messages."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


@dataclass(frozen=True)
class Storage:
    """A folder; paths given to its methods are relative to it, use '/' and cannot leave it.

    retry_for_s: seconds for which an operation that fails for a reason that may pass is tried again.
    """

    filesystem: pafs.FileSystem
    root: str
    retry_for_s: float = 0.0

    @classmethod
    def open(cls, uri: str) -> Storage:
        """From a path or a URI. Raises InputError where the scheme is not one that pyarrow opens."""
        if "://" not in uri:
            return cls(pafs.LocalFileSystem(), absolute(uri))
        try:
            filesystem, path = pafs.FileSystem.from_uri(uri)
        except Exception as error:
            raise InputError(
                f"--storage-path {uri}: cannot be opened ({_line(error)}); use a folder, s3://... or gs://..."
            ) from None
        return cls(filesystem, path.rstrip("/"))

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def child(self, name: str) -> Storage:
        return dataclasses.replace(self, root=self.path(name))

    def with_retries(self, seconds: float = RETRY_FOR_S) -> Storage:
        """Return the same folder with transient errors retried for that many seconds."""
        return dataclasses.replace(self, retry_for_s=seconds)

    def path(self, name: str) -> str:
        """Raises InputError where `name` leads out of this folder."""
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"{name}: leads out of the storage folder {self.root}; use a name without '..'")
        return f"{self.root}/{name}"

    def probe(self) -> None:
        """Write and delete a small file. Raises InputError where that fails, on a full disk as well."""
        name = f".probe-{uuid.uuid4().hex}"
        created = [p for p in (Path(self.root), *Path(self.root).parents) if not p.exists()] if self.is_local else []
        try:
            self.write_bytes(name, bytes(_PROBE_BYTES))
            self.filesystem.delete_file(self.path(name))
            for folder in created:  # leave nothing behind: a run that is refused later must not have written
                folder.rmdir()
        except Exception as error:
            raise InputError(
                f"--storage-path {self.root}: cannot be written ({_line(error)}); choose a folder that every node can write to"
            ) from None

    @_retried
    def exists(self, name: str) -> bool:
        return self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound

    @_retried
    def read_bytes(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            data: bytes = stream.read()
        return data

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    @_retried
    def write_bytes(self, name: str, data: bytes) -> None:
        """The file appears whole or not at all: written beside and renamed on a disk, one PUT on an object store."""
        target = self.path(name)
        if not self.is_local:
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(data)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(target).parent / f".{Path(target).name}.{uuid.uuid4().hex}.partial"
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        folder = os.open(Path(target).parent, os.O_RDONLY)  # the rename, too, must survive a power cut
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, json.dumps(value, indent=1).encode())

    @_retried
    def retry(self, operation: Callable[[], _T]) -> _T:
        """Run `operation`, retrying transient storage errors; for libraries that read or write a path themselves."""
        return operation()

    @_retried
    def upload(self, source: Path, name: str) -> None:
        """Copy a local file or folder here, as it is."""
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
        """Copy a file from here to a local path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(
            self.path(name),
            str(target),
            source_filesystem=self.filesystem,
            destination_filesystem=pafs.LocalFileSystem(),
        )

    @_retried
    def list(self, name: str = "") -> list[str]:
        """Names directly below a folder; empty where it does not exist."""
        folder = self.path(name) if name else self.root
        infos = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return sorted(info.base_name for info in infos)

    @_retried
    def delete(self, name: str) -> None:
        """Delete a file or a folder; nothing happens where there is none."""
        info = self.filesystem.get_file_info(self.path(name))
        if info.type == pafs.FileType.Directory:
            self.filesystem.delete_dir(info.path)
        elif info.type == pafs.FileType.File:
            self.filesystem.delete_file(info.path)


def _line(error: BaseException) -> str:
    """The first line of an exception's message, or its class."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
