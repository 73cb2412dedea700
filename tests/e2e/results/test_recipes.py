"""The recipes of docs/results.md, run as they stand: unmodified pandas, polars, DuckDB and Spark, and our own commands."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray.results.commands import main_report, main_results
from sst2_ray.results.store.compaction import compact
from sst2_ray.results.store.schema import KEYS
from tests.support.synthetic_results import MODERNBERT, SBERT, write_study

ROOT = Path(__file__).parents[3]


def recipes() -> dict[str, str]:
    """Heading -> code, of the page's Python blocks."""
    page = (ROOT / "docs" / "results.md").read_text()
    return {m[1]: m[2] for m in re.finditer(r"^### ([^\n]+)\n+```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/`, compacted."""
    root = tmp_path_factory.mktemp("recipes")
    table = write_study(
        str(root / "runs"), models=(MODERNBERT, SBERT), learning_rates=(8e-5,), batch_sizes=(32, 64), num_seeds=2
    )
    for dataset in KEYS:
        compact(table, dataset)
    return root


def commands() -> list[list[str]]:
    """The page's `sst2-ray results ...` and `sst2-ray report ...`, without comments and pipes; importing has a test of its own."""
    page = (ROOT / "docs" / "results.md").read_text()
    lines = re.findall(r"^sst2-ray ((?:results|report)\b[^#|\n]*)", page, re.MULTILINE)
    return [shlex.split(line) for line in lines if "import-tune" not in line]


def run(code: str, folder: Path) -> str:
    script = folder / "recipe.py"
    script.write_text(code)
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": python_path, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_a_recipe_for_each_tool() -> None:
    assert list(recipes()) == ["pandas", "polars", "DuckDB", "Spark", "Python, exactly once, without compaction"]


def test_pandas(folder: Path) -> None:
    out = run(recipes()["pandas"], folder)
    assert out.index("modernbert-base") < out.index("sbert")


def test_polars(folder: Path) -> None:
    pytest.importorskip("polars", reason="polars is not installed (the dev extra)")
    assert "dev_accuracy" in run(recipes()["polars"], folder)


def test_duckdb_on_the_raw_files(folder: Path) -> None:
    out = run(recipes()["DuckDB"], folder)
    assert "[8 rows x 6 columns]" in out or out.count("succeeded") + out.count("failed") == 8


def test_spark(folder: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("pyspark is not installed")
    assert "count" in run(recipes()["Spark"], folder)


def test_the_commands_of_the_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    main = {"results": main_results, "report": main_report}
    found = commands()
    assert len(found) >= 7
    for name, *arguments in found:
        assert main[name](arguments) == 0
    assert (folder / "report" / "report.html").exists()


def test_the_packages_own_reader(folder: Path) -> None:
    assert "best_dev_accuracy" in run(recipes()["Python, exactly once, without compaction"], folder)
