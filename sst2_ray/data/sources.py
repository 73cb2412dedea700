"""Reading what `--data` and `--dev-data` name: the hub, folders, files, object stores, or the demo extra's reviews."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray.config.registry import DATASETS, GLUE_HUB_ID, GLUE_TASKS, glue_dev, glue_task
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.files import (
    DEV_STEMS,
    TRAIN_STEMS,
    find_files,
    find_splits,
    format_of,
    is_single_table,
    local_copy,
    overlooked,
)
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.packaged import read_packaged
from sst2_ray.data.readers import read_files
from sst2_ray.data.rows import Cells
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.formatting import count, without_secret

if TYPE_CHECKING:
    from sst2_ray.data.hub import HubDataset

_OF_HUB = ("split_train", "split_dev", "data_revision")
_FOR_HUB, _FOR_FILE = "is for data sets on the hub (--data owner/name)", "is for a single file"
"""Reasons why flags are refused beside other data."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data as they were read, before they are checked and split."""

    train: Cells
    dev: Cells | None
    """Evaluation data; None: held out of `train`."""
    source: str
    """Origin of the rows."""
    train_name: str
    """Name for a hold-out."""
    dev_name: str = ""
    """Name for `dev`."""
    notes: tuple[str, ...] = ()
    others: Mapping[str, Cells] = field(default_factory=dict)
    """Further evaluation splits, by name: scored at the end."""


def read_options(config: TrainConfig) -> ReadOptions:
    """Collect the fields of a config that say how files are read."""
    return ReadOptions(
        text=config.text_columns[0] if config.text_columns else config.text_column,
        second=config.text_columns[1] if config.text_columns else None,
        label=config.label_column,
        split=config.split_column,
        group=config.group_column,
        delimiter=config.delimiter,
        encoding=config.encoding,
        quoting=config.quoting,
        header=config.header,
    )


def read_source(config: TrainConfig) -> Source:
    """Read the data that a config names. Raises InputError with one line: what cannot be read, and what is there."""
    options = read_options(config)
    with tempfile.TemporaryDirectory(prefix="sst2-ray-") as scratch:
        try:
            dev = None
            if config.dev_data is not None:
                dev_path = _local(config.dev_data, Path(scratch) / "dev", "--dev-data")
                dev = read_files(find_files(str(dev_path), "--dev-data"), options.of_dev)
            read = _read_train(config, options, Path(scratch) / "data")
        except InputError as error:  # a copy from an object store goes by its own name
            raise InputError(re.sub(rf"{re.escape(scratch)}/(dev|data)/", "", str(error))) from None
    if dev is None:
        return read
    if read.dev is not None:
        raise InputError(f"--dev-data {config.dev_data}: --data {config.data} has an evaluation split of its own")
    dev_data = without_secret(str(config.dev_data))
    return replace(read, dev=dev, source=f"{read.source} and {dev_data}", dev_name=_last(dev_data))


def _read_train(config: TrainConfig, options: ReadOptions, scratch: Path) -> Source:
    data = config.data
    if data == "rotten-tomatoes":
        _refuse_flags(config, _OF_HUB, f"{_FOR_HUB}; {data} is none")
        columns = ("text_column", "text_columns", "label_column") if config.dev_data is None else ()
        _refuse_flags(config, ("group_column", "split_column", *columns), f"{data} has no columns to choose from")
        cells, source = read_packaged()
        return Source(train=cells, dev=None, source=source, train_name=data)
    task = glue_task(data)
    if task is not None:
        _refuse_flags(config, _OF_HUB, f"{_FOR_HUB}; {data} has splits of its own")
        _refuse_flags(config, ("split_column",), f"{_FOR_FILE}; {data} is none")
        return _read_glue(task, data, options)
    path = _local(data, scratch, "--data")
    data = without_secret(data)  # from here on a name, which goes into plans, tables and model cards
    hub = _hub_dataset(config, path)
    is_folder = hub is None and path.is_dir() and not is_single_table(path)
    if hub is not None or is_folder:
        _refuse_flags(config, ("split_column",), f"{_FOR_FILE}; {data} is none")
    if hub is not None:
        return _read_hub(hub, config, options)
    _refuse_flags(config, _OF_HUB, f"{_FOR_HUB}; {data} is none")
    if is_folder:
        return _read_folder(path, options, data)
    if not path.exists() and path.name == data and not path.suffix:
        # A bare word: more likely a mistyped name than a path.
        raise InputError(f"--data {data}: no such data set, folder or file; {did_you_mean(data, DATASETS)}")
    cells = read_files(find_files(str(path), "--data"), options)
    return _divide(cells, data, is_asked=options.split is not None)


def _refuse_flags(config: TrainConfig, fields: Iterable[str], why: str) -> None:
    """Refuse flags that the data that are named leave unread. Raises InputError."""
    for field_name in fields:
        value = getattr(config, field_name)
        if value:
            given = value if isinstance(value, str) else " ".join(value)
            raise InputError(f"--{field_name.replace('_', '-')} {given}: {why}")


def _read_glue(task: str, data: str, options: ReadOptions) -> Source:
    """Read a task of GLUE, with the columns of its texts unless others are given."""
    from sst2_ray.data.hub import HubDataset, find_dataset

    columns = GLUE_TASKS[task]
    if options.text is None and len(columns) > 1:
        options = replace(options, text=columns[0], second=columns[1])
    found = find_dataset(HubDataset.glue(task, data))
    missing = [split for split in ("train", *glue_dev(task)) if split not in found.splits]
    if missing:
        raise found.dataset.refusal(f"{found.dataset} has no split {missing[0]}")
    train, dev, *others = (read_files(found.splits[split], options) for split in ("train", *glue_dev(task)))
    name = GLUE_HUB_ID if task == "sst2" else f"glue/{task}"
    return Source(
        train=train,
        dev=dev,
        source=str(found.dataset) + ("" if task == "sst2" else f", {task}"),
        train_name=name,
        dev_name=" ".join([name, *(split.removeprefix("validation_") for split in glue_dev(task)[:1] if others)]),
        others=dict(zip(glue_dev(task)[1:], others, strict=True)),
    )


def _hub_dataset(config: TrainConfig, path: Path) -> HubDataset | None:
    """Return the data set on the hub that `--data` names; None: it names a path."""
    from sst2_ray.data.hub import HubDataset

    named = HubDataset.of_address(config.data, config.data_revision)
    is_path = "://" in config.data or path.exists() or path.parent.is_dir() or _has_suffix(path)
    wanted = config.split_train or config.split_dev or config.data_revision
    return None if named is None or path.exists() or (is_path and not wanted) else named


def _has_suffix(path: Path) -> bool:
    """Tell whether a name is that of a data file."""
    try:
        return bool(format_of(path))
    except InputError:
        return "*" in path.name


def _read_hub(hub: HubDataset, config: TrainConfig, options: ReadOptions) -> Source:
    """Read a data set from the hub."""
    from sst2_ray.data.hub import choose_splits, find_dataset

    found = find_dataset(hub)
    train, dev = choose_splits(found, config.split_train, config.split_dev)
    unused = [split for split in found.splits if split not in (train, dev)]
    notes = [*found.notes, f"revision {found.dataset.revision} of {hub.repo_id}"]
    notes += [f"not used: its split {', '.join(unused)}"] if unused else []
    return Source(
        train=read_files(found.splits[train], options),
        dev=read_files(found.splits[dev], options.of_dev) if dev else None,
        source=str(found.dataset) + (f", {hub.config}" if hub.config else ""),
        train_name=config.data if train == "train" else f"{config.data} ({train})",
        dev_name=config.data if dev in (None, "validation", "dev") else f"{config.data} ({dev})",
        notes=tuple(notes),
    )


def _read_folder(folder: Path, options: ReadOptions, data: str) -> Source:
    """Read the training and the evaluation split of a folder, and say which split evaluates where it is not plain."""
    splits = find_splits(folder)
    train, dev = _train_and_dev(splits)
    if train is None or dev is None:
        wanted = "train" if train is None else " or ".join(DEV_STEMS)
        there = _shown([path.name for path in sorted(folder.iterdir())])
        raise InputError(
            f"--data {data}: has no split {wanted} (a file such as {wanted.split()[0]}.csv, or a folder); it has {there}; "
            f"give a folder with both splits, or a single file"
        )
    notes = []
    if dev not in DEV_STEMS[:2]:
        notes.append(f"evaluated on its split {dev} ({_shown([path.name for path in splits[dev]])})")
    unused = [stem for stem in splits if stem not in (train, dev)]
    if unused:
        notes.append(f"not used: its split {', '.join(unused)}")
    if others := overlooked(splits):
        notes.append(f"not used: {_shown(others)}, of a split that is there in another format")
    name = _last(data)
    return Source(
        train=read_files(splits[train], options),
        dev=read_files(splits[dev], options.of_dev),
        source=data,
        train_name=name,
        dev_name=name,
        notes=tuple(notes),
    )


def _divide(cells: Cells, data: str, *, is_asked: bool) -> Source:
    """Divide the rows of one table by its split column, if it names a training and an evaluation split.

    Raises InputError where it does not and dividing is asked for; a column of training rows alone divides nothing.
    """
    name, names = _last(data), Counter(cells.splits or ())
    train, dev = _train_and_dev(names)
    if train is None or dev is None:
        there = _shown([f"{split or 'no name'} ({num:,})" for split, num in names.most_common()])
        wanted = f"train and one of {', '.join(DEV_STEMS)}"
        if is_asked and not names.keys() <= set(TRAIN_STEMS):
            raise InputError(f"--data {data}: its split column holds {there}; it must hold {wanted}")
        note = f"not used: its split column, which holds {there}; to divide the rows it must hold {wanted}"
        return Source(train=cells, dev=None, source=data, train_name=name, notes=(note,) if names else ())
    notes = [f"divided by its split column: {train} ({names[train]:,}) and {dev} ({names[dev]:,})"]
    rest = [f"{split} ({num:,})" for split, num in names.items() if split not in (train, dev, None)]
    notes += [f"not used: rows of its split {', '.join(rest)}"] if rest else []
    notes += [f"not used: {count(names[None], 'row')} without a split"] if names[None] else []
    return Source(
        train=cells.of_split(train),
        dev=cells.of_split(dev),
        source=data,
        train_name=name,
        dev_name=name,
        notes=tuple(notes),
    )


def _train_and_dev(names: Iterable[str | None]) -> tuple[str | None, str | None]:
    """Choose the training and the evaluation split among lower-case names."""
    there = list(names)
    train = next((stem for stem in TRAIN_STEMS if stem in there), None)
    return train, next((stem for stem in DEV_STEMS if stem in there), None)


def _local(path_or_uri: str, scratch: Path, flag: str) -> Path:
    if "://" not in path_or_uri:
        return Path(path_or_uri).expanduser()
    return local_copy(path_or_uri, scratch, flag)


def _last(path_or_uri: str) -> str:
    """Return the last part of a path; for a folder given as ".", its name."""
    return path_or_uri.rstrip("/").rsplit("/", 1)[-1] if "://" in path_or_uri else Path(path_or_uri).resolve().name


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
