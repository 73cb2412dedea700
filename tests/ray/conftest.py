"""A local Ray of two CPUs in this process, which a module's runs share, and small models and data for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.runs import Runs, made_runs, started_ray


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return made_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    yield from started_ray(num_cpus=2)
