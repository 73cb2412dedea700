"""Environment that every test starts from: no cluster, hub, secret or fault of the user's environment reaches it."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

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
