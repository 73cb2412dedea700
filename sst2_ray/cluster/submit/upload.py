"""What a submitted job uploads: the files, their size, and whether there is a secret among them."""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

SECRET_NAMES = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "id_rsa*", "id_ed25519*", "id_ecdsa*", ".netrc", ".pypirc", ".npmrc",
    "credentials", "credentials.json", "auth_token", "*service-account*.json", "*service_account*.json", "kubeconfig", ".git-credentials",
)  # fmt: skip
NOT_SECRET_NAMES = (".env.example", ".env.template", ".env.sample", "*.pub")
SECRET_CONTENT = re.compile(
    rb"-----BEGIN (?:[A-Z ]+ )?PRIVATE KEY-----|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b"
)
_CONTENT_LIMIT = 2**20


@dataclass(frozen=True, kw_only=True)
class UploadedFile:
    """One file of the upload."""

    path: str
    """Relative to the working directory."""
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The listing of a working directory as Ray would package it."""

    folder: Path
    excludes: tuple[str, ...]
    files: tuple[UploadedFile, ...]
    secrets: tuple[tuple[str, str], ...]
    """(path, why) of every file that must not leave the laptop."""
    digest: str
    """SHA-256 over paths and contents: the same for the same files, whatever their times."""

    @property
    def total_bytes(self) -> int:
        """Bytes before compression."""
        return sum(file.size for file in self.files)

    def largest(self, count: int = 3) -> list[UploadedFile]:
        """The `count` largest files, largest first."""
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
        reason = _secret_reason(path.name, content)
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
        big = ", ".join(f"{file.path} ({mib(file.size)})" for file in upload.largest())
        raise InputError(
            f"the upload is {mib(upload.total_bytes)}, the job server takes {mib(MAX_UPLOAD_BYTES)}; the largest: {big}; "
            "name them in .rayignore or pass --exclude, and put data on shared storage"
        )


def mib(size: int) -> str:
    """`size` bytes for people."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _walk(root: Path, patterns: Sequence[str]) -> list[Path]:
    # Ray's own walk, so that what is listed is what is sent; private, hence named here once and covered by a test.
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    found: list[Path] = []
    _dir_travel(
        root,
        [_get_excludes(root, list(patterns))],
        lambda path: found.append(path) if path.is_file() else None,
        include_gitignore=True,
    )
    return found


def _secret_reason(name: str, content: bytes) -> str | None:
    if any(fnmatch.fnmatch(name, pattern) for pattern in NOT_SECRET_NAMES):
        return None
    for pattern in SECRET_NAMES:
        if fnmatch.fnmatch(name, pattern):
            return f"named like {pattern}"
    return "holds a private key or access token" if SECRET_CONTENT.search(content[:_CONTENT_LIMIT]) else None
