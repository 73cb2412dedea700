from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from sst2_ray.cli import run
from sst2_ray.errors import InputError
from sst2_ray.results.analysis import leaderboard
from sst2_ray.results.commands import main_report, main_results
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import trial
from tests.support.studies import Tried, write

Run = Callable[..., str]


@pytest.fixture
def results(study: ResultsTable, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `sst2-ray results` on the made-up sweep and return what it printed."""

    def run(*arguments: str) -> str:
        assert main_results([*arguments, "--storage-path", study.storage_path]) == 0
        return capsys.readouterr().out

    return run


def test_the_leaderboard_shows_the_best_first(results: Run) -> None:
    out = results()
    assert out.index("modernbert-base") < out.index("sbert")
    assert "±" in out
    assert "SST-2 dev" in out
    assert "1 failed" in out
    assert "diverged under a seed are ranked after the others" in out


def test_csv_and_json_say_the_same(results: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(results("--csv"))))
    objects = json.loads(results("--json"))
    assert [row["configuration"] for row in rows] == [row["configuration"] for row in objects]
    assert float(rows[0]["accuracy"]) == objects[0]["accuracy"]


def test_markdown_is_a_table(results: Run) -> None:
    lines = results("--markdown", "--where", "model = 'sbert'").splitlines()
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert all("sbert" in line for line in lines[2:])


def test_limit_says_how_many_there_are(results: Run) -> None:
    assert "2 of 8 configurations" in results("--limit", "2")


@pytest.mark.parametrize(
    "words",
    ["results", "compare modernbert-base sbert", "power --difference 1", "presets"],
    ids=lambda words: words.split()[0],
)
def test_a_table_that_is_piped_is_as_wide_as_columns(
    words: str, study: ResultsTable, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command, *rest = words.split()
    storage = ["--storage-path", study.storage_path] if command != "presets" else []
    assert run(command, [*rest, *storage]) == 0
    tabular = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "│┃┏└"]
    assert max(map(len, tabular)) <= 80


def test_the_leaderboard_is_whole_where_no_width_is_known(results: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("", "0", "wide"):
        monkeypatch.setenv("COLUMNS", columns)
        assert "not shown" not in results()


def test_single_seeds_say_which_interval_they_have(table: ResultsTable, capsys: pytest.CaptureFixture[str]) -> None:
    def shown() -> str:
        assert main_results([table.storage_path, "--wide"]) == 0
        return " ".join(capsys.readouterr().out.split())

    alone, pooled = (
        "* one seed: the interval is for new sentences, but not for new seeds; the run's own",
        "One seed without *:",
    )
    write(table, Tried(model="sbert", wrong=[20], learning_rate=1e-5))
    assert (alone in shown(), pooled in shown()) == (True, False)
    write(table, Tried(model="sbert", wrong=[20, 24], learning_rate=2e-5))
    assert (alone in shown(), pooled in shown()) == (False, True)


def test_where_over_a_column_that_the_leaderboard_does_not_show(results: Run) -> None:
    assert json.loads(results("--json", "--where", "chip like 'made-up%'"))


def test_where_holds_for_the_interval_and_the_collapsed_seeds_as_well(
    table: ResultsTable, capsys: pytest.CaptureFixture[str]
) -> None:
    write(table, Tried(model="sbert", wrong=[20, 24, 200]))

    def row(where: str) -> tuple[int, float, bool, str, int]:
        assert main_results(["--json", "--where", where, "--storage-path", table.storage_path]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        inside = found["low"] < found["accuracy"] < found["high"]
        return found["seeds"], found["accuracy"], inside, found["covers"], found["collapsed"]

    assert row("seed < 9") == (3, pytest.approx(0.797, abs=0.001), True, "seeds and sentences", 1)
    assert row("seed < 2") == (2, pytest.approx(0.945), True, "seeds and sentences", 0)
    assert row("seed = 0 and chip is null") == (1, 0.95, True, "sentences", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "--json"], "choose one"),
        (["--experiment", "synthetic-swep"], "did you mean synthetic-sweep"),
        (["--where", "batch_size > 9999"], "no trial .* matches"),
        (["--limit", "-1"], "0 \\(all\\) or above"),
        (["--wher", "x"], "--where"),
    ],
)
def test_wrong_arguments_are_one_line(study: ResultsTable, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        main_results([*arguments, "--storage-path", study.storage_path])
    assert "\n" not in str(caught.value)


def test_an_unknown_subcommand_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean compact"):
        main_results(["compat"])


@pytest.mark.parametrize("main", [main_results, main_report])
def test_a_missing_folder_is_one_line_and_nothing_is_written(main: Callable[[list[str]], int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results table there"):
        main(["--storage-path", str(tmp_path / "nowhere")])
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_a_readable_trial_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results" / "trials").mkdir(parents=True)
    (tmp_path / "results" / "trials" / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="holds no readable trial"):
        main_results(["--storage-path", str(tmp_path)])
    assert "broken.parquet: skipped" in capsys.readouterr().err


def test_a_skipped_file_is_named_once_on_stderr(table: ResultsTable, capsys: pytest.CaptureFixture[str]) -> None:
    table.write("trials", [trial(model="sbert", best_dev_accuracy=0.9)])
    Path(table.storage.path("trials/notes.txt")).write_text("mine")
    assert main_results(["--storage-path", table.storage_path, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("notes.txt: skipped") == 1
    json.loads(captured.out)


def test_compact_says_what_it_did(table: ResultsTable, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        table.write("trials", [trial(name)])
    assert main_results(["compact", "--prune", "--storage-path", table.storage_path]) == 0
    out = capsys.readouterr().out
    assert "trials: 2 records of 2 raw files" in out
    assert "2 raw files deleted" in out
    assert "epochs: nothing to compact" in out


def test_report_says_who_won_and_where_the_page_is(
    study: ResultsTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_report(["--storage-path", study.storage_path, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "modernbert-base beats sbert" in out
    assert str(tmp_path / "out" / "report.html") in out


def test_an_address_that_cannot_be_opened_is_refused_by_its_own_flag(study: ResultsTable) -> None:
    with pytest.raises(InputError, match=r"^--out s3x://bucket/page: cannot be opened"):
        main_report(["--storage-path", study.storage_path, "--out", "s3x://bucket/page"])
    with pytest.raises(InputError, match=r"^import-tune s3x://bucket/tune: cannot be opened"):
        main_results(["import-tune", "s3x://bucket/tune", "--storage-path", study.storage_path])


def test_a_storage_path_above_the_table_is_answered_with_the_one_below(
    study: ResultsTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").symlink_to(study.storage_path)
    with pytest.raises(InputError, match=f"did you mean --storage-path {tmp_path / 'runs'}\\?"):
        main_results(["--storage-path", str(tmp_path)])
    assert main_results([study.storage_path]) == 0
    assert "modernbert-base" in capsys.readouterr().out


def test_the_word_collapsed_is_explained_where_it_is_shown(
    table: ResultsTable, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a narrow terminal the status, which says it, is left out."""
    write(table, Tried(model="sbert", wrong=[200, 200, 200]))
    board = leaderboard.load(table, where=None, sort=None, experiment=None)
    for width, is_shown in ((200, True), (60, False)):
        console = Console(width=width)
        leaderboard.print_table(board, console, title="runs", ranked=True, limit=0)
        out = capsys.readouterr().out
        assert ("3 collapsed" in out, "nothing was learned" in out) == (is_shown, is_shown)
