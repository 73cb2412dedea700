"""JSON Lines, and JSON documents as pandas and others write them, as rows of text cells."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from sst2_ray.data.streams import open_text
from sst2_ray.errors import InputError

Record = Mapping[str, object]

_NESTED = (list, dict)
_MAX_NAMED = 3
_FORMS = "records, or a column a key (pandas' forms), or JSON Lines"


class JsonRows:
    """The records of one file; columns are the keys of all records, in the order of their first use.

    Checks the whole file when made, so that an error does not come after hours of computing.

    Raises:
        InputError: Rows that are no JSON objects, or hold half a character: counted, three named.
    """

    def __init__(self, path: Path, suffix: str, encoding: str | None) -> None:
        self.path, self._encoding = path, encoding
        self._records = _document(path, encoding) if suffix == ".json" else None
        self.columns: list[str] = []
        self.num_rows = 0
        self.num_nested: Counter[str] = Counter()
        """Rows of each column whose cell is a list or an object; others are read as text, as every cell of CSV is."""
        seen: dict[str, None] = {}
        bad: list[str] = []
        for record in self._each(bad):
            self.num_rows += 1
            if not seen.keys() >= record.keys():
                seen.update(dict.fromkeys(record))
            if any(isinstance(value, str) and not _is_text(value) for value in record.values()):
                bad.append(f"row {self.num_rows} holds half a character (a surrogate without its pair)")
            if nested := [name for name, value in record.items() if isinstance(value, _NESTED)]:
                self.num_nested.update(nested)
        if bad:
            named = ", ".join(bad[:_MAX_NAMED])
            raise InputError(f"{path}: {len(bad):,} rows cannot be read: {named}" + ", ..." * (len(bad) > _MAX_NAMED))
        self.columns = list(seen)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield record batches of at most `rows` rows; a key that a record lacks is null."""
        records = iter(self._each([]))
        while some := list(itertools.islice(records, rows)):
            arrays = [pa.array([_as_text(r.get(name)) for r in some], pa.string()) for name in self.columns]
            yield pa.record_batch(arrays, names=self.columns)

    def _each(self, bad: list[str]) -> Iterable[Record]:
        return _lines(self.path, self._encoding, bad) if self._records is None else self._records


def _lines(path: Path, encoding: str | None, bad: list[str]) -> Iterator[Record]:
    """Yield the objects of a JSON Lines file; other lines are described in `bad`."""
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                yield record
            else:
                bad.append(f"line {number} is not a JSON object ({_shown(line)})")


def _document(path: Path, encoding: str | None) -> Sequence[Record] | None:
    """Read a JSON document of several forms; None: it is JSON Lines."""
    with open_text(path, encoding) as file:
        content = file.read()
    try:
        value = json.loads(content)
    except ValueError as error:
        if content.count(b"\n", 0, len(content.rstrip())):  # several lines: JSON Lines under another name
            return None
        raise InputError(f"{path}: is not JSON ({str(error)[:80]})") from None
    records = _records(value)
    if records is None:
        raise InputError(f"{path}: holds no table; it must be {_FORMS}")
    return records


def _records(value: object) -> Sequence[Record] | None:
    """Turn a document into records, from: a list of them, a column a key, pandas' `split` or `table`."""
    if isinstance(value, list):
        return value if all(isinstance(record, dict) for record in value) else None
    if not isinstance(value, dict):
        return None
    names, cells = value.get("columns"), value.get("data")
    if isinstance(cells, list) and isinstance(names, list):
        return [dict(zip(map(str, names), row, strict=False)) for row in cells if isinstance(row, list)]
    if isinstance(cells, list) and all(isinstance(row, dict) for row in cells):
        return cells
    return _columns(value) or ([value] if any(isinstance(cell, str) for cell in value.values()) else None)


def _columns(value: dict[str, object]) -> Sequence[Record] | None:
    """Turn columns into records: each a list of cells, or a cell a row number."""
    columns = list(value.values())
    if all(isinstance(column, list) for column in columns):
        lists = [column for column in columns if isinstance(column, list)]
        same = len({len(column) for column in lists}) == 1
        return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)] if same else None
    by_row = {name: column for name, column in value.items() if isinstance(column, dict)}
    if len(by_row) < len(columns):
        return None
    rows = dict.fromkeys(itertools.chain.from_iterable(by_row.values()))
    return [{name: column.get(row) for name, column in by_row.items()} for row in rows]


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _is_text(value: str) -> bool:
    """Tell whether a string is valid Unicode: JSON can spell half of a surrogate pair."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").strip()
    return text if len(text) <= 40 else f"{text[:37]}..."
