"""Tests that the soak's page says what the soak came to."""

from __future__ import annotations

import json
import shutil

from benchmarks.soak import KINDS, Planned, write_docs
from tests.support.faults import REPOSITORY

RESULT = json.loads((REPOSITORY / "benchmarks/results/soak.json").read_text())


def test_the_page_holds_the_table_of_the_committed_result(tmp_path):
    shutil.copy(REPOSITORY / "docs/faults.md", tmp_path / "faults.md")
    write_docs(RESULT, tmp_path / "faults.md")
    assert (tmp_path / "faults.md").read_text() == (REPOSITORY / "docs/faults.md").read_text()


def test_a_run_that_failed_is_not_counted_as_one_that_passed(tmp_path):
    runs = [{**run, "passed": number > 0} for number, run in enumerate(RESULT["runs"])]
    page = tmp_path / "page.md"
    page.write_text("<!-- soak -->\nan older table\n<!-- /soak -->\nafter\n")
    write_docs({**RESULT, "runs": runs}, page)
    assert f"**{len(runs) - 1} of {len(runs)}**" in page.read_text()
    assert "older" not in page.read_text()
    assert page.read_text().endswith("<!-- /soak -->\nafter\n")


def test_every_kind_of_fault_leaves_a_mark_when_it_happens(tmp_path):
    for kind in KINDS:
        faults = Planned(kind, attempt=1, rank=0, step=7, mark=tmp_path / kind).faults
        assert [fault.path for fault in faults if fault.path] == [str(tmp_path / kind)]
        assert {(fault.attempt, fault.rank, fault.step) for fault in faults} == {(1, 0, 7)}
