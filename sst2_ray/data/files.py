"""Finding data files: patterns, splits of a folder, object stores. Reading them is in `tables`."""

from __future__ import annotations

import fnmatch
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from sst2_ray.data.streams import COMPRESSIONS, one_line
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.formatting import without_secret
from sst2_ray.uris import open_uri

TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".json")
SUFFIXES = (*TEXT_SUFFIXES[:3], ".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".arrow", ".feather", ".txt")
"""Known formats; where a split of a folder is there in several, the first counts."""
TRAIN_STEMS = ("train", "training")
DEV_STEMS = ("dev", "validation", "valid", "val", "eval", "test")
"""Names of the evaluation split; where a folder has several, the first counts."""
_STEMS = TRAIN_STEMS + DEV_STEMS
_SHARD = re.compile(rf"({'|'.join(_STEMS)})(-\d+-of-\d+(-\w+)?)?", re.IGNORECASE)
_SAVED_DATASET, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_FOLDERS = (".", "data")


def format_of(path: Path) -> str:
    """Return the suffix that says a file's format, without that of a compression. Raises InputError: an unknown one."""
    name = path
    if path.suffix.lower() in COMPRESSIONS:
        name = Path(path.stem)
        if name.suffix.lower() in SUFFIXES and name.suffix.lower() not in TEXT_SUFFIXES:
            raise InputError(f"{path}: {name.suffix} files hold compressed columns already; decompress it first")
    suffix = name.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: {suffix or 'no suffix'} is not a known format; one of {', '.join(SUFFIXES)}, "
            f"text formats also with {', '.join(COMPRESSIONS)}"
        )
    return suffix


def is_hidden(name: str) -> bool:
    """Tell whether a file is none of the user's rows: `._a.csv`, `_SUCCESS`."""
    return name.startswith((".", "_"))


def find_files(pattern: str, flag: str) -> list[Path]:
    """Find the files that a path, or a pattern as its last part, stands for, sorted. Raises InputError: there are none.

    A folder that `datasets` saved and a folder of class folders stand for their rows.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = files_of_folder(path)
    else:
        matches = path.parent.glob(path.name) if path.name else []
        wanted = (match for match in matches if is_hidden(path.name) or not is_hidden(match.name))
        found = sorted(match for match in wanted if match.is_file())
    if not found:
        there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, there) if there else ""
        meant = f"; {near}" if near.startswith("did") and path.name not in there else ""
        raise InputError(f"{flag} {pattern}: no such file or folder, or no file of a known format in it{meant}")
    return found


def files_of_folder(folder: Path) -> list[Path]:
    """List the files of a folder that is one split: saved by `datasets`, class folders (the folder itself), or files."""
    if (folder / _SAVED_DATASET).is_file():
        return [folder / str(file["filename"]) for file in _read_json(folder / _SAVED_DATASET)["_data_files"]]
    there = (path for path in folder.iterdir() if path.is_file() and not is_hidden(path.name))
    files = sorted(path for path in there if has_known_format(path))
    # Beside its folders of texts IMDB has lists of where they are from.
    if all(path.suffix.lower() == ".txt" for path in files) and _num_folders_of_texts(folder) > bool(files):
        return [folder]
    return files


def _num_folders_of_texts(folder: Path) -> int:
    return sum(path.is_dir() and not is_hidden(path.name) and any(path.glob("*.txt")) for path in folder.iterdir())


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """Find the splits of a folder, by lower-case name (train, dev, ...), in it or in its folder `data`.

    A split is a file STEM.SUFFIX, its shards STEM-00000-of-00003.SUFFIX, or a folder STEM.
    """
    for below in _FOLDERS:
        splits = _splits_in(folder / below)
        if splits:
            return splits
    return {}


def _splits_in(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    files: dict[tuple[str, str], list[Path]] = defaultdict(list)
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = path.name.split(".")[0]
        match = _SHARD.fullmatch(stem)
        if path.is_dir() and stem.lower() in _STEMS:
            splits[stem.lower()] = files_of_folder(path)
        elif path.is_file() and match and has_known_format(path):
            files[match[1].lower(), path.name[len(stem) :].lower()].append(path)
    # train.csv before train.bak.csv
    for key in sorted(files, key=lambda key: (not _is_plain(key[1]), SUFFIXES.index(format_of(Path(f"x{key[1]}"))))):
        splits.setdefault(key[0], files[key])
    return {stem: paths for stem, paths in splits.items() if paths}


def _is_plain(rest: str) -> bool:
    """Tell whether a split's name is followed by the suffixes of a format alone."""
    path = Path(f"x{rest}")
    return (Path(path.stem) if path.suffix in COMPRESSIONS else path).stem == "x"


def overlooked(splits: Mapping[str, Sequence[Path]]) -> list[str]:
    """Name the files beside those of splits that are of the same split in another format."""
    used = {path for paths in splits.values() for path in paths}
    folders = sorted({path.parent for path in used})
    return [
        path.name
        for folder in folders
        for path in sorted(folder.iterdir())
        if path not in used and path.is_file() and has_known_format(path) and _SHARD.fullmatch(path.name.split(".")[0])
    ]


def is_single_table(folder: Path) -> bool:
    """Tell whether a folder is one table: a data set saved by `datasets`, or class folders."""
    return (folder / _SAVED_DATASET).is_file() or (not find_splits(folder) and any(folder.glob("*/*.txt")))


def has_known_format(path: Path) -> bool:
    """Tell whether a file's name says a format that can be read; the index files of `datasets` are left out."""
    name = Path(path.stem) if path.suffix.lower() in COMPRESSIONS else path
    return name.suffix.lower() in SUFFIXES and name.name not in (_SAVED_DATASET, _SAVED_SPLITS, "dataset_info.json")


def _read_json(path: Path) -> dict[str, list[dict[str, object]]]:
    try:
        value: dict[str, list[dict[str, object]]] = json.loads(path.read_text(encoding="utf-8"))
        value["_data_files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; save the data set again with save_to_disk") from None
    return value


def local_copy(uri: str, folder: Path, flag: str) -> Path:
    """Copy a file, or the data files of a folder, of s3://, gs:// or another URI that pyarrow.fs opens into `folder`."""
    import pyarrow.fs as pafs

    shown = without_secret(uri)
    name = unquote(uri.partition("?")[0].rstrip("/").rsplit("/", 1)[-1])
    try:
        source, path = open_uri(uri.rstrip("/"))
        info = source.get_file_info(path)
        if info.is_file:
            files = {name: path}
        elif info.type == pafs.FileType.NotFound:
            beside = source.get_file_info(pafs.FileSelector(path.rpartition("/")[0], allow_not_found=True))
            files = {i.base_name: i.path for i in beside if i.is_file and fnmatch.fnmatchcase(i.base_name, name)}
            if not files:
                raise InputError(f"{flag} {shown}: no such file or folder")
        else:
            below = source.get_file_info(pafs.FileSelector(path, recursive=True))
            parts = {i.path.removeprefix(path).strip("/"): i.path for i in below if i.is_file}
            files = {f"{name}/{part}": origin for part, origin in parts.items() if _belongs_to_data(part)}
        for target, origin in files.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            pafs.copy_files(
                origin, str(folder / target), source_filesystem=source, destination_filesystem=pafs.LocalFileSystem()
            )
    except (OSError, ValueError) as error:  # pyarrow's own errors are subclasses of these
        raise InputError(f"{flag} {shown}: cannot be read ({one_line(error)})") from None
    return folder / name


def _belongs_to_data(part: str) -> bool:
    """Tell whether a file of a folder is to be copied: one of a split, of a saved data set, or a text of a class."""
    path = Path(part)
    if path.name in (_SAVED_DATASET, _SAVED_SPLITS) or path.suffix.lower() in (".txt", ".arrow"):
        return True
    # Files of the folder itself as well: locally they are all read where it stands for one split.
    is_below_split = len(path.parts) == 1 or any(p.lower().startswith(_STEMS) for p in path.parts)
    return has_known_format(path) and not is_hidden(path.name) and is_below_split
