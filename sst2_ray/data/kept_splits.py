"""Checked splits of files on this machine, kept for the next command that names the same data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sst2_ray.config import registry
from sst2_ray.config.registry import DATASETS, glue_task
from sst2_ray.config.settings import DataSettings
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.class_weights import BALANCED
from sst2_ray.data.columns import TextColumn, as_column
from sst2_ray.data.files import find_files, find_splits, is_single_table
from sst2_ray.data.kept import digest_of, keep, read_kept
from sst2_ray.data.labels import ClassNames
from sst2_ray.data.load import load_splits
from sst2_ray.data.rows import Rows, Splits
from sst2_ray.data.texts import Text
from sst2_ray.errors import InputError

Number = TypeVar("Number", np.int16, np.int64, np.float32)

LEAST_BYTES = 2**20
"""Size of the files from which on their splits are kept: smaller ones are read in a moment."""

CODE = (*Path(__file__).parent.glob("*.py"), Path(registry.__file__))
"""This room's modules, and the names of known data: what is made of a file follows from them."""

_OF_TOKENS = ("max_length", "pad_to_max_length")
"""Settings of the data that reading does not look at."""

_MAIN = ("train", "dev", "selection")


def splits_of(config: TrainConfig) -> Splits:
    """Return what `load_splits` does, from an earlier command's where the files, the settings and the code are the same.

    Large texts are then mapped from the disk.

    Raises:
        InputError: As `load_splits`.
    """
    try:
        sources = _sources(config)
        before = _stamps(sources.files) if sources else []
        key = _key(config, sources) if sources else None
    except (OSError, InputError):  # reading tells what is wrong
        sources, before, key = None, [], None
    if sources is None or key is None:
        return load_splits(config)
    found = read_kept(key, _read)
    if found is not None:
        return found
    made = load_splits(config)
    if not _are_unchanged(sources.files, before):  # what was read may be another content than the key's
        return made
    return (read_kept(key, _read) if keep(key, lambda folder: _write(made, folder)) else None) or made


class _Sources(NamedTuple):
    """All that reading looks at: files, and names that remarks name."""

    files: list[Path]
    names: list[str]


def _key(config: TrainConfig, sources: _Sources) -> str | None:
    """Return the name of the data's entry; None: they are small, and read in a moment."""
    if sum(file.stat().st_size for file in sources.files) < LEAST_BYTES:
        return None
    names = (*(field.name for field in fields(DataSettings) if field.name not in _OF_TOKENS), "class_weights")
    told = {
        "settings": {name: getattr(config, name) for name in names},
        "files": [str(file) for file in sources.files],
        "names": sources.names,
        "versions": [sys.version, pa.__version__],
    }
    return digest_of(told, code=CODE, files=sources.files)


def _sources(config: TrainConfig) -> _Sources | None:
    """List what the data of a config are read from; None: not all of it lies in files of this machine."""
    is_named = config.data in DATASETS or glue_task(config.data) is not None
    if is_named or config.class_weights not in (None, BALANCED):
        return None
    train = _sources_of("--data", config.data)
    dev = _sources_of("--dev-data", config.dev_data) if config.dev_data else _Sources([], [])
    return None if train is None or dev is None else _Sources(train.files + dev.files, train.names + dev.names)


def _sources_of(flag: str, data: str) -> _Sources | None:
    """List what a path stands for, as reading takes it; None: it is no path of this machine. Raises InputError: there is nothing."""
    path = Path(data).expanduser()
    if "://" in data or not (path.exists() or ("*" in path.name and path.parent.is_dir())):
        return None
    if flag == "--data" and path.is_dir() and not is_single_table(path):
        found = [file for files in find_splits(path).values() for file in files]
    else:
        found = find_files(data, flag)
    return _Sources([file for one in found for file in _below(one)], _beside(path, found) if path.is_dir() else [])


def _beside(folder: Path, found: list[Path]) -> list[str]:
    """Name what lies in a folder of data and where its files are: remarks tell what is not used."""
    folders = {folder, folder / "data", *(one.parent for one in found)}
    return sorted(str(one) for where in folders if where.is_dir() for one in where.iterdir())


def _below(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]


def _stamps(files: Sequence[Path]) -> list[tuple[int, int, int]]:
    """Return what tells that a file was written: its times, sizes and numbers."""
    return [(told.st_mtime_ns, told.st_size, told.st_ino) for told in (file.stat() for file in files)]


def _are_unchanged(files: Sequence[Path], before: list[tuple[int, int, int]]) -> bool:
    try:
        return _stamps(files) == before
    except OSError:
        return False


# ---- the form on the disk


_PLAIN = ("source", "eval_split", "fingerprint", "corpus")
_LISTED = ("text_columns", "notes", "class_weights")


def _write(splits: Splits, folder: Path) -> None:
    for number, rows in enumerate(splits.by_name.values()):
        _write_rows(rows, folder / f"{number}.arrow")
    told = {name: getattr(splits, name) for name in (*_PLAIN, *_LISTED)}
    classes = {"names": splits.classes.names, "numbered": splits.classes.numbered}
    (folder / "splits.json").write_text(json.dumps({**told, "splits": list(splits.by_name), "classes": classes}))


def _read(folder: Path) -> Splits:
    told = json.loads((folder / "splits.json").read_text())
    rows = {name: _read_rows(folder / f"{number}.arrow") for number, name in enumerate(told["splits"])}
    listed = {name: None if told[name] is None else tuple(told[name]) for name in _LISTED}
    return Splits(
        train=rows["train"],
        dev=rows["dev"],
        selection=rows.get("selection"),
        others={name: of_split for name, of_split in rows.items() if name not in _MAIN},
        classes=ClassNames(tuple(told["classes"]["names"]), numbered=told["classes"]["numbered"]),
        source=told["source"],
        eval_split=told["eval_split"],
        fingerprint=told["fingerprint"],
        corpus=told["corpus"],
        text_columns=listed["text_columns"] or (),
        notes=listed["notes"] or (),
        class_weights=listed["class_weights"],
    )


def _write_rows(rows: Rows, path: Path) -> None:
    texts = as_column(rows.texts)
    columns = [*texts.columns, *([] if rows.groups is None else as_column(rows.groups).columns)]
    numbers = [
        pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])
        for values in (np.ascontiguousarray(rows.labels), np.ascontiguousarray(rows.row_ids))
    ]
    names = ["label", "row_id", *("text", "text_pair")[: len(texts.columns)], *["group"][: rows.groups is not None]]
    table = pa.Table.from_arrays([*map(pa.chunked_array, ([one] for one in numbers)), *columns], names=names)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read_rows(path: Path) -> Rows:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    label, row_ids = table["label"], _numbers(table["row_id"], np.int64)
    labels = _numbers(label, np.float32) if label.type == pa.float32() else _numbers(label, np.int16)
    groups = table["group"].to_pylist() if "group" in table.schema.names else None
    texts = TextColumn(*(table[name] for name in ("text", "text_pair") if name in table.schema.names))
    return Rows(texts=cast(Sequence[Text], texts), labels=labels, row_ids=row_ids, groups=groups)


def _numbers(column: pa.ChunkedArray, kind: type[Number]) -> npt.NDArray[Number]:
    """Read a column without nulls from its buffers: `to_numpy` imports pandas."""
    parts: list[npt.NDArray[Number]] = [np.zeros(0, dtype=kind)]
    for chunk in column.chunks:
        parts.append(np.frombuffer(chunk.buffers()[1], kind)[chunk.offset :][: len(chunk)])
    return np.concatenate(parts)
