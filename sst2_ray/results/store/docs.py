"""Generator of the field tables in docs/results.md: `python -m sst2_ray.results.store.docs docs/results.md`."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa

from sst2_ray.records import SCHEMA_VERSION
from sst2_ray.results.store.schema import KEYS, RECORDS, arrow_schema

BEGIN = "<!-- fields: made from sst2_ray/records.py by `python -m sst2_ray.results.store.docs docs/results.md`, do not edit -->"
END = "<!-- end of fields -->"

_TYPES = {
    pa.string(): "string",
    pa.int64(): "int64",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.timestamp("us", tz="UTC"): "timestamp[us, UTC]",
}


def fields_markdown() -> str:
    """Render one table per data set: field, type, unit, meaning."""
    parts = [
        f"Schema version {SCHEMA_VERSION}. Fields in bold are never null; those marked as key together name a record."
    ]
    for dataset, record in RECORDS.items():
        summary = (record.__doc__ or "").strip().splitlines()[0]
        lines = [f"### {dataset}", "", summary, "", "| field | type | unit | meaning |", "|---|---|---|---|"]
        for field in arrow_schema(dataset):
            name = f"`{field.name}`" if field.nullable else f"**`{field.name}`**"
            key = " (key)" if field.name in KEYS[dataset] else ""
            meta = {k.decode(): v.decode() for k, v in field.metadata.items()}
            doc = meta["doc"].replace("|", "\\|")
            lines.append(f"| {name}{key} | {_TYPES[field.type]} | {meta['unit']} | {doc} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def with_fields(page: str) -> str:
    """Replace the generated part of a page. Raises ValueError when one of the two marks is missing."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page needs one line {BEGIN!r} and one line {END!r}")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{fields_markdown()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_fields(path.read_text()))
