"""Data as people have them through the real command: trained on, recorded, exported and predicted under their own names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sst2_ray.cli import run
from tests.support.labelled import delimited, labelled
from tests.support.runs import Runs

pytestmark = pytest.mark.usefixtures("two_cpus")

TOPICS = ("sport", "politics", "culture", "science", "weather", "traffic", "money")


def train(runs: Runs, name: str, data: Path, *words: str) -> Path:
    """The export of a run of the command."""
    flags = ("--data", data, "--model", runs.folder / "modernbert", "--name", name, "--storage-path", runs.storage_path)
    limits = ("--batch-size", "16", "--epochs", "1", "--num-workers", "1", "--max-length", "64", "--precision", "fp32")
    assert run("train", [*map(str, (*flags, *limits)), *words]) == 0
    return Path(runs.storage_path) / name / "model"


def predicted(export: Path, source: Path, *words: str) -> list[dict[str, object]]:
    out = source.with_suffix(".labelled.jsonl")
    assert run("predict", ["--model-dir", str(export), "--input", str(source), "--output", str(out), *words]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_seven_topics_keep_their_names_to_the_end(runs: Runs) -> None:
    source = delimited(runs.folder / "topics.csv", labelled(140, TOPICS))
    export = train(runs, "topics", source)
    (trial,) = runs.rows("trials", "topics")[-1:]
    assert (trial["num_classes"], json.loads(trial["class_names_json"])) == (7, sorted(TOPICS))
    config = json.loads((export / "config.json").read_text())
    assert [config["id2label"][str(number)] for number in range(7)] == sorted(TOPICS)
    assert all(name in (export / "README.md").read_text() for name in TOPICS)
    rows = predicted(export, source)
    assert len(rows) == 140
    for row in rows:
        assert row["predicted_label"] == sorted(TOPICS)[row["predicted"]]
        assert sum(row[f"probability_{name}"] for name in TOPICS) == pytest.approx(1, abs=1e-4)
        assert max(row[f"probability_{name}"] for name in TOPICS) == pytest.approx(row["probability"], abs=1e-6)


def test_pairs_are_trained_on_and_recorded_as_pairs(runs: Runs) -> None:
    data = labelled(120)
    rows = [(text, data[i - 3][0], label) for i, (text, label) in enumerate(data)]
    source = delimited(runs.folder / "pairs.tsv", rows, header=("sentence1", "sentence2", "label"), delimiter="\t")
    export = train(runs, "pairs", source, "--text-columns", "sentence1", "sentence2")
    known = {f"{a} | {b}" for a, b, _ in rows}
    assert {row["text"] for row in runs.rows("predictions", "pairs")} <= known
    found = predicted(export, source)
    assert [(row["sentence1"], row["sentence2"]) for row in found] == [row[:2] for row in rows]
    assert {row["predicted_label"] for row in found} <= {"negative", "positive"}


def test_a_model_that_answers_one_class_only_is_said_to(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(text, "fraud" if i % 30 == 7 else "fine") for i, (text, _) in enumerate(labelled(300))]
    export = train(runs, "rare", delimited(runs.folder / "rare.csv", rows), "--learning-rate", "1e-6")
    (trial,) = runs.rows("trials", "rare")[-1:]
    assert json.loads(trial["class_names_json"]) == ["fine", "fraud"]
    capsys.readouterr()
    predicted(export, runs.folder / "rare.csv")
    said = " ".join(capsys.readouterr().out.split())
    assert "always answering fine" in said
    assert "macro F1" in said
    assert "MCC" in said
