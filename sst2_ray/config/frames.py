"""Tables in memory as data: written to a file named by its content, which a config then names like any other."""

from __future__ import annotations

import hashlib
import importlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sst2_ray.errors import InputError, first_line
from sst2_ray.home import cache_folder

_TABLES = {("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"), ("datasets", "Dataset")}
"""Library and class of what is taken for a table; the libraries are not imported here."""


def library_of(value: object) -> str | None:
    """Return the library of a table in memory: pandas, polars, pyarrow or datasets; None: it is no table."""
    library, kind = type(value).__module__.split(".")[0], type(value).__name__
    return library if (library, kind) in _TABLES else None


def stored(value: object, flag: str) -> object:
    """Write a table to a Parquet file and return the file's path; whatever is no table is returned as it is.

    Equal tables have equal paths, so that a run of a DataFrame can be resumed. The files lie in the user's cache folder.

    Args:
        value: a pandas or polars DataFrame, a pyarrow Table, a datasets.Dataset, or several of them by split (a dict or a
            DatasetDict), which become a folder.
        flag: the setting, for messages.

    Raises InputError if the table cannot be written.
    """
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return _folder({str(name): _encoded(split, flag) for name, split in value.items()})
    if library_of(value) is None:
        return value
    data = _encoded(value, flag)
    return str(_write(_cache() / f"table-{_digest(data)}.parquet", data))


def _encoded(value: object, flag: str) -> bytes:
    """Return a table as Parquet; of a Dataset with the names of its classes."""
    table: Any = value
    file = io.BytesIO()
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        match library_of(value):
            case "pandas":
                table.to_parquet(file, index=False)
                return file.getvalue()
            case "polars":
                table = table.to_arrow()
            case "datasets":
                table = table.with_format("arrow")[:].replace_schema_metadata(table.features.arrow_schema.metadata)
            case None:
                raise InputError(f"{flag}: a {type(value).__name__} is no table; give a DataFrame, a Dataset or a path")
        parquet.write_table(table, file)
    except (ValueError, TypeError, arrow.ArrowException) as error:  # columns of mixed types
        raise InputError(f"{flag}: the table cannot be written ({first_line(error)})") from None
    return file.getvalue()


def _folder(splits: Mapping[str, bytes]) -> str:
    folder = _cache() / f"tables-{_digest(b''.join(name.encode() + data for name, data in splits.items()))}"
    for name, data in splits.items():
        _write(folder / f"{name}.parquet", data)
    return str(folder)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _cache() -> Path:
    folder = cache_folder()
    if folder is None:
        raise InputError("a table in memory needs a folder that can be written; set XDG_CACHE_HOME to one")
    return folder


def _write(path: Path, data: bytes) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
    return path
