"""The command `push`: upload an export to the model hub, private unless asked otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray import formatting
from sst2_ray.config.fields import Folder, Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError, RunFailedError
from sst2_ray.modeling.export.meta import local_export
from sst2_ray.modeling.sources.folders import refuse_pickles

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_PATTERNS = ("*.safetensors", "*.json", "*.md", "*.txt", "*.onnx", "openvino/*.xml", "openvino/*.bin")
"""Files of an export; whatever else lies in the folder stays here."""
_TOKEN = "HF_TOKEN"  # nosec B105: the name of a variable


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Upload an export to the model hub, card and converted formats included."""

    model_dir: Positional[Folder]
    """Exported model: the folder `model` of a run, or the run's own folder."""
    repository: Positional[str]
    """OWNER/NAME on the hub; it is made where it does not exist."""
    public: bool = False
    """Let everybody see it. Without this flag a new repository is private, and an existing public one is refused."""
    revision: str = "main"
    """Branch to commit to; it must exist."""
    message: str = "Upload an export of sst2-ray"
    """Message of the commit."""
    dry_run: bool = False
    """List the files; ask and send nothing."""

    def __post_init__(self) -> None:
        owner, slash, name = self.repository.partition("/")
        if not (owner and slash and name) or "/" in name:
            raise InputError(f"{self.repository}: the hub's name of the model must have the form OWNER/NAME")


def main(argv: list[str]) -> int:
    """Run `sst2-ray push`."""
    config = parse(PushConfig, argv, prog="sst2-ray push", examples=("sst2-ray push runs/first/model OWNER/NAME",))
    folder = local_export(config.model_dir, flag="")
    refuse_pickles(folder, source=config.model_dir)
    files = list(_files(folder))
    total = formatting.size(sum(file.stat().st_size for file in files))
    what = f"{formatting.count(len(files), 'file')}, {total}"
    if config.dry_run:
        for file in files:
            print(f"{file.relative_to(folder)}  {formatting.size(file.stat().st_size)}")
        print(f"dry run: {what} would go to {config.repository}")
        return 0
    address, is_private = push(config, folder)
    print(f"{what} sent to {address} ({'private' if is_private else 'public'})")
    return 0


def push(config: PushConfig, folder: Path) -> tuple[str, bool]:
    """Upload an export's folder in one commit.

    Returns:
        The address of the repository, and whether it is private.

    Raises:
        InputError: No token, or the repository is public without `public`. RunFailedError: the hub refuses or is silent.
    """
    from huggingface_hub import HfApi

    token = os.environ.get(_TOKEN)
    if not token:
        # A token that some login left in the home folder is not taken: nobody asked for it here.
        raise InputError(f"{_TOKEN}: is not set; put a token with write access into this variable of the environment")
    api = HfApi(token=token)
    with _one_line(config.repository, token):
        address = api.create_repo(config.repository, private=not config.public, exist_ok=True)
        is_private = bool(api.repo_info(config.repository).private)
        if not is_private and not config.public:
            raise InputError(f"{config.repository}: exists and is public; pass --public, or take another name")
        _upload(api, config, folder)
    return str(address), is_private


def _upload(api: HfApi, config: PushConfig, folder: Path) -> None:
    api.upload_folder(
        repo_id=config.repository,
        folder_path=folder,
        allow_patterns=list(_PATTERNS),
        ignore_patterns=[".*"],
        commit_message=config.message,
        revision=config.revision,
    )


@contextmanager
def _one_line(repository: str, token: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line without the token."""
    from huggingface_hub.errors import HfHubHTTPError

    from sst2_ray.data.streams import one_line
    from sst2_ray.modeling.sources.hub import quiet_hub

    try:
        with quiet_hub():
            yield
    except InputError:
        raise
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise InputError(
                f"{repository}: the hub does not let the token of {_TOKEN} write there ({status})"
            ) from None
        line = one_line(error).replace(token, "...")
        raise RunFailedError(f"{repository}: the upload failed ({line}); push it again") from None


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not is_hidden and any(relative.match(pattern) for pattern in _PATTERNS):
            yield path
