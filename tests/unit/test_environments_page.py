"""docs/environments.md: every environment names a test that is there, and every variable one that the code knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sst2_ray.run.environment import DRIVER_ENV, OWN_RAY_ENV, WORKER_ENV

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/environments.md").read_text(encoding="utf-8")
FILES = list((ROOT / "tests").rglob("test_*.py"))
ROWS = [
    line.strip("| ").split(" | ")
    for line in PAGE.partition("## Variables")[0].splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| Environment", "| Event"))
]


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_environment_names_tests_that_are_there(row: list[str]) -> None:
    named = re.findall(r"`([^`]+)`", row[-1])
    assert len(row) == 3 and named
    for name in named:
        file, _, function = name.partition("::")
        (path,) = (path for path in FILES if path.as_posix().endswith(f"/{file}"))
        assert function in functions(path), f"{file} has no {function}"


def test_every_variable_that_is_set_is_on_the_page() -> None:
    assert not [name for name in (*DRIVER_ENV, *OWN_RAY_ENV, *WORKER_ENV) if f"`{name}`" not in PAGE]
