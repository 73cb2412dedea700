"""Exports that several tests label with, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import models


@pytest.fixture(scope="session")
def export(tmp_path_factory) -> Path:
    """A toy ModernBERT."""
    folder = tmp_path_factory.mktemp("launch")
    return models.export_of(models.modernbert_folder(folder / "modernbert"), folder / "export", max_length=64)


@pytest.fixture(scope="session")
def reviews_export(tmp_path_factory) -> Path:
    """A toy SBERT that says it was fine-tuned on rotten-tomatoes."""
    folder = tmp_path_factory.mktemp("launch")
    return models.export_of(models.sbert_folder(folder / "sbert"), folder / "export", corpora=("rotten-tomatoes",))
