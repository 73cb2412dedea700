"""Writers and compactions that die at random moments: nothing half is ever seen, nothing finished is ever lost."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from pathlib import Path

import pytest

from sst2_ray.results.store.compaction import compact
from sst2_ray.results.store.schema import KEYS
from sst2_ray.results.store.table import ResultsTable
from tests.support.object_store import BUCKET, object_store
from tests.support.writers import ROWS_PER_TRIAL, let_run, start_compactor, start_writer

SEED = 20260105


def check(table: ResultsTable, finished: set[str]) -> None:
    """The whole table reads without a complaint, and holds every finished trial once, whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dataset, keys in KEYS.items():
            rows = table.read(dataset)
            assert rows.select(list(keys)).group_by(list(keys)).aggregate([]).num_rows == rows.num_rows
            counts = Counter(rows.column("trial_id").to_pylist())
            # What a writer had no time to confirm may be there too, but whole.
            assert set(counts.values()) <= {ROWS_PER_TRIAL[dataset]}
            assert finished <= set(counts)


def tidy(table: ResultsTable, finished: set[str]) -> None:
    """Compact and prune, after which nothing may have changed."""
    for dataset in KEYS:
        compact(table, dataset, prune=True)
    check(table, finished)


@pytest.mark.parametrize("num_kills", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_writers_killed_at_random_moments(tmp_path: Path, num_kills: int) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    table = ResultsTable(str(tmp_path))
    finished: set[str] = set()
    for number in range(num_kills):
        writer = start_writer(str(tmp_path), f"w{number}")
        let_run([writer], rng, 0.03)
        finished |= writer.kill()
        check(table, finished)
        if number % 20 == 19:
            tidy(table, finished)
    print(f"{num_kills} writers killed; of the {len(finished)} trials that they had finished each is there once, whole")
    assert len(finished) >= num_kills


def test_compactions_killed_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(SEED + 1)
    print(f"seed {SEED + 1}")
    table = ResultsTable(str(tmp_path))
    finished: set[str] = set()
    for number in range(12):
        pair = [start_writer(str(tmp_path), f"w{number}"), start_compactor(str(tmp_path))]
        let_run(pair, rng, 0.1)
        finished |= pair[0].kill()
        pair[1].kill()
        check(table, finished)
    assert finished


@pytest.mark.parametrize("num_kills", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_writers_of_an_object_store_killed_eight_at_a_time(monkeypatch: pytest.MonkeyPatch, num_kills: int) -> None:
    pytest.importorskip("moto", reason="moto's S3 server is not installed (the dev extra)")
    rng = random.Random(SEED + 2)
    print(f"seed {SEED + 2}")
    with object_store() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        path = f"s3://{BUCKET}/killed"
        table = ResultsTable(path)
        finished: set[str] = set()
        for group in range(num_kills // 8):
            writers = [start_writer(path, f"w{group}-{i}", environment) for i in range(8)]
            let_run(writers, rng, 0.1)
            for writer in writers:
                finished |= writer.kill()
            check(table, finished)
            if group % 3 == 2:
                tidy(table, finished)
        print(
            f"{num_kills} writers killed; of the {len(finished)} trials that they had finished each is there once, whole"
        )
        assert finished
