from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sst2_ray.errors import InputError
from sst2_ray.results.report import page as report
from sst2_ray.results.report.page import Report
from sst2_ray.results.store import files
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import epoch, prediction, trial
from tests.support.synthetic_results import MINI, MODERNBERT, SBERT, write_study

SMALL: dict[str, Any] = {"learning_rates": (8e-5,), "batch_sizes": (32,), "epochs": 2, "with_failures": False}


def words(html: str) -> str:
    """Return what a reader sees, without the markup."""
    body = re.sub(r"<(style|script|svg).*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body))


def words_on(storage: Path, **options: Any) -> str:
    """Return what a reader sees of the report on a small made-up study."""
    return words(report.build(write_study(str(storage), **{**SMALL, **options})).html)


def names(made: Report) -> list[str]:
    return [figure.name[3:] for figure in made.figures]


@pytest.fixture(scope="module")
def made(study: ResultsTable) -> Report:
    return report.build(study)


def test_the_page_says_who_won_with_the_tests(made: Report) -> None:
    text = words(made.html)
    assert "modernbert-base beats sbert by" in text
    assert "3 seeds each, all on the same 872 sentences" in text
    assert "best of 8 configurations, 24 runs, chosen on SST-2 dev" in text
    assert "with 95 % confidence" in text
    assert "at equal epochs" in text
    assert "at equal time" in text


def test_the_figures_of_the_notebook_study_and_of_the_sweep_are_there(made: Report) -> None:
    assert names(made) == [
        "accuracy-over-epochs", "f1-over-epochs", "train-loss-over-epochs", "train-and-dev-loss", "metrics-together",
        "heat-map-modernbert-base", "heat-map-sbert", "accuracy-against-learning-rate", "all-curves",
        "accuracy-against-time", "accuracy-against-cost", "expected-best", "beside-published-figures", "calibration", "where-the-time-went",
    ]  # fmt: skip
    for figure in made.figures:
        assert figure.png.startswith(b"\x89PNG")
        assert b"<svg" in figure.svg
        assert figure.pdf.startswith(b"%PDF")
        assert figure.caption


def test_the_page_stands_alone(made: Report) -> None:
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", made.html)
    assert not re.findall(r'(?:src|href)\s*=\s*"(?!#|data:)', without_namespaces)
    assert "url(http" not in without_namespaces
    assert "@import" not in without_namespaces
    assert len(made.html.encode()) < 5_000_000


def test_ids_are_unique(made: Report) -> None:
    counts = Counter(re.findall(r'\bid="([^"]+)"', made.html))
    assert {name for name, count in counts.items() if count > 1} == set()


def test_failures_provenance_and_limits_are_on_the_page(made: Report) -> None:
    text = words(made.html)
    assert "By class: non finite 2" in text
    assert "loss is nan at step 311" in text
    assert "111111111111" in text
    assert "because it was chosen by these very scores" in text


def test_the_same_table_gives_the_same_figures(study: ResultsTable, made: Report) -> None:
    again = report.build(study, experiment="synthetic-sweep")
    assert [figure.svg for figure in again.figures] == [figure.svg for figure in made.figures]


def test_published_figures_are_shown_on_sst2_dev_only(tmp_path: Path, made: Report) -> None:
    assert "94.72" in words(made.html)
    other = write_study(str(tmp_path), eval_split="hold-out of rotten-tomatoes", num_seeds=2, **SMALL)
    page = report.build(other)
    assert "94.72" not in page.html
    assert "beside-published-figures" not in names(page)
    assert "Published figures are for SST-2 dev" in words(page.html)


def test_one_seed_only(tmp_path: Path) -> None:
    text = words_on(tmp_path, num_seeds=1)
    assert "Each configuration ran under one seed" in text
    assert "or for new sentences alone where none of these has two seeds, while the run" in text
    assert "how much seeds vary is not known" in text


def test_one_model_only(tmp_path: Path) -> None:
    text = words_on(tmp_path, models=(SBERT,), num_seeds=2)
    assert "Best: sbert, lr 8e-5, batch 32" in text
    assert "No ModernBERT run succeeded on this data" in text


def test_failed_trials_only(tmp_path: Path) -> None:
    made = report.build(write_study(str(tmp_path), models=(SBERT,), num_seeds=2, status="failed", **SMALL))
    text = words(made.html)
    assert "Nothing to compare: no trial succeeded." in text
    assert "non finite 2" in text
    assert made.figures == ()


def test_running_trials_only(tmp_path: Path) -> None:
    text = words_on(tmp_path, models=(SBERT,), num_seeds=1, status="running")
    assert "no trial succeeded" in text


def test_random_weights_are_labelled(tmp_path: Path) -> None:
    text = words_on(tmp_path, models=(MINI,), num_seeds=2)
    assert "modernbert-mini (random weights)" in text
    assert "says nothing about the pretrained model" in text


def test_mixed_data_sets_are_told_apart(tmp_path: Path) -> None:
    write_study(str(tmp_path), models=(SBERT,), num_seeds=2, **SMALL)
    table = write_study(
        str(tmp_path), experiment="other", models=(MODERNBERT,), num_seeds=1, eval_split="hold-out of mine", **SMALL
    )
    text = words(report.build(table).html)
    assert "Evaluated on SST-2 dev" in text
    assert "Evaluated on hold-out of mine" in text
    assert "modernbert-base beats" not in text


def test_every_section_says_which_sweeps_and_runs_it_is_of(tmp_path: Path) -> None:
    write_study(str(tmp_path), experiment="lr-search", models=(SBERT,), num_seeds=2, **SMALL)
    table = write_study(str(tmp_path), experiment="other", models=(MINI,), eval_split="hold-out of mine", **SMALL)
    one = {"model": "sbert", "eval_split": "hold-out of mine", "data_fingerprint": "third", "best_dev_accuracy": 0.9}
    table.write("trials", [trial(f"run-{n}", experiment=f"run-{n}", seed=n, **one) for n in range(10)])
    made = report.build(table)
    text = words(made.html)
    of_runs = "runs run-0, run-1, run-2, run-3, run-4, run-5, run-6, run-7 and 2 more"
    for split, of in (
        ("SST-2 dev", "sweep lr-search"),
        ("hold-out of mine", "sweep other"),
        ("hold-out of mine", of_runs),
    ):
        assert f"Evaluated on {split}: {of}" in text
        assert f"Errors {of}" in text
        assert any(line.startswith(f"{split}, {of}: ") for line in made.headlines)
    assert "these are 3 studies" in text


def test_one_study_says_what_it_is_of_and_no_heading_repeats_it(tmp_path: Path) -> None:
    text = words_on(tmp_path, models=(SBERT,), num_seeds=2)
    assert text.count("sweep synthetic-sweep") == 1


def test_mixed_schema_versions(tmp_path: Path) -> None:
    table = write_study(str(tmp_path), models=(SBERT,), num_seeds=2, **SMALL)
    path = next(Path(table.storage.path("trials")).iterdir())
    old = pq.read_table(path).drop_columns(["imported_from", "chip", "cost_usd", "weight_decay", "node_types_json"])
    pq.write_table(old.replace_schema_metadata({**old.schema.metadata, files.VERSION_KEY: b"0"}), path)
    assert "Best: sbert" in words(report.build(table).html)


def test_an_empty_table_is_one_line(table: ResultsTable) -> None:
    with pytest.raises(InputError, match="no trial in"):
        report.build(table)


def test_an_unknown_experiment_names_the_nearest(table: ResultsTable) -> None:
    table.write("trials", [trial(experiment="first-sweep")])
    with pytest.raises(InputError, match=r"--experiment frist-sweep: not in .* did you mean first-sweep"):
        report.build(table, experiment="frist-sweep")


def test_a_trial_that_knows_next_to_nothing(table: ResultsTable) -> None:
    table.write("trials", [trial(best_dev_accuracy=0.5)])
    assert "unknown model" in words(report.build(table).html)


def test_what_users_wrote_is_text_and_not_markup(table: ResultsTable) -> None:
    evil = "<script>alert(1)</script>"
    values = {"model": evil, "model_kind": "sbert", "eval_split": "SST-2 dev", "seed": 0}
    table.write("trials", [trial(best_dev_accuracy=0.5, last_dev_accuracy=0.5, best_global_step=100, **values)])
    table.write("epochs", [epoch(100, dev_accuracy=0.5, seconds=1.0)])
    table.write("predictions", [prediction(0, text=evil, predicted=0, probability=0.2)])
    made = report.build(table)
    assert evil not in made.html
    assert "&lt;script&gt;" in made.html


def test_an_older_reports_figures_do_not_stay(tmp_path: Path, made: Report) -> None:
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "07-from-before.png").write_bytes(b"")
    (out / "figures" / "mine.png").write_bytes(b"")
    assert report.write(made, str(out)) == str(out / "report.html")
    there = {path.name for path in (out / "figures").iterdir()}
    assert "07-from-before.png" not in there
    assert "mine.png" in there
    assert {f"{figure.name}.{suffix}" for figure in made.figures for suffix in ("png", "svg")} <= there


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, made: Report) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"--out .*file: cannot be written"):
        report.write(made, str(tmp_path / "file"))


def test_the_report_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    table = write_study(str(tmp_path), models=(SBERT,), num_seeds=1, **SMALL)
    code = (
        "import sys; from sst2_ray.results.report import page as report; from sst2_ray.results.store.table import ResultsTable; "
        f"report.build(ResultsTable({table.storage_path!r})); "
        "print([m for m in ('torch', 'ray', 'transformers', 'deepspeed', 'matplotlib.pyplot') if m in sys.modules])"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
