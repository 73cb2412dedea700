from __future__ import annotations

import pytest

from tests.support.faults import TinyRun


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Return the run that every disturbed one is compared with; its folder holds the model, data and storage of all."""
    run = TinyRun(tmp_path_factory.mktemp("faults"), "undisturbed")
    ended = run.run()
    assert ended.code == 0, ended.output
    return run
