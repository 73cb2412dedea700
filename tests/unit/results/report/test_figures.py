from __future__ import annotations

from pathlib import Path

from sst2_ray.results.analysis.findings import studies
from sst2_ray.results.report import figures_sweep
from sst2_ray.results.report import page as report
from sst2_ray.results.report.figures_budget import pareto_front
from sst2_ray.results.store.table import ResultsTable
from tests.support.synthetic_results import SBERT, write_study


def test_the_pareto_front_holds_what_nothing_beats_in_both() -> None:
    points = [(1, 0.8), (2, 0.9), (2, 0.85), (3, 0.88), (4, 0.95)]
    assert pareto_front(points) == [(1, 0.8), (2, 0.9), (4, 0.95)]


def test_more_than_two_axes_get_parallel_coordinates(tmp_path: Path) -> None:
    table = write_study(
        str(tmp_path), models=(SBERT,), learning_rates=(4e-5, 8e-5), batch_sizes=(32, 64), weight_decays=(0.0, 0.01),
        num_seeds=1, epochs=1, with_failures=False,
    )  # fmt: skip
    assert any("parallel-coordinates" in figure.name for figure in report.build(table).figures)


def test_a_single_configuration_is_no_sweep(tmp_path: Path) -> None:
    table = write_study(
        str(tmp_path), models=(SBERT,), learning_rates=(8e-5,), batch_sizes=(32,), num_seeds=2, with_failures=False
    )
    study = studies(table, table.read("trials", attempts="latest"))[0]
    assert figures_sweep.draw(study) == []


def test_figures_draw_without_curves_or_predictions(table: ResultsTable) -> None:
    write_study(table.storage_path, num_seeds=1, learning_rates=(8e-5,), batch_sizes=(32, 64), with_predictions=False)
    for path in Path(table.storage.path("epochs")).iterdir():
        path.unlink()
    names = {figure.name[3:] for figure in report.build(table).figures}
    assert "accuracy-over-epochs" not in names
    assert "accuracy-against-time" in names
