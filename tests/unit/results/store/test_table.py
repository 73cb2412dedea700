from __future__ import annotations

import dataclasses
import datetime as dt
import pickle
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sst2_ray.errors import InputError, RunFailedError
from sst2_ray.records import SCHEMA_VERSION
from sst2_ray.results.store import files
from sst2_ray.results.store.query import leaderboard
from sst2_ray.results.store.schema import arrow_schema
from sst2_ray.results.store.table import ResultsTable, SkippedFileWarning
from tests.support.records import at, epoch, prediction, trial


def folder(table: ResultsTable, dataset: str) -> Path:
    return Path(table.storage.path(dataset))


def test_records_come_back_as_they_were_written(table: ResultsTable) -> None:
    record = trial(
        learning_rate=8e-5, batch_size=64, git_dirty=True, started_at=at(-3), failure_message="naïve | “quoted”"
    )
    table.write("trials", [record])
    assert table.records("trials") == [record]


def test_a_table_that_is_not_there_is_empty(table: ResultsTable) -> None:
    assert not table.exists()
    assert table.read("epochs").schema.names == arrow_schema("epochs").names
    assert table.read("epochs").num_rows == 0


def test_no_trials_at_all_are_no_corrupt_file(table: ResultsTable) -> None:
    table.write("predictions", [prediction(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table.read("predictions", experiment=[], trial_ids=[]).num_rows == 0


def test_reading_waits_for_a_storage_that_is_away_for_a_while(
    table: ResultsTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sst2_ray.storage._FIRST_WAIT_S", 0.01)
    table.write("trials", [trial()])
    list_files, outages = files.entries, [OSError("When listing objects: AWS Error NETWORK_CONNECTION")] * 3

    def flaky(storage, name):
        if outages:
            raise outages.pop()
        return list_files(storage, name)

    monkeypatch.setattr(files, "entries", flaky)
    assert ResultsTable(table.storage_path, retry_for_s=30).read("trials").num_rows == 1


def test_every_write_is_a_file_of_its_own(table: ResultsTable) -> None:
    names = {table.write("epochs", [epoch(step)]) for step in (100, 200, 300)}
    assert {path.name for path in folder(table, "epochs").iterdir()} == names
    assert table.read("epochs").num_rows == 3


def test_the_end_of_a_trial_counts_before_its_start_whatever_their_order(table: ResultsTable) -> None:
    table.write("trials", [trial(status="failed", written_at=at(5))])
    table.write("trials", [trial(status="running", written_at=at(9))])
    assert table.read("trials").column("status").to_pylist() == ["failed"]


def test_of_two_ends_the_later_counts(table: ResultsTable) -> None:
    table.write("trials", [trial(status="succeeded", written_at=at(5))])
    table.write("trials", [trial(status="lost", written_at=at(3))])
    assert table.read("trials").column("status").to_pylist() == ["succeeded"]


def test_an_evaluation_that_was_written_twice_is_there_once(table: ResultsTable) -> None:
    table.write(
        "epochs", [epoch(100, dev_accuracy=0.8, written_at=at(1)), epoch(200, dev_accuracy=0.9, written_at=at(2))]
    )
    table.write("epochs", [epoch(200, dev_accuracy=0.91, written_at=at(3))])
    found = table.read("epochs").sort_by("global_step")
    assert found.column("dev_accuracy").to_pylist() == [0.8, 0.91]


def test_predictions_that_were_written_twice_are_there_once(table: ResultsTable) -> None:
    for _ in range(2):
        table.write("predictions", [prediction(row) for row in range(5)])
    assert sorted(table.read("predictions").column("row_id").to_pylist()) == [0, 1, 2, 3, 4]


def test_the_latest_attempt_of_a_trial_stands_for_it(table: ResultsTable) -> None:
    table.write("trials", [trial(attempt=0, status="failed"), trial(attempt=1), trial("other", status="running")])
    found = table.read("trials", attempts="latest").sort_by("trial_id")
    assert found.select(["trial_id", "attempt", "status"]).to_pylist() == [
        {"trial_id": "other", "attempt": 0, "status": "running"},
        {"trial_id": "t", "attempt": 1, "status": "succeeded"},
    ]
    assert table.read("trials").num_rows == 3


def test_time_and_cost_of_a_trial_are_those_of_all_its_attempts(table: ResultsTable) -> None:
    table.write("trials", [trial(attempt=0, status="failed", seconds=3600.0, cost_usd=4.0)])
    table.write("trials", [trial(attempt=1, seconds=60.0, cost_usd=0.5), trial("free", seconds=5.0)])
    columns = ["cost_usd", "trial_id", "attempt", "seconds"]
    found = table.read("trials", columns=columns, attempts="totals").sort_by("trial_id")
    assert found.to_pylist() == [
        {"cost_usd": None, "trial_id": "free", "attempt": 0, "seconds": 5.0},
        {"cost_usd": 4.5, "trial_id": "t", "attempt": 1, "seconds": 3660.0},
    ]
    latest = table.read("trials", columns=columns, attempts="latest").sort_by("trial_id")
    assert latest.column("seconds").to_pylist() == [5.0, 60.0]


def test_a_later_attempt_takes_over_where_its_points_begin(table: ResultsTable) -> None:
    table.write("epochs", [epoch(step, attempt=0) for step in (100, 200, 300)])
    table.write("epochs", [epoch(step, attempt=1) for step in (200, 300)])
    table.write("epochs", [epoch(step, attempt=2) for step in (300, 400)])
    found = table.read("epochs", attempts="latest", columns=["global_step", "attempt"]).sort_by("global_step")
    assert found.column("attempt").to_pylist() == [0, 1, 2, 2]


def test_splits_have_histories_of_their_own(table: ResultsTable) -> None:
    table.write("epochs", [epoch(100, attempt=0, split="selection"), epoch(100, attempt=0), epoch(100, attempt=1)])
    found = table.read("epochs", attempts="latest").sort_by("split")
    assert found.select(["split", "attempt"]).to_pylist() == [
        {"split": "dev", "attempt": 1},
        {"split": "selection", "attempt": 0},
    ]


def test_the_predictions_of_the_latest_attempt_stand_for_a_trial(table: ResultsTable) -> None:
    table.write("predictions", [prediction(0, attempt=0), prediction(1, attempt=0)])
    table.write("predictions", [prediction(0, attempt=1, predicted=0), prediction(1, attempt=1)])
    found = table.read("predictions", attempts="latest").sort_by("row_id")
    assert found.column("predicted").to_pylist() == [0, 1]


def test_reading_some_columns_experiments_and_trials(table: ResultsTable) -> None:
    table.write("trials", [trial("a"), trial("b"), trial("a", experiment="f", learning_rate=1.0)])
    found = table.read("trials", columns=["learning_rate"], experiment="f")
    assert found.to_pydict() == {"learning_rate": [1.0]}
    assert table.read("trials", trial_ids=["a"]).num_rows == 2
    assert table.read("trials", experiment=["e", "f"], trial_ids=["b"]).num_rows == 1


def test_a_filter_sees_the_resolved_rows_only(table: ResultsTable) -> None:
    table.write("trials", [trial(status="running")])
    table.write("trials", [trial(status="succeeded", written_at=at(1))])
    assert table.read("trials", filter=pc.field("status") == "running").num_rows == 0


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt", b"hello", "foreign: not a Parquet file"),
        ("empty.parquet", b"", "corrupt or truncated"),
        ("random.parquet", b"PAR1" + bytes(range(200)), "corrupt or truncated"),
    ],
)
def test_a_foreign_file_is_named_and_skipped(table: ResultsTable, name: str, content: bytes, reason: str) -> None:
    table.write("trials", [trial()])
    (folder(table, "trials") / name).write_bytes(content)
    with pytest.warns(SkippedFileWarning, match=f"{name}: skipped, {reason}"):
        assert table.read("trials").num_rows == 1


def test_a_file_truncated_at_any_place_is_skipped(table: ResultsTable) -> None:
    whole = Path(table.storage.path(f"trials/{table.write('trials', [trial()])}"))
    table.write("trials", [trial("kept")])
    data = whole.read_bytes()
    for size in range(0, len(data), max(1, len(data) // 40)):
        whole.write_bytes(data[:size])
        with pytest.warns(SkippedFileWarning, match=whole.name):
            assert table.read("trials").column("trial_id").to_pylist() == ["kept"]


def test_a_flipped_bit_is_noticed(table: ResultsTable) -> None:
    path = Path(table.storage.path(f"predictions/{table.write('predictions', [prediction(row) for row in range(50)])}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    with pytest.warns(SkippedFileWarning, match="corrupt"):
        assert table.read("predictions").num_rows == 0


def test_a_parquet_file_of_somebody_else_is_skipped(table: ResultsTable) -> None:
    table.write("trials", [trial()])
    pq.write_table(pa.table({"a": [1]}), folder(table, "trials") / "theirs.parquet")
    with pytest.warns(SkippedFileWarning, match=r"theirs\.parquet: skipped, foreign"):
        assert table.read("trials").num_rows == 1


def test_a_file_in_the_wrong_data_set_is_skipped(table: ResultsTable) -> None:
    table.write("trials", [trial()])
    name = table.write("epochs", [epoch(100)])
    (folder(table, "epochs") / name).rename(folder(table, "trials") / "moved.parquet")
    with pytest.warns(SkippedFileWarning, match="a file of the data set 'epochs'"):
        assert table.read("trials").num_rows == 1


def test_hidden_files_are_nobodys_business(table: ResultsTable) -> None:
    table.write("trials", [trial()])
    (folder(table, "trials") / ".name.parquet.abc.partial").write_bytes(b"half")
    (folder(table, "trials") / "_SUCCESS").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table.read("trials").num_rows == 1


def write_version(table: ResultsTable, dataset: str, rows: pa.Table, version: int) -> None:
    metadata = {files.DATASET_KEY: dataset.encode(), files.VERSION_KEY: str(version).encode()}
    folder(table, dataset).mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.replace_schema_metadata(metadata), folder(table, dataset) / f"version-{version}.parquet")


def test_an_old_schema_is_read_with_nulls_for_what_it_lacks(table: ResultsTable) -> None:
    old = pa.table({
        "experiment": ["e"], "trial_id": ["old"], "attempt": pa.array([0], pa.int32()), "status": ["succeeded"],
        "written_at": pa.array([dt.datetime(2025, 1, 1)], pa.timestamp("ms", tz="UTC")),
        "learning_rate": pa.array([0.5], pa.float32()),
    })  # fmt: skip
    write_version(table, "trials", old, 0)
    table.write("trials", [trial("new", model="sbert")])
    found = table.read("trials").sort_by("trial_id")
    assert found.schema.equals(pa.schema([(f.name, f.type) for f in arrow_schema("trials")]))
    assert found.select(["trial_id", "model", "learning_rate"]).to_pylist() == [
        {"trial_id": "new", "model": "sbert", "learning_rate": None},
        {"trial_id": "old", "model": None, "learning_rate": 0.5},
    ]


def test_a_table_of_two_classes_reads_beside_one_of_chosen_metrics(table: ResultsTable) -> None:
    """Schema version 2 knew accuracy only: its runs rank as they did, beside runs of this version."""
    later = {"chosen_by", "best_score", "selection_score", "best_dev_auroc"}
    values = {"best_dev_accuracy": 0.9, "eval_split": "dev", "data_fingerprint": "f", "learning_rate": 8e-5}
    old = files.records_to_table("trials", [trial("old", configuration_id="old", **values)])
    write_version(table, "trials", old.drop_columns(sorted(later)), 2)
    new = {**values, "best_dev_accuracy": 0.8, "chosen_by": "accuracy", "best_score": 0.8}
    table.write("trials", [trial("new", configuration_id="new", **new)])
    board = leaderboard(table.read("trials", attempts="latest"))
    assert board.select(["configuration", "rank", "score"]).to_pylist() == [
        {"configuration": "old", "rank": 1, "score": 0.9},
        {"configuration": "new", "rank": 2, "score": 0.8},
    ]


def test_a_newer_schema_is_read_as_far_as_it_is_known_and_named(table: ResultsTable) -> None:
    newer = files.records_to_table("trials", [trial("newer")]).append_column("invented_later", pa.array([1]))
    write_version(table, "trials", newer, SCHEMA_VERSION + 1)
    with pytest.warns(SkippedFileWarning, match="read in part, its schema is newer"):
        assert table.read("trials").column("trial_id").to_pylist() == ["newer"]


def test_what_cannot_be_written_is_refused_before(table: ResultsTable) -> None:
    with pytest.raises(ValueError, match="no trials to write"):
        table.write("trials", [])
    with pytest.raises(TypeError, match="trials holds TrialRecord, not EpochRecord"):
        table.write("trials", [epoch(100)])
    with pytest.raises(ValueError, match="has no time zone"):
        table.write("trials", [trial(written_at=dt.datetime(2026, 1, 1))])
    assert not table.exists()


def test_a_storage_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFailedError, match="cannot be written") as caught:
        ResultsTable(str(tmp_path / "file")).write("trials", [trial()])
    assert caught.value.failure_class == "storage_error"


def test_an_unknown_scheme_is_wrong_input() -> None:
    with pytest.raises(InputError, match=r"nowhere://bucket.*cannot be opened"):
        ResultsTable("nowhere://bucket")


def test_a_table_can_be_sent_to_another_process(table: ResultsTable) -> None:
    pickle.loads(pickle.dumps(table)).write("trials", [trial()])
    assert table.read("trials").num_rows == 1


def test_rows_that_lack_a_key_are_refused(table: ResultsTable) -> None:
    with pytest.raises(ValueError, match="null"):
        table.write("trials", [dataclasses.replace(trial(), status=None)])  # type: ignore[arg-type]
