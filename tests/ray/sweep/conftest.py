"""A toy model and a storage folder for sweeps."""

from __future__ import annotations

import pytest

from tests.support import models
from tests.support.reviews import reviews, write_glue_folder
from tests.support.sweeps import WORDS, Sweeps, toy_flags


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Make a model and a data folder: 128 training sentences, 32 of dev."""
    folder = tmp_path_factory.mktemp("toy")
    model = models.modernbert_folder(folder / "toy")
    data = write_glue_folder(folder / "data", reviews(128), reviews(32, topic="show"))
    return str(model), str(data)


@pytest.fixture(scope="session")
def sweeps(toy: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    model, data = toy
    storage = tmp_path_factory.mktemp("storage")
    return Sweeps(storage, toy_flags(model, data, storage))


@pytest.fixture(scope="session")
def grid(sweeps: Sweeps) -> str:
    """Return what a grid of two learning rates under two seeds printed, which nobody disturbed."""
    done = sweeps.run("grid", *WORDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
