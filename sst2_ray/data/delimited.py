"""CSV, TSV and their kin: delimiter, header and quoting are found in the file; every cell is text.

Not through `datasets`: pandas, which reads text there, guesses types and takes the sentence "null" for missing.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sst2_ray.data.options import ReadOptions
from sst2_ray.data.streams import one_line, open_text, read_sample
from sst2_ray.errors import InputError
from sst2_ray.formatting import count

if TYPE_CHECKING:
    import pyarrow.csv as pacsv

_DELIMITERS = (",", "\t", ";", "|")
_SAMPLE_BYTES = 2**20
_SAMPLE_ROWS = 200
_QUOTING_BYTES = 64 * 2**20
"""Part of a TSV that decides its quoting."""
_BLOCK_BYTES = 4 * 2**20
_MAX_NAMED = 3
_PREFACE = re.compile(r'(?:[ ]*\r?\n)*(?:"?sep=(.)"?[ ]*\r?\n(?:[ ]*\r?\n)*)?', re.IGNORECASE)
"""Blank lines, and the line by which Excel is told the delimiter."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The form of one delimited file."""

    delimiter: str
    quoted: bool
    """Cells may stand in quotation marks, doubled inside."""
    header: bool
    skipped: int = 0
    """Lines before the first row: blank ones, and the one by which Excel is told the delimiter."""
    names: tuple[str, ...]
    """Names of the columns, stripped; without a header: text and label, or 1, 2, ..."""
    notes: tuple[str, ...]
    """Decisions that the user should know of, one line each."""


def find_dialect(path: Path, suffix: str, options: ReadOptions, usual: frozenset[str]) -> Dialect:
    """Decide how a file is written, from its first rows.

    Args:
        path: The file.
        suffix: .csv, .tsv or .txt, without that of a compression.
        options: Choices of the user, which come before what the file shows.
        usual: Names of columns, in lower case, by which a header is recognized.

    Raises:
        InputError: The file is empty or cannot be read.
    """
    _check_delimiter(options.separator, f"--delimiter {options.delimiter}: must be one ASCII character, or tab")
    sample = read_sample(path, options.encoding, _SAMPLE_BYTES)
    if not _without_preface(sample)[2].strip():
        raise InputError(f"{path}: is empty; give a file with text")
    known = usual | options.columns
    skipped, stated, sample = _without_preface(sample)
    if options.separator is None:
        _check_delimiter(stated, f"{path}: sep={stated} states no delimiter that can be read; give it with --delimiter")
    delimiter = options.separator or stated or _find_delimiter(sample, suffix, known)
    quoted, quoting_note = _find_quoting(path, sample, delimiter, options)
    rows = _records(sample, delimiter, quoted)
    _refuse_other_forms(path, rows[0], delimiter, quoted)
    header = _has_header(rows, known) if options.header == "auto" else options.header == "yes"
    names, header_note = tuple(cell.strip() for cell in rows[0]), None
    if not header:
        names, header_note = _names_without_header(rows)
    form_note = None
    if delimiter != _usual_delimiter(suffix) and options.separator is None:
        shown = {"\t": "a tab"}.get(delimiter, repr(delimiter))
        form_note = f"columns are divided by {shown}"
    notes = tuple(f"{path.name}: {note}" for note in (form_note, quoting_note, header_note) if note)
    return Dialect(delimiter=delimiter, quoted=quoted, header=header, skipped=skipped, names=names, notes=notes)


def read_delimited(path: Path, dialect: Dialect, encoding: str | None) -> Iterator[pa.RecordBatch]:
    """Yield the rows as record batches of text columns.

    Raises:
        InputError: Rows have too many or too few cells: counted, three named; raised after the last row.
    """
    import pyarrow.csv as pacsv

    bad: list[str] = []

    def skip(row: pacsv.InvalidRow) -> str:
        number = "" if row.number is None else f" in row {row.number - dialect.header}"
        bad.append(f"{row.actual_columns}{number} ({row.text[:40]!r})")
        return "skip"

    parse = pacsv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char='"' if dialect.quoted else False,
        newlines_in_values=dialect.quoted,
        invalid_row_handler=skip,
    )
    read = pacsv.ReadOptions(
        column_names=list(dialect.names),
        skip_rows=dialect.skipped,
        skip_rows_after_names=int(dialect.header),
        block_size=_BLOCK_BYTES,
        use_threads=False,  # bad rows have no number otherwise
    )
    convert = pacsv.ConvertOptions(column_types={name: pa.string() for name in dialect.names})
    try:
        with (
            open_text(path, encoding) as file,
            pacsv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as reader,
        ):
            yield from reader
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: cannot be read as a table ({one_line(error)})") from None
    if bad:
        named = ", ".join(bad[:_MAX_NAMED]) + (", ..." if len(bad) > _MAX_NAMED else "")
        raise InputError(
            f"{path}: {count(len(bad), 'row')} {'does' if len(bad) == 1 else 'do'} not have {len(dialect.names)} cells "
            f"as the first row has: {named}; "
            f"put quotation marks around cells that hold the delimiter, or choose --delimiter or --quoting"
        )


def is_table(path: Path, options: ReadOptions, usual: frozenset[str]) -> bool:
    """Tell whether a .txt file is a table: a delimiter was given, or tabs divide every row into equally many cells."""
    if options.separator is not None:
        return True
    lines = [line for line in read_sample(path, options.encoding, _SAMPLE_BYTES).splitlines() if line.strip()]
    widths = {line.count("\t") for line in lines[:_SAMPLE_ROWS]}
    known = usual | options.columns
    header = {cell.strip().casefold() for cell in re.split(r"[,;|]", lines[0])} if lines else set()
    return (len(widths) == 1 and widths != {0}) or (len(header) > 1 and bool(header & known))


# ---- decisions


def _without_preface(sample: str) -> tuple[int, str | None, str]:
    """Return the number of lines before the first row, the delimiter that Excel's line `sep=` states, and the rest."""
    match = _PREFACE.match(sample)
    assert match is not None
    return match[0].count("\n"), match[1], sample[match.end() :]


def _refuse_other_forms(path: Path, first: Sequence[str], delimiter: str, quoted: bool) -> None:
    """Refuse a file whose first row shows that it is no such table. Raises InputError."""
    if first[0].lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            if isinstance(json.loads(delimiter.join(first)), dict):
                raise InputError(f"{path}: holds JSON Lines; give it a name that ends in .jsonl")
    if quoted and any(re.fullmatch(r'\s+".*"', cell, re.DOTALL) for cell in first):
        raise InputError(
            f"{path}: spaces stand before the quotation marks of its cells, which then enclose nothing; "
            f"remove the spaces after the delimiter {delimiter!r}"
        )


def _check_delimiter(text: str | None, refusal: str) -> None:
    if text is not None and (len(text) != 1 or not text.isascii() or text in '"\r\n'):
        raise InputError(refusal)


def _usual_delimiter(suffix: str) -> str:
    return "," if suffix == ".csv" else "\t"


def _find_delimiter(sample: str, suffix: str, known: frozenset[str]) -> str:
    """Choose the delimiter by which the first row holds known names, else one that cuts all rows alike."""
    usual = _usual_delimiter(suffix)
    candidates = (usual, *(d for d in _DELIMITERS if d != usual))
    tables = {delimiter: _records(sample, delimiter, quoted=delimiter != "\t") for delimiter in candidates}
    for delimiter, rows in tables.items():
        if known & {cell.strip().casefold() for cell in rows[0]}:
            return delimiter
    for delimiter, rows in tables.items():
        if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            return delimiter
    return usual


def _find_quoting(path: Path, sample: str, delimiter: str, options: ReadOptions) -> tuple[bool, str | None]:
    """Decide whether cells may be quoted, and what to say of it.

    GLUE writes TSV without quoting, pandas and spreadsheets with it. In a quoted file every cell that holds a quotation
    mark begins and ends with one and doubles those inside; and quotation marks are there for a reason (the cell holds one,
    a delimiter or a line break), or all over a column.
    """
    if options.quoting != "auto":
        return options.quoting == "standard", None
    if delimiter != "\t":
        return True, None
    text = sample
    if len(sample) >= _SAMPLE_BYTES // 8:  # perhaps not the whole file
        text = read_sample(path, options.encoding, _QUOTING_BYTES)
    if '"' not in text:
        return False, None
    if _is_quoted(text):
        return True, "quotation marks enclose cells (as pandas writes TSV; --quoting none to read them as characters)"
    return False, "quotation marks are characters (as GLUE writes TSV; --quoting standard to read them as enclosing)"


def _is_quoted(text: str) -> bool:
    cell = re.compile(r'"((?:[^"]|"")*)"(?=[\t\r\n]|$)')
    num_cells, needed, position = 0, False, text.find('"')
    while position >= 0:
        if position and text[position - 1] not in "\t\r\n":
            return False
        match = cell.match(text, position)
        if match is None:
            return False
        num_cells += 1
        needed = needed or any(mark in match[1] for mark in '"\t\n')
        position = text.find('"', match.end())
    return needed or num_cells >= text.count("\n") - 1


def _records(sample: str, delimiter: str, quoted: bool) -> list[list[str]]:
    """Parse the first rows of a sample; blank lines are no rows."""
    csv.field_size_limit(sys.maxsize)
    lines = io.StringIO(sample, newline="")
    rows: list[list[str]] = []
    for row in csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE):
        if row:
            rows.append(row)
        if len(rows) == _SAMPLE_ROWS:
            break
    return rows


def _has_header(rows: Sequence[Sequence[str]], known: frozenset[str]) -> bool:
    """Take the first row for data where it holds no known name and one of its cells recurs below as a label would."""
    first, rest = rows[0], rows[1:]
    if known & {cell.strip().casefold() for cell in first} or not rest:
        return True
    for column, cell in enumerate(first):
        below = [row[column].strip() for row in rest if len(row) > column]
        if cell.strip() and cell.strip() in below and len(set(below)) <= max(2, len(below) // 4):
            return False
    return True


def _names_without_header(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], str]:
    """Name the columns of a file without a header: of two, the label's is the one with fewer different cells."""
    width = len(rows[0])
    if width == 1:
        return ("text",), "no header; the column is the text"
    if width != 2:
        numbers = tuple(str(number) for number in range(1, width + 1))
        return numbers, f"no header; its columns go by their numbers, 1 to {width}"
    kinds, sizes = [], []
    for column in range(2):
        cells = [row[column].strip() for row in rows if len(row) > column]
        kinds.append(len(set(cells)))
        sizes.append(sum(map(len, cells)))
    label = min((0, 1), key=lambda column: (kinds[column], sizes[column]))
    names = ("label", "text") if label == 0 else ("text", "label")
    return names, f"no header; column {2 - label} is the text, column {label + 1} the label"
