"""A file with the column that training read labels from is scored by it, and the report says so."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.support.models import SENTENCES

NOTE = "note: scored by its column 'stars', which the model was trained on (--ignore-labels turns this off)"


@pytest.fixture
def model(export, tmp_path):
    """Copy an export as a run with `--label-column stars` would have written it."""
    model = shutil.copytree(export, tmp_path / "model")
    values = json.loads((model / "sst2_ray.json").read_text())
    values["config"]["label_column"] = "stars"
    (model / "sst2_ray.json").write_text(json.dumps(values))
    return model


def file_of(path: Path, *columns: str) -> Path:
    """Write the sentences with columns of 0 and 1 in turn, the second column the other way round."""
    with path.open("w", newline="") as file:
        rows = [(text, *((row + place) % 2 for place in range(len(columns)))) for row, text in enumerate(SENTENCES)]
        csv.writer(file).writerows([("text", *columns), *rows])
    return path


def accuracy_line(out: str) -> str:
    return next((line for line in out.splitlines() if "accuracy" in line), "")


def test_the_column_that_training_read_labels_from_scores_a_file(command, model, tmp_path):
    given = ("--model-dir", model, "--input", file_of(tmp_path / "in.csv", "Stars"))
    code, out, err = command(*given)
    assert code == 0, err
    assert NOTE.replace("stars", "Stars") in out
    score = accuracy_line(out)
    assert score
    code, out, _ = command(*given, "--label-column", "stars")
    assert (code, accuracy_line(out)) == (0, score)
    assert "scored by" not in out
    code, out, _ = command(*given, "--ignore-labels")
    assert (code, accuracy_line(out)) == (0, "")
    assert "scored by" not in out


def test_it_comes_before_a_column_label_which_others_are_scored_by(command, model, export, tmp_path):
    both, alone = file_of(tmp_path / "both.csv", "label", "stars"), file_of(tmp_path / "alone.csv", "label")
    _, by_stars, _ = command("--model-dir", model, "--input", both, "--label-column", "stars")
    _, by_label, _ = command("--model-dir", model, "--input", both, "--label-column", "label")
    assert accuracy_line(by_stars) != accuracy_line(by_label) != ""
    code, out, _ = command("--model-dir", model, "--input", both)
    assert (code, accuracy_line(out)) == (0, accuracy_line(by_stars))
    assert NOTE in out
    for words in (("--model-dir", model, "--input", alone), ("--model-dir", export, "--input", both)):
        code, out, _ = command(*words)
        assert (code, accuracy_line(out)) == (0, accuracy_line(by_label))
        assert "scored by" not in out
