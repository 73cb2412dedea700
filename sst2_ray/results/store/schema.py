"""The data sets of the results table: their records, keys and Arrow schemas."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import typing

import pyarrow as pa

from sst2_ray.errors import FailureClass
from sst2_ray.records import SCHEMA_VERSION, EpochRecord, PredictionRecord, Status, TrialRecord

RECORDS: dict[str, type] = {"trials": TrialRecord, "epochs": EpochRecord, "predictions": PredictionRecord}

KEYS: dict[str, tuple[str, ...]] = {
    "trials": ("experiment", "trial_id", "attempt"),
    "epochs": ("experiment", "trial_id", "attempt", "split", "global_step"),
    "predictions": ("experiment", "trial_id", "attempt", "split", "global_step", "row_id"),
}

_ARROW = {
    str: pa.string(),
    Status: pa.string(),
    FailureClass: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    dt.datetime: pa.timestamp("us", tz="UTC"),
}


@functools.cache
def arrow_schema(dataset: str) -> pa.Schema:
    """Return the pyarrow schema of `trials`, `epochs` or `predictions`, with docs and schema version as metadata."""
    record = RECORDS[dataset]
    hints = typing.get_type_hints(record)
    fields = []
    for f in dataclasses.fields(record):
        options = [t for t in typing.get_args(hints[f.name]) if t is not type(None)] or [hints[f.name]]
        meta = {"doc": f.metadata["doc"], "unit": f.metadata["unit"]}
        nullable = len(typing.get_args(hints[f.name])) > 0
        fields.append(pa.field(f.name, _ARROW[options[0]], nullable=nullable, metadata=meta))
    return pa.schema(fields, metadata={"sst2_ray.dataset": dataset, "sst2_ray.schema_version": str(SCHEMA_VERSION)})
