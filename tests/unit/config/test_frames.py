"""Tables in memory as `data`: the rows that a run reads are those of the table."""

from __future__ import annotations

from pathlib import Path

import datasets
import pandas as pd
import polars
import pyarrow as pa
import pytest

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits

NUM_ROWS = 60
COLUMNS = {"text": [f"review number {i} of many" for i in range(NUM_ROWS)], "label": ["bad", "good"] * (NUM_ROWS // 2)}
TABLES = {
    "pandas": pd.DataFrame,
    "polars": polars.DataFrame,
    "pyarrow": pa.table,
    "datasets": datasets.Dataset.from_dict,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("library", TABLES)
def test_a_table_is_read_as_the_file_that_it_would_be(library: str) -> None:
    config = TrainConfig(batch_size=8, data=TABLES[library](COLUMNS))
    splits = load_splits(config)
    assert sorted([*splits.train.texts, *splits.dev.texts]) == sorted(COLUMNS["text"])
    assert splits.classes.names == ("bad", "good")


def test_equal_tables_have_equal_configs_and_others_do_not() -> None:
    one, other = pd.DataFrame(COLUMNS), pd.DataFrame({**COLUMNS, "label": ["good", "bad"] * (NUM_ROWS // 2)})
    assert TrainConfig(data=one) == TrainConfig(data=one.copy())
    assert TrainConfig(data=one).run_name != TrainConfig(data=other).run_name
    assert SweepConfig(base=TrainConfig(data=one)).trials_hash != SweepConfig(base=TrainConfig(data=other)).trials_hash


def test_the_rows_of_a_filtered_dataset_are_those_that_are_left_with_their_class_names() -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    whole = datasets.Dataset.from_dict({**COLUMNS, "label": [0, 1] * (NUM_ROWS // 2)}, features=features)
    part = whole.select(range(10, NUM_ROWS))
    splits = load_splits(TrainConfig(batch_size=8, data=part))
    assert sorted([*splits.train.texts, *splits.dev.texts]) == sorted(COLUMNS["text"][10:])
    assert splits.classes.names == ("ham", "spam")


def test_splits_stand_for_a_folder_of_them() -> None:
    frame = pd.DataFrame(COLUMNS)
    splits = load_splits(TrainConfig(batch_size=8, data={"train": frame[:40], "validation": frame[40:]}))
    assert (len(splits.train), splits.dev.texts) == (40, COLUMNS["text"][40:])


def test_dev_data_may_be_a_table_and_a_path_an_object(tmp_path: Path) -> None:
    frame = pd.DataFrame(COLUMNS)
    frame[:40].to_csv(tmp_path / "reviews.csv", index=False)
    splits = load_splits(TrainConfig(batch_size=8, data=tmp_path / "reviews.csv", dev_data=frame[40:]))
    assert splits.dev.texts == COLUMNS["text"][40:]


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert TrainConfig(data=pd.DataFrame(COLUMNS)).data.startswith(str(tmp_path / "temporary"))
