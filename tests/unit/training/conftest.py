"""Fixtures of what several tests train, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support import models


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Train on one thread: toy models gain nothing from several, which wait for each other wherever the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sbert_folder(tmp_path_factory) -> Path:
    return models.sbert_folder(tmp_path_factory.mktemp("training") / "sbert")
