from __future__ import annotations

import pytest

from tests.support.faults import TinyRun


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """What every disturbed run is compared with; their folder, too, holds the model, the data and the storage of all."""
    run = TinyRun(tmp_path_factory.mktemp("faults"), "undisturbed")
    ended = run.run()
    assert ended.code == 0, ended.output
    return run
