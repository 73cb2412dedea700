from __future__ import annotations

from pathlib import Path

import pytest

from sst2_ray.results.store.table import ResultsTable
from tests.support.synthetic_results import write_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> ResultsTable:
    """A made-up sweep of two models over 2 x 2 settings with 3 seeds; one trial a model failed, two were stopped early."""
    return write_study(
        str(tmp_path_factory.mktemp("study")), learning_rates=(4e-5, 8e-5), batch_sizes=(32, 64), epochs=3
    )


@pytest.fixture
def table(tmp_path: Path) -> ResultsTable:
    """An empty table."""
    return ResultsTable(str(tmp_path / "runs"))
