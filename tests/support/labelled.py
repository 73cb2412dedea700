"""Files of labelled texts in the forms that programs and people leave behind, each written into a folder of the test's own."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.reviews import reviews

Rows = list[tuple[str, object]]


def labelled(count: int = 60, labels: Sequence[object] = (0, 1)) -> Rows:
    """`count` different sentences; their labels in turn, in the order of `labels`."""
    return [(text, labels[i % len(labels)]) for i, (text, _) in enumerate(reviews(count))]


def delimited(
    path: Path,
    rows: Sequence[Sequence[object]],
    *,
    header: Sequence[str] = ("text", "label"),
    delimiter: str = ",",
    encoding: str = "utf-8",
    quoting: int = csv.QUOTE_MINIMAL,
) -> Path:
    """A table as Python's csv module, pandas and spreadsheets write it; compressed if the name ends in .gz."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter, lineterminator="\n", quoting=quoting)
    writer.writerows([header, *rows] if header else rows)
    content = sink.getvalue().encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def class_label(path: Path, names: list[str], rows: Rows) -> Path:
    """Parquet as `datasets` writes a ClassLabel: numbers, and in the schema the names that they stand for."""
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"text": [text for text, _ in rows], "label": pa.array([label for _, label in rows], pa.int64())})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    return path
