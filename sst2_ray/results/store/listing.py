"""What lies in a folder of the table, and how its files are opened, so that a reader never sees half of one."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from sst2_ray.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in a folder."""

    name: str
    num_bytes: int
    is_file: bool


def entries(storage: Storage, folder: str) -> list[Entry]:
    """By name, without hidden things (files that are being written are hidden); empty where there is no such folder."""
    selector = pafs.FileSelector(storage.path(folder), allow_not_found=True)
    found = [
        Entry(name=info.base_name, num_bytes=info.size or 0, is_file=info.type == pafs.FileType.File)
        for info in storage.filesystem.get_file_info(selector)
        if info.base_name and not info.base_name.startswith((".", "_"))
    ]
    return sorted(found, key=lambda entry: entry.name)


def read_buffer(storage: Storage, relative: str) -> pa.Buffer:
    """A whole file. Raises FileNotFoundError."""
    with storage.filesystem.open_input_file(storage.path(relative)) as stream:
        return stream.read_buffer(stream.size())


def open_stable(storage: Storage, relative: str) -> pa.NativeFile:
    """A file that may be replaced while it is being read. Raises FileNotFoundError.

    A local file stays what it was once it is open. From an object store it is fetched whole, in one request: fetching
    its parts one by one could mix two versions.
    """
    if storage.is_local:
        return pa.memory_map(storage.path(relative))
    return pa.BufferReader(read_buffer(storage, relative))
