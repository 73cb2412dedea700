"""Flags of predict that do not fit together are told in one line."""

from __future__ import annotations

import pytest

from sst2_ray.errors import InputError
from sst2_ray.predict.config import PredictConfig


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"text": ("fine",)}, "--num-workers 2: needs files that workers can read; give --input FOLDER"),
        ({"input": "-", "out": "out"}, "--num-workers 2: needs files that workers can read; give --input FOLDER"),
        ({"input": "in"}, "--num-workers 2: say where to write: --out FOLDER"),
        ({"input": "in", "out": "-"}, "--num-workers 2: say where to write: --out FOLDER"),
        ({"input": "in", "out": "out.csv"}, "--out out.csv: with --num-workers it is a folder"),
    ],
)
def test_a_cluster_reads_and_writes_folders(values: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        PredictConfig(model_dir="m", num_workers=2, **values)  # type: ignore[arg-type]
