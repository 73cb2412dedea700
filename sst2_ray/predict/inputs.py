"""Files of sentences to label, checked before a model is loaded, read a piece at a time."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from sst2_ray.data.files import find_files, local_copy
from sst2_ray.data.options import ReadOptions
from sst2_ray.data.readers import USUAL_COLUMNS, LabelledFile, open_labelled
from sst2_ray.data.texts import Text, stripped
from sst2_ray.errors import InputError

PIECE_ROWS = 16_384
"""Rows that are sorted by length, computed and written at once: enough that batches of like length are full."""

STDIN = "-"


class Sentences(Protocol):
    """Rows to label: those of all files of an input, or of a part of one."""

    @property
    def schema(self) -> pa.Schema:
        """Return the columns, the same in all files."""

    @property
    def path(self) -> Path:
        """Return the first file, for messages and for the format of standard output."""

    @property
    def has_labels(self) -> bool:
        """Tell whether the rows are scored as well."""

    @property
    def num_rows(self) -> int:
        """Count the rows."""

    def pieces(self) -> Iterator[tuple[LabelledFile, pa.RecordBatch]]:
        """Yield record batches of at most PIECE_ROWS rows, each with the file that reads its cells."""


class SentenceFiles:
    """The files of one `--input`: same columns, a text column, perhaps a label column.

    Raises:
        InputError: A file is damaged, empty, or has other columns than the first.
    """

    def __init__(self, name: str, paths: list[Path], options: ReadOptions, *, ignore_labels: bool = False) -> None:
        self.name = name
        self._files = [open_labelled(path, options, str(path), needs_label=False) for path in paths]
        first = self._files[0]
        self.schema, self.path = first.table.schema, paths[0]
        for file, path in zip(self._files, paths, strict=True):
            if not file.table.schema.equals(self.schema):
                raise InputError(f"{path}: has other columns than {paths[0]}; label them one at a time")
        self.reads_pairs = bool(first.text_columns)
        self.has_labels = first.label is not None and not ignore_labels
        self.num_rows = sum(file.table.count_rows() for file in self._files)
        if not self.num_rows:
            raise InputError(f"{name}: is empty; give a file with sentences")
        self.notes = list(dict.fromkeys(note for file in self._files for note in file.table.notes))

    def pieces(self) -> Iterator[tuple[LabelledFile, pa.RecordBatch]]:
        """Yield record batches of at most PIECE_ROWS rows, each with the file that reads its cells."""
        with named_after_flag():
            for file in self._files:
                for batch in file.batches(PIECE_ROWS):
                    yield file, batch

    def texts(self) -> Iterator[list[Text]]:
        """Yield the texts alone, a piece at a time, without the blank ones."""
        for file, piece in self.pieces():
            yield [text for text in file.texts(piece) if text is not None and stripped(text) is not None]


@contextlib.contextmanager
def open_input(name: str, options: ReadOptions, *, ignore_labels: bool = False) -> Iterator[SentenceFiles]:
    """Open a path, a pattern, a URI (copied to the local disk first) or `-` for standard input.

    Raises:
        InputError: With one line that begins with the flag.
    """
    with tempfile.TemporaryDirectory(prefix="sst2-ray-") as scratch:
        with named_after_flag(f"{scratch}/"):
            if name == STDIN:
                name, paths = "standard input", [_spool_stdin(Path(scratch))]
            else:
                local = str(local_copy(name, Path(scratch), "--input")) if "://" in name else name
                paths = find_files(local, "--input")
            files = SentenceFiles(name, paths, options, ignore_labels=ignore_labels)
        yield files


@contextlib.contextmanager
def named_after_flag(scratch: str = "") -> Iterator[None]:
    """Begin the messages of refused files with the flag, and leave out the folder of a local copy."""
    try:
        yield
    except InputError as error:
        message = str(error).replace(scratch, "") if scratch else str(error)
        raise InputError(message if message.startswith("--") else f"--input {message}") from None


def _spool_stdin(folder: Path) -> Path:
    """Write standard input to a file whose suffix says its format, as far as its first bytes show it."""
    spool = folder / "stdin"
    with spool.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    with spool.open("rb") as file:
        head = file.read(2**16)
    return spool.rename(spool.with_suffix(_suffix_of(head)))


def _suffix_of(head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return ".parquet"
    if head.startswith(b"ARROW1"):
        return ".arrow"
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith(("{", "[")):
        return ".json"
    first = text.split("\n", 1)[0]
    cells = {cell.strip().strip('"').casefold() for cell in re.split(r"[,;|\t]", first)}
    if cells & USUAL_COLUMNS:
        return ".tsv" if "\t" in first else ".csv"
    return ".txt"
