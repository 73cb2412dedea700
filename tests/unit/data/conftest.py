"""Location of the real SST-2, for the tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sst2_folder() -> Path:
    folder = os.environ.get("SST2_RAY_DATA")
    if not folder:
        pytest.skip("SST2_RAY_DATA is not set: needs a folder with GLUE's SST-2 (train.tsv, dev.tsv)")
    return Path(folder)
