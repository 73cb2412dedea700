"""Rows that the benchmarks of prediction on a cluster feed, and how they are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import predict_cluster


def test_a_folder_holds_as_many_rows_as_asked_the_first_round_as_they_are(tmp_path: Path) -> None:
    texts = ["a b c", "d e f g", "h"]
    folder = predict_cluster.write_folder(tmp_path / "in", texts, 8, 5)
    tables = [pq.read_table(file) for file in sorted(folder.iterdir())]
    assert [table.num_rows for table in tables] == [5, 3]
    rows = pa.concat_tables(tables)
    assert rows["id"].to_pylist() == list(range(8))
    assert sorted(rows["text"].to_pylist()[:3]) == sorted(texts)
    assert not set(rows["text"].to_pylist()[3:]) & set(texts)


def test_a_perturbed_sentence_has_a_word_less_or_twice() -> None:
    random = np.random.default_rng(0)
    lengths = {len(predict_cluster.perturbed("a b c d", random).split()) for _ in range(30)}
    assert lengths == {3, 5}


def test_rows_are_compared_bit_for_bit_across_parts(tmp_path: Path) -> None:
    table = pa.table({"p": pa.array([0.1, 0.2, 0.3], pa.float32())})
    pq.write_table(table, tmp_path / "one.parquet")
    (tmp_path / "out").mkdir()
    pq.write_table(table.slice(0, 2), tmp_path / "out/part-000000.parquet")
    assert not predict_cluster.same(tmp_path / "one.parquet", tmp_path / "out")
    pq.write_table(table.slice(2), tmp_path / "out/part-000001.parquet")
    assert predict_cluster.same(tmp_path / "one.parquet", tmp_path / "out")
    other = pa.table({"p": np.nextafter(np.array([0.3], dtype=np.float32), np.float32(1))})
    pq.write_table(other, tmp_path / "out/part-000001.parquet")
    assert not predict_cluster.same(tmp_path / "one.parquet", tmp_path / "out")
