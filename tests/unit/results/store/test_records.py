from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from sst2_ray.results.store import docs
from sst2_ray.results.store.schema import KEYS, RECORDS, arrow_schema

ROOT = Path(__file__).parents[4]

# Key columns of schema version 1. Columns are only ever added, which is what keeps old files readable.
VERSION_1 = {
    "trials": {"experiment": pa.string(), "trial_id": pa.string(), "attempt": pa.int64(), "status": pa.string(),
               "written_at": pa.timestamp("us", tz="UTC"), "configuration_id": pa.string(), "config_json": pa.string(),
               "seed": pa.int64(), "learning_rate": pa.float64(), "batch_size": pa.int64(), "best_dev_accuracy": pa.float64(),
               "last_dev_accuracy": pa.float64(), "best_dev_f1": pa.float64(), "seconds": pa.float64()},
    "epochs": {"experiment": pa.string(), "trial_id": pa.string(), "attempt": pa.int64(), "split": pa.string(),
               "global_step": pa.int64(), "epoch": pa.float64(), "train_loss": pa.float64(), "dev_loss": pa.float64(),
               "dev_accuracy": pa.float64(), "dev_f1": pa.float64(), "dev_precision": pa.float64(), "dev_recall": pa.float64()},
    "predictions": {"experiment": pa.string(), "trial_id": pa.string(), "attempt": pa.int64(), "split": pa.string(),
                    "global_step": pa.int64(), "row_id": pa.int64(), "text": pa.string(), "label": pa.int64(),
                    "predicted": pa.int64(), "probability": pa.float64()},
}  # fmt: skip


@pytest.mark.parametrize("dataset", list(RECORDS))
def test_columns_of_version_1_are_still_there_with_their_types(dataset: str) -> None:
    schema = arrow_schema(dataset)
    assert {name: schema.field(name).type for name in VERSION_1[dataset]} == VERSION_1[dataset]


@pytest.mark.parametrize("dataset", list(RECORDS))
def test_every_field_says_what_it_means(dataset: str) -> None:
    for field in dataclasses.fields(RECORDS[dataset]):
        assert field.metadata["doc"].strip(), field.name


@pytest.mark.parametrize("dataset", list(RECORDS))
def test_keys_are_never_null(dataset: str) -> None:
    schema = arrow_schema(dataset)
    assert not any(schema.field(name).nullable for name in KEYS[dataset])


def test_the_page_of_the_fields_is_up_to_date() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    assert page == docs.with_fields(page), "run: python -m sst2_ray.results.store.docs docs/results.md"
