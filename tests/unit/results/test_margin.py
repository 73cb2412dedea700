from __future__ import annotations

import json
from pathlib import Path

import pytest

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.results.commands import main_report
from sst2_ray.results.compare import main_compare
from sst2_ray.results.margin import margin_points
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.storage import Storage
from sst2_ray.sweep import closing
from tests.support.synthetic_results import MODERNBERT, SBERT, write_study

SMALL = {"models": (MODERNBERT, SBERT), "learning_rates": (8e-5,), "batch_sizes": (32,), "with_failures": False}


def sweep_of(storage: Path, name: str, margin: float | None) -> SweepConfig:
    """Leave a sweep's config where a sweep leaves it; None: one of a version without a margin."""
    config = SweepConfig(
        base=TrainConfig(name=name, storage_path=str(storage)), **({"margin": margin} if margin else {})
    )
    values = config.to_dict()
    if margin is None:
        del values["sweep"]["margin"]
    Storage.open(str(storage)).child(name).write_json("config.json", values)
    return config


@pytest.fixture
def decided(tmp_path: Path) -> ResultsTable:
    """A study of two models that differ by far less than 20 points, whose sweep was given that margin."""
    table = write_study(str(tmp_path), **SMALL)
    sweep_of(tmp_path, "synthetic-sweep", 20)
    return table


def test_the_margin_changes_what_a_sweep_says_and_not_which_trials_it_has(decided: ResultsTable) -> None:
    wide = sweep_of(Path(decided.storage_path), "synthetic-sweep", 20)
    usual = sweep_of(Path(decided.storage_path), "synthetic-sweep", None)
    assert wide.trials_hash == usual.trials_hash
    said = [closing.standing(decided, config).study for config in (wide, usual)]
    overall = [study.head_to_head.overall for study in said if study and study.head_to_head]
    assert [c.margin for c in overall] == [0.2, 0.005]


def test_report_and_compare_use_the_margin_of_the_sweep(
    decided: ResultsTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ["--storage-path", decided.storage_path]
    assert main_compare(["modernbert-base", "sbert", "--json", *storage]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["margin"] == 0.2
    assert main_report([*storage, "--out", str(tmp_path / "page")]) == 0
    assert "smaller than 20 points" in " ".join((tmp_path / "page" / "report.html").read_text().split())


def test_a_margin_that_is_given_counts(decided: ResultsTable, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main_compare(["modernbert-base", "sbert", "--json", "--margin", "2", "--storage-path", decided.storage_path])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["margin"] == 0.02


@pytest.mark.parametrize(
    ("margins", "expected"), [((1.0, 1.0), 1.0), ((1.0, 2.0), 0.5), ((1.0, None), 0.5), ((None,), 0.5), ((), 0.5)]
)
def test_sweeps_of_different_margins_are_judged_by_the_default(
    tmp_path: Path, margins: tuple[float | None, ...], expected: float
) -> None:
    names = [f"sweep-{i}" for i in range(len(margins))]
    for name, margin in zip(names, margins, strict=True):
        sweep_of(tmp_path, name, margin)
    Storage.open(str(tmp_path)).child("run").write_json("config.json", TrainConfig().to_dict())
    for name, content in (("torn", b'{"sweep": {},}'), ("other", b"\xff"), ("list", b"[1]")):
        Storage.open(str(tmp_path)).child(name).write_bytes("config.json", content)
    assert margin_points([(str(tmp_path), [*names, "run", "torn", "other", "list", "gone", "/a/file.csv"])]) == expected
