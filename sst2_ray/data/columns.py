"""Texts in Arrow's form, for millions of rows: half of the memory that strings of Python take, or a file that is mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sst2_ray.data.texts import Text

T = TypeVar("T")

PIECE = 16_384
"""Texts that are strings of Python at a time."""


class TextColumn(Sequence[Text | None]):
    """N texts, or pairs of texts, of which some may be missing (None); iterating makes strings of a piece at a time.

    Args:
        columns: One Arrow array of strings, or the two of pairs, with equal chunks and with nulls in the same places.
    """

    def __init__(self, *columns: pa.ChunkedArray) -> None:
        self.columns = columns

    @classmethod
    def of(cls, pieces: Iterable[Sequence[Text | None]]) -> TextColumn:
        """Convert texts, a piece at a time; all of them are single, or all pairs."""
        return cls.joined([arrays_of(piece) for piece in pieces if piece])

    @classmethod
    def joined(cls, parts: Sequence[Sequence[pa.Array]]) -> TextColumn:
        """Lay arrays end to end: of single texts one a part, of pairs two."""
        # A part in which all are missing cannot tell whether they were pairs.
        width = max(map(len, parts), default=1)
        columns = [[part[min(number, len(part) - 1)] for part in parts] for number in range(width)]
        return cls(*(pa.chunked_array(chunks, pa.large_string()) for chunks in columns))

    def __len__(self) -> int:
        return len(self.columns[0])

    @overload
    def __getitem__(self, at: int) -> Text | None: ...
    @overload
    def __getitem__(self, at: slice) -> list[Text | None]: ...
    def __getitem__(self, at: int | slice) -> Text | list[Text | None] | None:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                return [self[number] for number in range(start, stop, step)]
            return _texts([column.slice(start, max(0, stop - start)) for column in self.columns])
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        cells = [column[at % len(self)].as_py() for column in self.columns]
        return cells[0] if len(cells) == 1 or cells[0] is None else (cells[0], cells[1])

    def __iter__(self) -> Iterator[Text | None]:
        for _, piece in pieces_of(self):
            yield from piece

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TextColumn({self[:3]}{', ...' if len(self) > 3 else ''}, {len(self):,} texts)"

    def __reduce__(self) -> tuple[Callable[[pa.Buffer], TextColumn], tuple[pa.Buffer]]:
        # A part of an array is pickled with the whole of it; a stream holds the part alone.
        table = pa.Table.from_arrays(list(self.columns), names=[str(number) for number in range(len(self.columns))])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return _of_stream, (sink.getvalue(),)

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Return the bytes of every text, [columns * N]."""
        ends = [
            np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset :][: len(chunk) + 1]
            for column in self.columns
            for chunk in column.chunks
            if len(chunk)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *map(np.diff, ends)])

    def arrays(self, start: int, stop: int) -> list[pa.Array]:
        """Return a part as Arrow arrays, which share the memory where they lie in one chunk."""
        return [_one(column.slice(start, stop - start)) for column in self.columns]

    def take(self, positions: npt.NDArray[np.int64]) -> TextColumn:
        """Return the texts at some places, in that order."""
        places = pa.Array.from_buffers(pa.int64(), len(positions), [None, pa.py_buffer(positions)])
        return TextColumn(*(column.take(places) for column in self.columns))


def _of_stream(stream: pa.Buffer) -> TextColumn:
    return TextColumn(*pa.ipc.open_stream(stream).read_all().columns)


def as_column(texts: Sequence[Text | None]) -> TextColumn:
    """Return texts in Arrow's form, in which many are already."""
    return texts if isinstance(texts, TextColumn) else TextColumn.of([texts])


def pieces_of(texts: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """Yield texts in lists of at most `PIECE`, each with the place of its first."""
    for start in range(0, len(texts), PIECE):
        yield start, texts[start : start + PIECE]


def arrays_of(texts: Sequence[Text | None]) -> list[pa.Array]:
    """Convert texts to an Arrow array, pairs to two."""
    if not any(isinstance(text, tuple) for text in texts):
        return [_array(texts)]  # type: ignore[arg-type]
    return [_array([text and text[side] for text in texts]) for side in (0, 1)]


def _array(texts: Sequence[str | None]) -> pa.Array:
    """Make an array from its buffers: `pa.array` imports pandas to see whether it is given a Series."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    is_there = np.packbits(np.array([text is not None for text in texts], dtype=np.bool_), bitorder="little")
    buffers = [pa.py_buffer(is_there), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def _texts(columns: Sequence[pa.ChunkedArray]) -> list[Text | None]:
    firsts = columns[0].to_pylist()
    if len(columns) == 1:
        return firsts
    return [None if a is None else (a, b) for a, b in zip(firsts, columns[1].to_pylist(), strict=True)]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
