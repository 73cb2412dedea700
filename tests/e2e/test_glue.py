"""GLUE through the real command, from a hub on loopback: the plan, the metric and the head of every task."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION
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
"""Metric of a task; the others have accuracy."""


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


@pytest.mark.parametrize(("task", "outputs"), [("rte", 2), ("stsb", 1)])
def test_a_run_on_another_task_starts_from_the_encoder_of_mnli(
    hub: HubServer, mnli: Path, folder: Path, task: str, outputs: int
) -> None:
    run = _train(hub, folder, task, "--start-from", str(mnli), "--learning-rate", "1e-30")
    began, trained = (load_file(export / "encoder" / "model.safetensors") for export in (run, mnli))
    assert len(began) > 50
    assert all(torch.equal(began[name], trained[name]) for name in began)
    heads = (load_file(export / "classifier" / "model.safetensors")["linear.weight"] for export in (run, mnli))
    assert [len(weight) for weight in heads] == [outputs, 3]


@pytest.fixture(scope="module")
def mnli(hub: HubServer, folder: Path) -> Path:
    """The run on MNLI that others start from; its encoder is not the packaged one any more."""
    return _train(hub, folder, "mnli", "--learning-rate", "1e-3")


def _train(hub: HubServer, folder: Path, task: str, *words: str) -> Path:
    """Train some steps on a task through the command, and return the folder of the run's export."""
    command = [sys.executable, "-m", "sst2_ray", "train", "--data", f"glue/{task}", "--model", "sbert-minilm", "--name", task,
               "--batch-size", "8", "--max-steps", "4", "--num-workers", "1", "--precision", "fp32",
               "--storage-path", str(folder / "runs"), *words]  # fmt: skip
    env = {**hub.env(folder / "plans"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / task / "model"
