"""Rows from files: Parquet, CSV, TSV and JSON Lines, on a local disk or in an object store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sst2_ray.data.rows import Rows, make_rows
from sst2_ray.errors import InputError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LIBRARY_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json"}
SUFFIXES = (*_DELIMITERS, *_LIBRARY_FORMATS)
TRAIN_STEMS = ("train",)
DEV_STEMS = ("dev", "validation")
SPLIT_STEMS = TRAIN_STEMS + DEV_STEMS
"""How files of a folder's splits begin."""
TEXT_COLUMNS = ("sentence", "text")
LABEL_COLUMNS = ("label",)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that the user named; None: the usual names."""

    text: str | None = None
    label: str | None = None

    def pick(self, header: Sequence[str], where: str) -> tuple[str, str]:
        """The text and the label column among `header`. Raises InputError listing what there is."""
        if len(header) < 2:
            raise InputError(f"{where}: has one column ({', '.join(header)}); a text and a label column are needed")
        text = pick_column(self.text, TEXT_COLUMNS, header, where, "text")
        label = pick_column(self.label, LABEL_COLUMNS, header, where, "label")
        return text, label


def pick_column(named: str | None, usual: Sequence[str], header: Sequence[str], where: str, kind: str) -> str:
    """The one column of `header` that was named, or the first of the usual ones. Raises InputError listing them."""
    for candidate in (named,) if named else usual:
        if list(header).count(candidate) > 1:
            raise InputError(f"{where}: has several columns {candidate!r}; rename all but one")
        if candidate in header:
            return candidate
    has, wanted = ", ".join(header), repr(named) if named else " or ".join(map(repr, usual))
    raise InputError(f"{where}: has no {kind} column {wanted}; it has {has}; name one with --{kind}-column")


def find_files(pattern: str, flag: str) -> list[Path]:
    """The files that a path, or a pattern as its last part, stands for, sorted. Raises InputError where there is none."""
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    found = sorted(match for match in path.parent.glob(path.name) if match.is_file()) if path.name else []
    if not found:
        raise InputError(f"{flag} {pattern}: no such file or folder")
    return found


def read_files(paths: Sequence[Path], columns: Columns) -> Rows:
    """All rows of files of one format; rows are numbered through. Raises InputError with one line."""
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    suffixes = {path.suffix.lower() for path in paths}
    if len(suffixes) > 1:
        raise InputError(f"{where}: are of different formats ({', '.join(sorted(suffixes))}); give files of one")
    suffix = suffixes.pop()
    if suffix not in SUFFIXES:
        raise InputError(f"{where}: {suffix or 'no suffix'} is not a known format; one of {', '.join(SUFFIXES)}")
    for path in paths:
        _require_content(path)
    if suffix in _LIBRARY_FORMATS:
        texts, labels = _read_with_datasets(paths, _LIBRARY_FORMATS[suffix], columns, where)
    else:
        texts, labels = [], []
        for path in paths:
            some_texts, some_labels = _read_delimited(path, _DELIMITERS[suffix], columns)
            texts += some_texts
            labels += some_labels
    return make_rows(texts, labels, where)


def _require_content(path: Path) -> None:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: is empty; give a file with labelled sentences")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _read_delimited(path: Path, delimiter: str, columns: Columns) -> tuple[list[Any], list[Any]]:
    """CSV with quoting; TSV as GLUE writes it, where a quotation mark is a character like any other.

    Not through `datasets`: pandas, which reads text there, guesses types and takes the sentence "null" for missing; and
    reading SST-2 takes 0.1 s instead of 1 s (of which 0.6 s are the import).
    """
    import pyarrow as pa
    import pyarrow.csv as pacsv

    content = path.read_bytes()
    _require_utf8(content, path)
    quote: str | bool = '"' if delimiter == "," else False
    parse = pacsv.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=bool(quote))
    try:
        header = pacsv.open_csv(pa.BufferReader(content), parse_options=parse).schema.names
        text, label = columns.pick(header, str(path))
        convert = pacsv.ConvertOptions(
            include_columns=[text, label], column_types={text: pa.string(), label: pa.string()}
        )
        table = pacsv.read_csv(pa.BufferReader(content), parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: is not valid {path.suffix[1:].upper()} ({one_line(error)})") from None
    return table[text].to_pylist(), table[label].to_pylist()


def _require_utf8(content: bytes, path: Path) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); convert the file, "
            f"e.g. iconv -f latin1 -t utf-8"
        ) from None


def _read_with_datasets(
    paths: Sequence[Path], builder: str, columns: Columns, where: str
) -> tuple[list[Any], list[Any]]:
    import datasets

    if builder == "json":
        for path in paths:
            _require_utf8(path.read_bytes(), path)
    # A cache of its own: nothing of the user's is written, nothing stale is read.
    with tempfile.TemporaryDirectory(prefix="sst2-ray-") as cache, quiet_datasets():
        try:
            data = datasets.load_dataset(builder, data_files=[str(p) for p in paths], split="train", cache_dir=cache)  # nosec B615: local files
        except Exception as error:  # the library wraps what pyarrow and pandas raise in classes of its own
            cause = one_line(error.__cause__ or error)
            raise InputError(f"{where}: is not valid {paths[0].suffix[1:].upper()} ({cause})") from None
        return columns_of(data, columns, where)


def columns_of(data: Any, columns: Columns, where: str) -> tuple[list[Any], list[Any]]:
    """Texts and labels of a `datasets.Dataset`; numbers of a ClassLabel become the names that they stand for."""
    text, label = columns.pick(data.column_names, where)
    labels = list(data[label])
    names = getattr(data.features[label], "names", None)
    if names is not None:
        labels = [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in labels]
    return list(data[text]), labels


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Within it, `datasets` and `huggingface_hub` draw no progress bars and log errors alone."""
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


def local_copy(uri: str, folder: Path, flag: str) -> Path:
    """Copy a file, or the splits of a folder, of s3://, gs:// or another URI that pyarrow.fs opens into `folder`."""
    import pyarrow.fs as pafs

    name = uri.rstrip("/").rsplit("/", 1)[-1]
    try:
        source, path = pafs.FileSystem.from_uri(uri)
        info = source.get_file_info(path)
        if info.type == pafs.FileType.NotFound:
            raise InputError(f"{flag} {uri}: no such file or folder")
        if info.is_file:
            files = {name: path}
        else:
            below = source.get_file_info(pafs.FileSelector(path))
            files = {f"{name}/{i.base_name}": i.path for i in below if i.base_name.startswith(SPLIT_STEMS)}
        (folder / name).parent.mkdir(parents=True)
        for target, origin in files.items():
            (folder / target).parent.mkdir(exist_ok=True)
            pafs.copy_files(
                origin, str(folder / target), source_filesystem=source, destination_filesystem=pafs.LocalFileSystem()
            )
    except (OSError, ValueError) as error:  # pyarrow's own errors are subclasses of these
        raise InputError(f"{flag} {uri}: cannot be read ({one_line(error)})") from None
    return folder / name


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, cut to 160 characters; its class where there is none."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split())[:160] if lines else type(error).__name__
