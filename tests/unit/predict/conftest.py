"""Exports that several tests label with, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sst2_ray.cli import run
from tests.support import models


@pytest.fixture
def command(capsys):
    """Runs the command: exit code, stdout and stderr."""

    def call(*words):
        code = run("predict", [str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


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
