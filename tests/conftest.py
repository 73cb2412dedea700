"""Environment that every test starts from: no cluster, hub, secret or fault of the user's environment reaches it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.environments import SmallRuns

_SCRUBBED = ("RAY_ADDRESS", "HF_TOKEN", "HF_ENDPOINT", "SST2_RAY_FAULTS")


# Examples are drawn anew each time and a failing one is printed; a slow machine is no failure.
settings.register_profile("sst2-ray", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("sst2-ray")


def pytest_configure() -> None:
    """Scrub the environment before anything is imported: huggingface_hub reads its variables at import."""
    for name in _SCRUBBED:
        os.environ.pop(name, None)
    # Tests that need a hub start one of their own, for a process of their own (tests/support/hub_server.py).
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture
def storage_path(tmp_path) -> str:
    """Return the path of a storage folder that does not exist yet."""
    return str(tmp_path / "runs")


@pytest.fixture(scope="module")
def small() -> Iterator[SmallRuns]:
    """Make model and data of small runs in a folder whose path is short."""
    from tests.support.environments import small_runs  # imports torch, which most tests do without

    with tempfile.TemporaryDirectory(prefix="env-", dir="/tmp") as folder:
        yield small_runs(Path(folder))
