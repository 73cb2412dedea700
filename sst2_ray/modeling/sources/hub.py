"""Model folders from the Hugging Face hub: resolved to a commit, downloaded once a node, or refused in one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from sst2_ray.config.registry import MODELS
from sst2_ray.errors import InputError
from sst2_ray.modeling.sources.folders import check_all_weights, read_json, read_stack

# Weights as safetensors alone: whatever else a repository holds (pickles, ONNX, custom code) is never downloaded.
_DESCRIPTION = ["*.json", "*.txt", "*.jinja", "*.spm", "spm.model", "*.bpe.model", "spiece.model"]
_WEIGHTS = ["*.safetensors"]
_IGNORED = ["onnx/*", "openvino/*", "*.bin.index.json"]

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")

_PROBE_TIMEOUT_S = 5.0


class HubUnreachableError(Exception):
    """Hub that does not answer, and a cache without what was asked for; the message is the cause, one line."""


def fetch(hub_id: str, revision: str | None, *, weights: bool, flag: str = "--model") -> tuple[Path, str]:
    """Return the local snapshot folder of a model repository, and the commit it is at.

    A complete snapshot of a pinned commit is taken from the cache without asking the hub. `weights=False`: all but the
    weights. Several processes of a node may call this at once: huggingface_hub locks each file. HF_TOKEN, HF_ENDPOINT,
    HF_HUB_OFFLINE and HF_HOME count as everywhere.

    Raises InputError where the hub says no (unknown, private, gated, no such revision), HubUnreachableError where it
    says nothing.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return _fetch(hub_id, revision, weights=weights, model=flag == "--model")
    except GatedRepoError:
        raise InputError(
            f"{flag} {hub_id}: access is granted on request only; ask for it on the hub and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{flag} {hub_id}: the hub has no revision {revision!r} of it") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{flag} {hub_id}: no such model on the hub, or a private one: check the name, or set HF_TOKEN"
        ) from None
    except HFValidationError as error:
        raise InputError(f"{flag} {hub_id}: not a name of the form owner/name ({_cause(error)})") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError, OSError) as error:
        raise HubUnreachableError(_cause(error)) from None


def _fetch(hub_id: str, revision: str | None, *, weights: bool, model: bool) -> tuple[Path, str]:
    """Take a snapshot from the cache or download it; raises what huggingface_hub raises, or HubUnreachableError."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if _is_commit(revision):
        cached = _cached(hub_id, revision, weights=weights, model=model)
        if cached is not None:
            return cached, str(revision)
    try:
        # One request that is not retried: without a network it fails at once, snapshot_download takes 23 s.
        found = HfApi().model_info(hub_id, revision=revision, timeout=_PROBE_TIMEOUT_S)
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError, HFValidationError):
        raise
    except Exception as unreachable:
        cached = _cached(hub_id, revision, weights=weights, model=model)
        if cached is None:
            raise HubUnreachableError(_cause(unreachable)) from None
        return cached, cached.name
    commit = str(found.sha)
    names = [file.rfilename for file in found.siblings or []]
    if weights and any(name.endswith(".bin") for name in names) and not any(n.endswith(".safetensors") for n in names):
        raise InputError(
            f"--model {hub_id}: model.safetensors is missing on the hub: its weights are a pickle, which is never "
            f"loaded; where you trust it, run AutoModel.from_pretrained({hub_id!r}).save_pretrained(FOLDER), save its "
            "tokenizer there, and give the folder"
        )
    with quiet_hub():
        folder = snapshot_download(hub_id, revision=commit, allow_patterns=_patterns(weights), ignore_patterns=_IGNORED)
    return Path(folder), commit


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence huggingface_hub inside: progress bars on a terminal only, no remarks."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    verbosity, disabled = logging.get_verbosity(), are_progress_bars_disabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not disabled:
            enable_progress_bars()


def _patterns(weights: bool) -> list[str]:
    return _DESCRIPTION + (_WEIGHTS if weights else [])


def _cached(hub_id: str, revision: str | None, *, weights: bool, model: bool) -> Path | None:
    """Return the snapshot in the cache if it is complete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=_patterns(weights),
            ignore_patterns=_IGNORED,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if _is_whole(Path(folder), hub_id, weights=weights, model=model) else None


def _is_whole(folder: Path, hub_id: str, *, weights: bool, model: bool) -> bool:
    """Tell whether a snapshot holds what was asked for; `model`: more than a tokenizer.

    huggingface_hub cannot tell: others (AutoTokenizer, hf_hub_download) may have put some files of the commit there.
    """
    try:
        stack = read_stack(folder, source=hub_id)
        encoder = folder / (stack.transformer_path if stack else "")
        if model:
            read_json(encoder / "config.json", source=hub_id)
        if weights:
            check_all_weights(folder, stack, source=hub_id)
    except InputError:
        return False
    # Without modules.json a named SBERT would be another model, and work.
    modules_missing = stack is None and any(s.hub_id == hub_id and s.kind == "sbert" for s in MODELS.values())
    return any((encoder / name).is_file() for name in _TOKENIZERS) and not (weights and modules_missing)


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


def _cause(error: BaseException) -> str:
    """Shorten an error to one line, without the request's address, which may hold secrets."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line.split(" for url ")[0].split(" while requesting ")[0].split("Cannot reach ")[-1].strip()[:160]
