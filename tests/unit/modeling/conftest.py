"""Model folders that several tests share, made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import models
from tests.support.hub_server import packaged_sbert_folder


@pytest.fixture(scope="session")
def modernbert_folder(tmp_path_factory) -> Path:
    return models.modernbert_folder(tmp_path_factory.mktemp("models") / "modernbert")


@pytest.fixture(scope="session")
def sbert_folder(tmp_path_factory) -> Path:
    return models.sbert_folder(tmp_path_factory.mktemp("models") / "sbert")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    folder = packaged_sbert_folder()
    if folder is None:
        pytest.skip("the demo extra is not installed: needs the packaged all-MiniLM-L6-v2")
    return folder


@pytest.fixture(scope="session")
def modernbert_tokenizer_folder() -> Path:
    folder = os.environ.get("SST2_RAY_TOKENIZER")
    if not folder:
        pytest.skip("SST2_RAY_TOKENIZER is not set: needs a folder with ModernBERT's tokenizer")
    return Path(folder)


@pytest.fixture(scope="session")
def sst2_dev() -> list[str]:
    folder = os.environ.get("SST2_RAY_DATA")
    if not folder:
        pytest.skip("SST2_RAY_DATA is not set: needs a folder with GLUE's SST-2 (train.tsv, dev.tsv)")
    lines = (Path(folder) / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.rsplit("\t", 1)[0].strip() for line in lines]
