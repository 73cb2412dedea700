"""The recipes of docs/results.md, run as they stand: unmodified pandas, polars, DuckDB and Spark, and our own commands."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.results.analysis import leaderboard
from sst2_ray.results.commands import main_report, main_results
from sst2_ray.results.store.compaction import compact
from sst2_ray.results.store.schema import KEYS
from sst2_ray.results.store.table import ResultsTable
from tests.support.synthetic_results import MODERNBERT, SBERT, write_study

ROOT = Path(__file__).parents[3]


def recipes() -> dict[str, str]:
    """Heading -> code, of the page's Python blocks."""
    page = (ROOT / "docs" / "results.md").read_text()
    return {m[1]: m[2] for m in re.finditer(r"^### ([^\n]+)\n+```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/`, compacted: two studies of the same configurations on different data, and a restarted trial."""
    root = tmp_path_factory.mktemp("recipes")
    options = {"models": (MODERNBERT, SBERT), "learning_rates": (8e-5,), "batch_sizes": (32, 64), "num_seeds": 2}
    write_study(str(root / "runs"), **options)
    harder = tuple(dataclasses.replace(model, peak=model.peak - 0.07) for model in (MODERNBERT, SBERT))
    other = {"experiment": "other", "eval_split": "hold-out of mine", "with_failures": False}
    table = write_study(str(root / "runs"), **{**options, "models": harder}, **other)
    again = next(r for r in table.records("trials", experiment="other") if r.status == "succeeded")
    table.write("trials", [dataclasses.replace(again, attempt=1, best_dev_accuracy=0.5)])
    for dataset in KEYS:
        compact(table, dataset)
    return root


def expected(folder: Path) -> dict[tuple[str, str], tuple[float, float | None, int]]:
    """(data fingerprint, configuration) -> mean, standard deviation and seeds, as the package says."""
    board = leaderboard.load(ResultsTable(str(folder / "runs")), where=None, sort=None, experiment=None)
    rows = [row for row in board.to_pylist() if row["seeds"]]
    return {(r["data_fingerprint"], r["configuration"]): (r["accuracy"], r["accuracy_sd"], r["seeds"]) for r in rows}


def given(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, float | None, int]]:
    return {
        (r["data_fingerprint"], r["configuration_id"]): (r["mean"], None if r["count"] == 1 else r["std"], r["count"])
        for r in rows
    }


def says_the_same(rows: list[dict[str, Any]], folder: Path) -> bool:
    theirs, ours = given(rows), expected(folder)
    assert theirs.keys() == ours.keys()
    return all(theirs[key] == pytest.approx(ours[key]) for key in ours)


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


def table_of(recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe's `table`."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(recipes()[recipe], names)
    return names["table"]


def test_there_are_two_studies_of_the_same_configurations(folder: Path) -> None:
    found = expected(folder)
    assert len({fingerprint for fingerprint, _ in found}) == 2
    assert len({configuration for _, configuration in found}) < len(found)


def test_pandas_gives_what_the_package_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert says_the_same(table_of("pandas", folder, monkeypatch).to_dict("records"), folder)


def test_polars_gives_what_the_package_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars", reason="polars is not installed (the dev extra)")
    assert says_the_same(table_of("polars", folder, monkeypatch).to_dicts(), folder)


def test_duckdb_on_the_raw_files_gives_what_the_package_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert says_the_same(table_of("DuckDB", folder, monkeypatch).to_dict("records"), folder)


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
