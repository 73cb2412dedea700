"""Upload of a submitted job: its files, their sizes, and the secrets among them. Sizes are known before anything is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sst2_ray import formatting
from sst2_ray.cluster.ray_private import upload_filters
from sst2_ray.cluster.secret_scan import secret_in_file
from sst2_ray.errors import InputError, first_line

# The dashboard answers 413 above this, whatever Ray's own packaging allows.
MAX_UPLOAD_BYTES = 100 * 2**20
MAX_ENTRIES = 50_000
"""Files and folders that are looked at: a folder with more is a home, an environment, or links that multiply."""

# Left out whatever the ignore files say: results and environments, never needed by a job.
DEFAULT_EXCLUDES = (
    ".git", ".venv", "venv", "__pycache__", "runs", "report", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
)  # fmt: skip
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)
_SYSTEM = (("proc",), ("sys",), ("dev",))


@dataclass(frozen=True, kw_only=True)
class UploadedFile:
    """A file of the upload."""

    path: str
    """Relative to the working directory."""
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A working directory as Ray would package it."""

    folder: Path
    excludes: tuple[str, ...]
    files: tuple[UploadedFile, ...]
    problems: tuple[str, ...] = ()
    """Paths that cannot be packaged, each with its reason."""
    outside: tuple[str, ...] = ()
    """Links that lead out of the folder: what they lead to is uploaded."""

    @property
    def total_bytes(self) -> int:
        """Return the bytes before compression."""
        return sum(file.size for file in self.files)

    def largest(self, count: int = 3) -> list[UploadedFile]:
        """Return the `count` largest files, largest first."""
        return sorted(self.files, key=lambda file: (-file.size, file.path))[:count]

    @property
    def digest(self) -> str:
        """Return SHA-256 over paths and contents: the same for the same files, whatever their times."""
        return self._read[0]

    @property
    def secrets(self) -> tuple[tuple[str, str], ...]:
        """Return (path, why) of every file that must not leave this machine."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        digest, found = hashlib.sha256(), []
        for file in self.files:
            try:
                content = (self.folder / file.path).read_bytes()
            except OSError as error:
                raise InputError(
                    f"{shown(file.path)}: cannot be read ({error.strerror}); it was there a moment ago: submit again"
                ) from None
            digest.update(f"{file.path}\0{len(content)}\0".encode())
            digest.update(content)
            reason = secret_in_file(file.path, content)
            if reason:
                found.append((file.path, reason))
        return digest.hexdigest(), tuple(found)


def list_upload(folder: str | Path, excludes: Sequence[str] = ()) -> Upload:
    """List what `folder` would upload, with .gitignore and .rayignore honored, without reading it. Raises InputError for no folder."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise InputError(f"--working-dir {folder}: no such folder; the repository's root is what the jobs expect")
    walk = _Walk(root, (*DEFAULT_EXCLUDES, *excludes))
    files = tuple(sorted(walk.files(), key=lambda file: file.path))
    return Upload(
        folder=root, excludes=walk.excludes, files=files, problems=tuple(walk.problems), outside=tuple(walk.outside)
    )


def check_upload(upload: Upload) -> None:
    """Refuse what must not, or cannot, be uploaded. Raises InputError."""
    if upload.problems:
        raise InputError(f"cannot be uploaded: {_some(upload.problems)}; name them in .rayignore or pass --exclude")
    if not upload.files:
        raise InputError(
            f"--working-dir {upload.folder}: nothing to upload, everything is ignored; look at .gitignore and .rayignore"
        )
    if upload.total_bytes > MAX_UPLOAD_BYTES:
        big = ", ".join(f"{shown(file.path)} ({formatting.size(file.size)})" for file in upload.largest())
        raise InputError(
            f"the upload is {formatting.size(upload.total_bytes)}, the job server takes {formatting.size(MAX_UPLOAD_BYTES)}; "
            f"the largest: {big}; name them in .rayignore or pass --exclude, and put data on shared storage"
        )
    if upload.secrets:
        named = _some([f"{shown(path)} ({why})" for path, why in upload.secrets])
        raise InputError(f"refused, the upload would hold secrets: {named}; name them in .rayignore or pass --exclude")


def shown(name: str) -> str:
    """Return a file's name as one line of a terminal may hold it: without control characters, or bytes that are not UTF-8."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _some(items: Sequence[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


@dataclass
class _Walk:
    """A walk as Ray's packaging makes it, with Ray's own filters, that names what Ray would hang on or fail at."""

    root: Path
    excludes: tuple[str, ...]
    problems: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    entries: Counter[str] = field(default_factory=Counter)
    """Files and folders below each of the root's own."""
    num_entries: int = 0

    def files(self) -> Iterator[UploadedFile]:
        """Yield every file that would be packaged. Raises InputError for patterns that are none, and for too many files."""
        try:
            self._filters = upload_filters(self.root, list(self.excludes))
        except Exception as error:  # of Ray's own parser
            raise InputError(f"--exclude: {first_line(error)}; patterns are those of .gitignore") from None
        yield from self._below(self.root, (), ())

    def _below(
        self, folder: Path, above: Sequence[Callable[[Path], bool]], parents: tuple[Path, ...]
    ) -> Iterator[UploadedFile]:
        parents = (*parents, folder.resolve())
        try:
            filters = [*above, *self._filters(folder)]
        except Exception as error:  # of Ray's own parser, which ends its packaging as well
            self._problem(folder, f"its .gitignore or .rayignore cannot be read: {first_line(error)}")
            return
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            self._problem(folder, f"cannot be opened: {error.strerror}")
            return
        for path in paths:
            # A folder's own ignore files hold for itself, too: Ray asks them before it descends.
            if any(left_out(path) for left_out in filters):
                continue
            self._count(path)
            name = self._name(path)
            if path.is_symlink() and name is not None and not self._follow(path, parents):
                continue
            if path.is_dir() and name is not None:
                yield from self._below(path, filters, parents)
            elif name is not None:
                yield from self._file(path, name)

    def _count(self, path: Path) -> None:
        self.num_entries += 1
        self.entries[path.relative_to(self.root).parts[0]] += 1
        if self.num_entries > MAX_ENTRIES:
            most = ", ".join(f"{shown(name)} ({count:,})" for name, count in self.entries.most_common(3))
            raise InputError(
                f"--working-dir {self.root}: more than {MAX_ENTRIES:,} files and folders, most of them below {most}; name them in "
                ".rayignore or pass --exclude"
            )

    def _name(self, path: Path) -> str | None:
        name = path.relative_to(self.root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            self._problem(path, "its name is not UTF-8")
            return None
        return name

    def _follow(self, path: Path, parents: tuple[Path, ...]) -> bool:
        """Return True where a link leads to something to package."""
        try:
            target = path.resolve(strict=True)
        except FileNotFoundError:
            return False  # Ray leaves out what leads nowhere
        except (OSError, RuntimeError):
            self._problem(path, "a link that leads to itself")
            return False
        if target.is_dir() and (target in parents or parents[-1].is_relative_to(target)):
            self._problem(path, "a link to a folder above it: an endless loop")
            return False
        if target.parts[1:2] in _SYSTEM:
            self._problem(path, f"a link into /{target.parts[1]}, which holds no files")
            return False
        if not target.is_relative_to(self.root):
            self.outside.append(path.relative_to(self.root).as_posix())
        return True

    def _file(self, path: Path, name: str) -> Iterator[UploadedFile]:
        try:
            status = path.stat()
        except OSError as error:  # gone since the folder was listed
            self._problem(path, f"cannot be looked at: {error.strerror}")
            return
        kind = next((what for test, what in _KINDS if test(status.st_mode)), None)
        if kind:
            self._problem(path, kind)
        elif not os.access(path, os.R_OK):
            self._problem(path, "not readable by you")
        else:
            yield UploadedFile(path=name, size=status.st_size)

    def _problem(self, path: Path, why: str) -> None:
        self.problems.append(f"{shown(path.relative_to(self.root).as_posix())} ({why})")
