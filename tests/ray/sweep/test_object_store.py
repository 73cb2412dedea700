"""A sweep whose folder is in an object store, from its first trial to dev's score, and the same command again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sst2_ray.manage.runs import files_below
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.storage import Storage
from tests.support.object_store import BUCKET, object_store_here
from tests.support.sweeps import Sweeps

URI = f"s3://{BUCKET}/runs"
SECRET = "hiddenWord"


@pytest.fixture
def bucket() -> Iterator[None]:
    with object_store_here():
        yield


def _with_secret(uri: str) -> str:
    return uri.replace("://", f"://KEY:{SECRET}@")


@pytest.mark.usefixtures("bucket")
def test_a_sweep_in_an_object_store_is_scored_on_dev_and_keeps_its_logs(toy: tuple[str, str], tmp_path: Path) -> None:
    model, data = toy
    where = (
        "--models",
        model,
        "--data",
        data,
        "--storage-path",
        _with_secret(URI),
        "--batch-sizes",
        "16",
        "--epochs",
        "1",
    )
    sweeps = Sweeps(tmp_path, where)
    flags = ("--selection-fraction", "0.2", "--learning-rates", "1e-3", "--num-seeds", "2", "--calibrate-head")
    outputs = []
    for _ in range(2):
        done = sweeps.run("store", *flags, "--trackers", "jsonl")
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    assert f"events          {URI}/store/trackers/events.jsonl" in outputs[0]

    folder = Storage.open(URI).child("store")
    trials = ResultsTable(URI).read("trials", experiment="store", attempts="latest").to_pylist()
    assert [row["status"] for row in trials] == ["succeeded"] * 2
    assert all(row["best_dev_accuracy"] is not None and row["selection_accuracy"] is not None for row in trials)
    (kept,) = (row["trial_id"] for row in trials if row["export_path"])
    stated = folder.read_json(f"{kept}/model/sst2_ray.json")
    assert stated["metrics"]["eval_split"] == "dev of data"
    assert stated["calibration"]["num_rows"] > 0
    assert stated["calibration"]["after"] is not None
    assert folder.read_bytes("logs/driver.log").decode().count("2 trials: 2 succeeded.") == 2
    assert folder.read_bytes("trackers/events.jsonl").decode().count('"event": "evaluation"') == 2
    written = [folder.read_bytes(file.path.removeprefix(f"{folder.root}/")) for file in files_below(folder, "")]
    assert not any(SECRET.encode() in content for content in [*written, *map(str.encode, outputs)])
