"""The notebooks of the documentation run from top to bottom, print no chatter and leave nothing running."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import REPOSITORY
from tests.support.heads import pids_of
from tests.support.notebooks import notebook
from tests.support.waiting import waited

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))


def cells_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_two_small_ones_without_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["compare_two_models", "own_data"]
    for path in NOTEBOOKS:
        assert path.stat().st_size < 20_000
        assert not any(cell.get("outputs") for cell in cells_of(path))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_shows_values_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    tables = 0
    with notebook(tmp_path) as book:
        for cell in cells_of(path):
            if cell["cell_type"] != "code":
                continue
            code = "".join(cell["source"])
            reply = book.end(book.start(code), timeout_s=400)
            assert reply["status"] == "ok", (code, reply)
            chatter = [m["content"]["text"] for m in book.shown if m["content"].get("name") == "stderr"]
            assert not chatter, (code, chatter)
            if "sst2_ray.train(" not in code and "sst2_ray.sweep(" not in code:
                assert not book.text, (code, book.text)
            tables += "<table" in book.result.get("text/html", "")
        book.manager.shutdown_kernel()
        waited(lambda: not pids_of(str(tmp_path)), "the end of all processes", 20)
    assert tables >= 4
    assert (tmp_path / "report" / "report.html").exists() == (path.stem == "compare_two_models")
