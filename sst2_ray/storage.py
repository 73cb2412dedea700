"""One folder on a local disk or an object store (s3://, gs://), through pyarrow.fs."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from sst2_ray.errors import InputError


@dataclass(frozen=True)
class Storage:
    """A folder; paths given to its methods are relative to it and use '/'."""

    filesystem: pafs.FileSystem
    root: str

    @classmethod
    def open(cls, uri: str) -> Storage:
        """From a path or a URI. Raises InputError where the scheme is not one that pyarrow opens."""
        if "://" not in uri:
            return cls(pafs.LocalFileSystem(), str(Path(uri).expanduser().resolve()))
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
        return Storage(self.filesystem, f"{self.root}/{name}")

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def probe(self) -> None:
        """Write and delete a small file. Raises InputError where that fails."""
        name = f".probe-{uuid.uuid4().hex}"
        created = [p for p in (Path(self.root), *Path(self.root).parents) if not p.exists()] if self.is_local else []
        try:
            self.write_bytes(name, b"")
            self.filesystem.delete_file(self.path(name))
            for folder in created:  # leave nothing behind: a run that is refused later must not have written
                folder.rmdir()
        except Exception as error:
            raise InputError(
                f"--storage-path {self.root}: cannot be written ({_line(error)}); choose a folder that every node can write to"
            ) from None

    def exists(self, name: str) -> bool:
        return self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound

    def read_bytes(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            data: bytes = stream.read()
        return data

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

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

    def download(self, name: str, target: Path) -> None:
        """Copy a file from here to a local path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(
            self.path(name),
            str(target),
            source_filesystem=self.filesystem,
            destination_filesystem=pafs.LocalFileSystem(),
        )

    def list(self, name: str = "") -> list[str]:
        """Names directly below a folder; empty where it does not exist."""
        folder = self.path(name) if name else self.root
        infos = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return sorted(info.base_name for info in infos)

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
