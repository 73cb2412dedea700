"""Upload of a submitted job: its files, their sizes, and the secrets among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sst2_ray import formatting
from sst2_ray.cluster.ray_private import upload_filters
from sst2_ray.cluster.secret_scan import secret_in_file
from sst2_ray.errors import InputError

# The dashboard answers 413 above this, whatever Ray's own packaging allows.
MAX_UPLOAD_BYTES = 100 * 2**20

# Left out whatever the ignore files say: results and environments, never needed by a job.
DEFAULT_EXCLUDES = (
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "runs",
    "report",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
)


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
    secrets: tuple[tuple[str, str], ...]
    """(path, why) of every file that must not leave the laptop."""
    digest: str
    """SHA-256 over paths and contents: the same for the same files, whatever their times."""

    @property
    def total_bytes(self) -> int:
        """Return the bytes before compression."""
        return sum(file.size for file in self.files)

    def largest(self, count: int = 3) -> list[UploadedFile]:
        """Return the `count` largest files, largest first."""
        return sorted(self.files, key=lambda file: (-file.size, file.path))[:count]


def list_upload(folder: str | Path, excludes: Sequence[str] = ()) -> Upload:
    """List what `folder` would upload, with .gitignore and .rayignore honoured by Ray's own walk. Raises InputError for no folder."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise InputError(f"--working-dir {folder}: no such folder; the repository's root is what the jobs expect")
    patterns = (*DEFAULT_EXCLUDES, *excludes)
    files: list[UploadedFile] = []
    secrets: list[tuple[str, str]] = []
    digest = hashlib.sha256()
    for path in sorted(_walk(root, patterns)):
        content = path.read_bytes()
        name = path.relative_to(root).as_posix()
        files.append(UploadedFile(path=name, size=len(content)))
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
        reason = secret_in_file(path.name, content)
        if reason:
            secrets.append((name, reason))
    return Upload(folder=root, excludes=patterns, files=tuple(files), secrets=tuple(secrets), digest=digest.hexdigest())


def check_upload(upload: Upload) -> None:
    """Refuse what must not, or cannot, be uploaded. Raises InputError."""
    if upload.secrets:
        named = "; ".join(f"{path} ({why})" for path, why in upload.secrets[:5])
        more = f" and {len(upload.secrets) - 5} more" if len(upload.secrets) > 5 else ""
        raise InputError(
            f"refused, the upload would hold secrets: {named}{more}; name them in .rayignore or pass --exclude"
        )
    if not upload.files:
        raise InputError(
            f"--working-dir {upload.folder}: nothing to upload, everything is ignored; look at .gitignore and .rayignore"
        )
    if upload.total_bytes > MAX_UPLOAD_BYTES:
        big = ", ".join(f"{file.path} ({formatting.size(file.size)})" for file in upload.largest())
        raise InputError(
            f"the upload is {formatting.size(upload.total_bytes)}, the job server takes {formatting.size(MAX_UPLOAD_BYTES)}; "
            f"the largest: {big}; "
            "name them in .rayignore or pass --exclude, and put data on shared storage"
        )


def _walk(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Walk as Ray's packaging does, with Ray's own filters, so that what is listed is what is sent."""
    filters, found = upload_filters(root, list(patterns)), list[Path]()

    def visit(path: Path, above: Sequence[Callable[[Path], bool]]) -> None:
        here = [*above, *filters(path)]
        if any(left_out(path) for left_out in here):
            return
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            for below in path.iterdir():
                visit(below, here)

    visit(root, ())
    return found
