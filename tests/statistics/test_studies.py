"""The product's own verdicts and intervals over simulated studies with a known truth.

The short form runs with `make test`; the long one (1,000 studies a cell, minutes on one core) with `make test-slow`, and
writes its table into docs/results.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.statistics.cells import Cell, cells

pytestmark = pytest.mark.statistics

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
BEGIN, END = "<!-- studies: written by pytest -m 'slow and statistics', do not edit -->", "<!-- end of studies -->"
NUM_STUDIES, FEW_STUDIES = 1000, 60


def name(cell: Cell) -> str:
    return f"{cell.statement}; {cell.truth}; {cell.num_seeds} seeds"


def error(rate: float, num: int) -> float:
    """Standard error of a share of so many studies."""
    return max((rate * (1 - rate) / num) ** 0.5, 1 / num)


@pytest.mark.parametrize(
    "cell", [c for c in cells() if not {"15", "45"} & set(re.findall(r"\d+", c.statement + c.truth))], ids=name
)
def test_a_few_studies_are_not_far_from_what_is_claimed(cell: Cell) -> None:
    rate = cell.rate(FEW_STUDIES, 10_000)
    slack = 4 * error(min(max(cell.low, 0.05), cell.high, 0.95), FEW_STUDIES)
    assert cell.low - slack <= rate <= cell.high + slack


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_studies_a_cell_keep_what_is_claimed() -> None:
    found = [(cell, cell.rate(NUM_STUDIES, 0)) for cell in cells()]
    write_table(found)
    assert not [f"{name(c)}: {rate:.4f}" for c, rate in found if not c.low <= rate <= c.high]


def write_table(found: list[tuple[Cell, float]]) -> None:
    lines = ["| what is printed | truth | seeds | of 1,000 studies, % | bounds, % |", "|---|---|---|---:|---|"]
    lines += [f"| {c.statement} | {c.truth} | {c.num_seeds} | {100 * rate:.1f} | {c.bounds} |" for c, rate in found]
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
