"""GLUE through the real command, from a hub on loopback: the plan of every task; MNLI with its two splits, then RTE and STS-B
from its model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION
from sst2_ray.results.store.table import ResultsTable
from tests.support.glue import LABELS, NUM_ROWS, glue_files
from tests.support.hub_server import HubServer, packaged_sbert_folder

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(packaged_sbert_folder() is None, reason="needs the packaged SBERT of the demo extra"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_dataset(GLUE_HUB_ID, glue_files(), revision=GLUE_REVISION)
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("glue")


PLANS = """
import contextlib, io, json, sys
from sst2_ray.cli import run
from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.tokenizers import load_tokenizer
from sst2_ray.run.prepare import check
found = {}
for task in sys.argv[1:]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run("train", ["--data", f"glue/{task}", "--model", "sbert-minilm", "--batch-size", "8", "--dry-run"])
    inputs = check(TrainConfig(data=f"glue/{task}", model="sbert-minilm", batch_size=8))
    model = build_classifier(inputs.resolved, load_tokenizer(inputs.resolved), seed=0)
    found[task] = [code, " ".join(out.getvalue().split()), model.head_weights["weight"].shape[0], inputs.config.metric]
print(json.dumps(found))
"""
METRICS = {"cola": "mcc", "mrpc": "f1", "qqp": "f1", "stsb": "spearman"}
"""Of the other tasks: accuracy."""


def test_every_task_is_planned_with_its_metric_its_head_and_its_rows(hub: HubServer, folder: Path) -> None:
    env = {**hub.env(folder / "plans"), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-c", PLANS, *LABELS]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    for task, (code, said, outputs, metric) in json.loads(done.stdout.splitlines()[-1]).items():
        assert code == 0
        assert outputs == (len(LABELS[task]) or 1)
        assert metric == METRICS.get(task, "accuracy")
        dev = "validation_matched" if task == "mnli" else "validation"
        assert f"{NUM_ROWS['train']} train rows, {NUM_ROWS[dev]} dev" in said, said
        each = [f"{name} {NUM_ROWS['train'] // len(LABELS[task])}" for name in LABELS[task]]
        assert (", ".join(each) if each else "none: values from 0 to 5") in said


def train(hub: HubServer, folder: Path, name: str, *words: str) -> tuple[dict[str, Any], str]:
    """The row of the finished trial, and what was said."""
    command = [sys.executable, str(ROOT / "jobs/train.py"), "--storage-path", "runs", "--name", name, *words]
    # Ray's sockets lie below its sessions: a path of pytest's would be too long for them.
    with tempfile.TemporaryDirectory(prefix="glue-", dir="/tmp") as sessions:
        env = {**hub.env(folder / "cache"), "PYTHONPATH": str(ROOT), "RAY_TMPDIR": sessions}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = ResultsTable(str(folder / "runs")).read("trials", experiment=name, attempts="latest").to_pylist()
    [row] = [row for row in rows if row["status"] == "succeeded"]
    return row, done.stdout


def test_mnli_is_scored_on_both_of_its_splits_and_rte_starts_from_it(hub: HubServer, folder: Path) -> None:
    shared = ("--batch-size", "16", "--epochs", "2", "--precision", "fp32", "--learning-rate", "1e-4")
    judged = ("--choose-by", "macro_f1", "--class-weights", "balanced", "--label-smoothing", "0.1")
    row, said = train(hub, folder, "mnli", "--data", "glue/mnli", *shared, *judged)
    assert json.loads(row["class_names_json"]) == list(LABELS["mnli"])
    assert (row["num_dev_rows"], row["eval_split"]) == (NUM_ROWS["validation_matched"], "dev of glue/mnli matched")
    assert (row["chosen_by"], row["best_score"]) == ("macro_f1", row["best_dev_macro_f1"])
    assert row["data_source"] == f"{GLUE_HUB_ID}@{GLUE_REVISION}, mnli"
    others = json.loads(row["other_scores_json"])["validation_mismatched"]
    assert others["num_rows"] == NUM_ROWS["validation_mismatched"]
    assert "macro F1" in said
    assert "mismatched" in said
    table = ResultsTable(str(folder / "runs"))
    answers = [r for r in table.read("predictions").to_pylist() if r["split"] == "validation_mismatched"]
    assert sum(r["label"] == r["predicted"] for r in answers) == pytest.approx(others["accuracy"] * len(answers))
    records = table.read("epochs", experiment="mnli").to_pylist()
    best = max((r["dev_macro_f1"], -r["global_step"]) for r in records if r["split"] == "dev")
    assert row["best_global_step"] == -best[1]

    row, said = train(hub, folder, "rte", "--data", "glue/rte", "--start-from", "runs/mnli", *shared)
    assert (row["model"], row["model_source"], row["chosen_by"]) == ("sbert-minilm", "folder", "accuracy")
    assert json.loads(row["class_names_json"]) == list(LABELS["rte"])
    assert "sbert-minilm, from runs/mnli" in said

    row, said = train(hub, folder, "stsb", "--data", "glue/stsb", "--start-from", "runs/mnli", *shared)
    assert (row["chosen_by"], row["num_classes"], row["best_dev_accuracy"]) == ("spearman", 1, None)
    assert row["best_score"] == row["best_dev_spearman"]
    assert "Spearman" in said
    answers = [r for r in table.read("predictions", experiment="stsb").to_pylist() if r["split"] == "dev"]
    assert len(answers) == NUM_ROWS["validation"]
    labels, values = ([r[f"{of}_value"] for r in answers] for of in ("label", "predicted"))
    assert row["best_dev_spearman"] == pytest.approx(spearmanr(labels, values)[0], abs=1e-6)
