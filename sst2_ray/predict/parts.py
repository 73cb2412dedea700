"""Files to label on a cluster: found in any storage, checked, and cut into parts that are computed and written one by one."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from sst2_ray.data.files import find_files, has_known_format, is_hidden
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.readers import LabelledFile, open_labelled
from sst2_ray.data.streams import one_line
from sst2_ray.errors import InputError
from sst2_ray.formatting import without_secret
from sst2_ray.predict.inputs import PIECE_ROWS, named_after_flag
from sst2_ray.storage import RETRY_FOR_S, Storage

PART_ROWS = 2 * PIECE_ROWS
"""Rows after which a part is closed: the most that a worker computes again after a kill, and what it holds in memory."""


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file of the input, in a local folder or an object store."""

    folder: str
    """Absolute path or URI."""
    name: str

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        """Yield the file's local path, that of a temporary copy where it lies in an object store."""
        with tempfile.TemporaryDirectory(prefix="sst2-ray-") as scratch, named_after_flag(f"{scratch}/"):
            storage = Storage.open(self.folder, "--input").with_retries(RETRY_FOR_S)
            path = Path(storage.path(self.name))
            if not storage.is_local:
                path = Path(scratch, self.name)
                storage.download(self.name, path)
            elif not path.exists():
                raise InputError(f"{path}: is not there on every node; give a folder that all nodes see, or a URI")
            yield path


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Facts about an input file, known before anything is computed."""

    file: InputFile
    fingerprint: str
    """Hash of its bytes."""
    pieces: tuple[int, ...]
    """Rows of each piece that it is read in."""
    schema: pa.Schema
    has_labels: bool
    reads_pairs: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive pieces of one input file, and the output file of their rows."""

    number: int
    file: InputFile
    first_piece: int
    num_pieces: int
    num_rows: int
    first_row: int
    """Position of the first row in the whole input."""

    @property
    def output(self) -> str:
        """Return the name of the output file; names sort in the order of the rows."""
        return f"part-{self.number:06d}.parquet"


def find_inputs(pattern: str) -> list[InputFile]:
    """Find the files of a known format that a path or a URI stands for, sorted by name.

    Args:
        pattern: A file, a folder, or a pattern as the last part (`s3://bucket/reviews/2024-*.parquet`).

    Raises:
        InputError: There are none.
    """
    if "://" not in pattern:
        return [InputFile(folder=str(path.resolve().parent), name=path.name) for path in find_files(pattern, "--input")]
    uri, question, options = pattern.partition("?")
    folder, _, last = uri.rstrip("/").rpartition("/")
    parent, whole = f"{folder}{question}{options}", Storage.open(pattern, "--input")
    try:
        info = whole.filesystem.get_file_info(whole.root)
        if info.type == pafs.FileType.File:
            return [InputFile(folder=parent, name=unquote(last))]
        if info.type == pafs.FileType.Directory:
            names, parent = whole.list(), pattern
        else:
            names = fnmatch.filter(Storage.open(parent, "--input").list(), unquote(last))
    except OSError as error:
        raise InputError(f"--input {without_secret(pattern)}: cannot be read ({one_line(error)})") from None
    known = [name for name in sorted(names) if not is_hidden(name) and has_known_format(Path(name))]
    if not known:
        raise InputError(
            f"--input {without_secret(pattern)}: no such file or folder, or no file of a known format in it"
        )
    return [InputFile(folder=parent, name=name) for name in known]


def check_file(file: InputFile, options: ReadOptions) -> FileFacts:
    """Read a file once from end to end, so that what is wrong with it is known before anything is computed.

    Raises:
        InputError: The file is damaged or empty, or has no text column.
    """
    with file.local() as path:
        opened = open_labelled(path, options, str(path), needs_label=False)
        return FileFacts(
            file=file,
            fingerprint=fingerprint(path),
            pieces=tuple(batch.num_rows for batch in opened.batches(PIECE_ROWS)),
            schema=opened.table.schema,
            has_labels=opened.label is not None,
            reads_pairs=bool(opened.text_columns),
            notes=tuple(opened.table.notes),
        )


def fingerprint(path: Path) -> str:
    """Hash the bytes of a file, or of all files of a folder with their names, to 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix() if path.is_dir() else ''}\0".encode())
        with file.open("rb") as opened:
            while chunk := opened.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def check_together(facts: Sequence[FileFacts], name: str) -> None:
    """Refuse files that have other columns than the first, and an input without a row."""
    for one in facts:
        if not one.schema.equals(facts[0].schema):
            first = facts[0].file.name
            raise InputError(f"--input {one.file.name}: has other columns than {first}; label them one at a time")
    if not any(one.pieces for one in facts):
        raise InputError(f"--input {name}: is empty; give files with sentences")


def cut(facts: Iterable[FileFacts]) -> list[Part]:
    """Cut files into parts of whole pieces: the pieces, and so the bits of every prediction, are those of one process."""
    parts: list[Part] = []
    first_row = 0
    for one in facts:
        start = rows = 0
        for end, size in enumerate(one.pieces, start=1):
            rows += size
            if rows and (rows >= PART_ROWS or end == len(one.pieces)):
                parts.append(
                    Part(
                        number=len(parts),
                        file=one.file,
                        first_piece=start,
                        num_pieces=end - start,
                        num_rows=rows,
                        first_row=first_row,
                    )
                )
                first_row += rows
                start, rows = end, 0
    return parts


class PartReader:
    """A reader of parts that goes forward through a file: parts that follow each other read it once."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._open = contextlib.ExitStack()
        self._file: InputFile | None = None
        self._next = 0

    def pieces(self, part: Part) -> Iterator[tuple[LabelledFile, pa.RecordBatch]]:
        """Yield the record batches of a part, each with the file that reads its cells."""
        if self._file != part.file or self._next > part.first_piece:
            self._open.close()
            path = self._open.enter_context(part.file.local())
            self._labelled = open_labelled(path, self._options, str(path), needs_label=False)
            self._batches, self._file, self._next = self._labelled.batches(PIECE_ROWS), part.file, 0
        with named_after_flag(f"{self._labelled.table.path.parent}/"):
            while self._next < part.first_piece + part.num_pieces:
                piece = next(self._batches)
                self._next += 1
                if self._next > part.first_piece:
                    yield self._labelled, piece


@dataclass(frozen=True, kw_only=True)
class PartInput:
    """A part of the input, in the form in which `label_file` reads files."""

    part: Part
    reader: PartReader
    schema: pa.Schema
    has_labels: bool

    @property
    def num_rows(self) -> int:
        """Return the rows of the part."""
        return self.part.num_rows

    @property
    def path(self) -> Path:
        """Return the name of the file, for messages."""
        return Path(self.part.file.name)

    def pieces(self) -> Iterator[tuple[LabelledFile, pa.RecordBatch]]:
        """Yield record batches, each with the file that reads its cells."""
        return self.reader.pieces(self.part)
