"""GLUE's tasks from a hub on loopback: its texts, classes, evaluation splits and metric."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION, GLUE_TASKS
from tests.support.glue import LABELS, NUM_ROWS, glue_files, glue_rows
from tests.support.hub_server import HubServer

LOAD = """
import json, sys
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
found = {}
for task in sys.argv[1:]:
    config = TrainConfig(data=f"glue/{task}", batch_size=8)
    s = load_splits(config)
    parts = {"train": s.train, "dev": s.dev, **s.others}
    found[task] = {
        "rows": {name: [[t, y] for t, y in zip(p.texts, p.labels.tolist())] for name, p in parts.items()},
        "classes": s.classes.names, "source": s.source, "eval": s.eval_split, "metric": config.metric,
        "corpus": s.corpus, "notes": s.notes,
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer(standard=False) as server:
        server.add_dataset(GLUE_HUB_ID, glue_files(), revision=GLUE_REVISION)
        yield server


@pytest.fixture(scope="module")
def loaded(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-c", LOAD, *GLUE_TASKS]
    env = hub.env(tmp_path_factory.mktemp("glue-cache"))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def texts_of(task: str, split: str) -> list[Any]:
    kind = int if LABELS[task] else float
    rows = glue_rows(task, split)
    return [[texts[0] if len(texts) == 1 else list(texts), pytest.approx(kind(label))] for texts, label in rows]


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_a_task_has_its_texts_its_classes_in_glues_order_and_its_number_of_rows(
    loaded: dict[str, Any], task: str
) -> None:
    found = loaded[task]
    assert tuple(found["classes"]) == (LABELS[task] or ("score",))
    dev = "validation_matched" if task == "mnli" else "validation"
    assert found["rows"]["train"] == texts_of(task, "train")
    assert found["rows"]["dev"] == texts_of(task, dev)
    assert len(found["rows"]["dev"]) == NUM_ROWS[dev]


def test_the_metric_of_a_task_is_glues_own(loaded: dict[str, Any]) -> None:
    metrics = {task: found["metric"] for task, found in loaded.items()}
    assert metrics.pop("cola") == "mcc"
    assert (metrics.pop("mrpc"), metrics.pop("qqp")) == ("f1", "f1")
    assert metrics.pop("stsb") == "spearman"
    assert set(metrics.values()) == {"accuracy"}


def test_mnli_has_two_evaluation_splits(loaded: dict[str, Any]) -> None:
    mnli = loaded["mnli"]
    assert mnli["eval"] == "dev of glue/mnli matched"
    assert mnli["rows"]["validation_mismatched"] == texts_of("mnli", "validation_mismatched")
    assert all(set(found["rows"]) == {"train", "dev"} for task, found in loaded.items() if task != "mnli")


def test_a_task_is_read_at_the_pinned_revision_and_named(hub: HubServer, loaded: dict[str, Any]) -> None:
    assert loaded["rte"]["source"] == f"{GLUE_HUB_ID}@{GLUE_REVISION}, rte"
    assert (loaded["rte"]["eval"], loaded["rte"]["corpus"]) == ("dev of glue/rte", "glue/rte")
    assert (loaded["sst2"]["source"], loaded["sst2"]["corpus"]) == (f"{GLUE_HUB_ID}@{GLUE_REVISION}", "glue")
    assert all(GLUE_REVISION in request.path for request in hub.requests if GLUE_HUB_ID in request.path)


# ---- any data set of the hub

OTHER_ID, OTHER_REVISION = "sst2-ray-tests/Small-Reviews", "ab" * 20
LOAD_OTHER = """
import json, sys
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.errors import InputError
for values in json.loads(sys.argv[1]):
    try:
        s = load_splits(TrainConfig(batch_size=4, **values))
        print(json.dumps({"train": len(s.train), "dev": len(s.dev), "classes": s.classes.names, "source": s.source,
                          "eval": s.eval_split, "notes": s.notes}))
    except InputError as error:
        print(json.dumps({"refused": str(error)}))
"""


def csv_of(split: str, num: int) -> bytes:
    rows = [
        f"{split} review number {i} is {('long', 'short', 'odd')[i % 3]},{('ham', 'spam')[i % 2]}" for i in range(num)
    ]
    return "\n".join(["text,label", *rows]).encode()


def load(env: dict[str, str], *configs: dict[str, Any]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", LOAD_OTHER, json.dumps(configs)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_any_data_set_of_the_hub_is_read_at_a_commit_that_is_named(tmp_path: Path) -> None:
    files = {
        f"data/{split}.csv": csv_of(split, num) for split, num in (("train", 60), ("validation", 20), ("test", 12))
    }
    with HubServer(standard=False) as server:
        server.add_dataset(OTHER_ID, files, revision=OTHER_REVISION)
        env = server.env(tmp_path)
        usual, other, held_out, wrong, missing = load(
            env,
            {"data": OTHER_ID},
            {"data": OTHER_ID, "split_train": "validation", "split_dev": "test"},
            {"data": OTHER_ID, "split_train": "test", "data_revision": OTHER_REVISION, "split_dev": "validation"},
            {"data": OTHER_ID, "split_dev": "tset"},
            {"data": "sst2-ray-tests/nothing"},
        )
    assert (usual["train"], usual["dev"], usual["classes"]) == (60, 20, ["ham", "spam"])
    assert usual["source"] == f"{OTHER_ID}@{OTHER_REVISION}"
    assert usual["eval"] == f"dev of {OTHER_ID}"
    assert any(f"revision {OTHER_REVISION}" in note for note in usual["notes"])
    assert any("not used: its split test" in note for note in usual["notes"])
    assert (other["train"], other["dev"]) == (20, 12)
    assert other["eval"] == f"dev of {OTHER_ID} (test)"
    assert (held_out["train"], held_out["dev"]) == (12, 20)
    assert wrong["refused"].startswith("--split-dev tset: sst2-ray-tests/Small-Reviews has no such split; did you mean")
    assert "does not serve sst2-ray-tests/nothing" in missing["refused"]
    # without the hub: what the cache holds is used and said, with or without its revision
    (offline,) = load(env | {"HF_HUB_OFFLINE": "1"}, {"data": OTHER_ID})
    assert offline["source"] == usual["source"]
    assert any(f"its cached revision {OTHER_REVISION} is used" in note for note in offline["notes"])


def test_flags_of_the_hub_are_refused_beside_a_file(tmp_path: Path) -> None:
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.data.load import load_splits
    from sst2_ray.errors import InputError

    (tmp_path / "x.csv").write_bytes(csv_of("train", 40))
    with pytest.raises(InputError, match="--split-dev test: is for data sets on the hub"):
        load_splits(TrainConfig(data=str(tmp_path / "x.csv"), split_dev="test"))
