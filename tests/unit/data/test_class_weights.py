"""Weights of classes: balanced ones, files of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from sst2_ray.data.class_weights import read_class_weights
from sst2_ray.data.labels import ClassNames
from sst2_ray.errors import InputError

TOPICS = ClassNames(("news", "science", "sports"))
LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 2], dtype=np.int16)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert read_class_weights("balanced", TOPICS, LABELS) == pytest.approx(tuple(expected))


def test_a_file_names_a_weight_for_each_class_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(json.dumps({"Sports": 4, "news": 0.5, "science": 1}))
    (tmp_path / "w.yaml").write_text("0: 1.0\n1: 2.5\n")
    assert read_class_weights(str(tmp_path / "w.json"), TOPICS, LABELS) == (0.5, 1.0, 4.0)
    assert read_class_weights(str(tmp_path / "w.yaml"), ClassNames(), LABELS[:2]) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"news": 1, "sports": 2}', "has no weight for science"),
        ('{"news": 1, "science": 1, "sports": 2, "music": 2}', "names music, which is no class"),
        ('{"news": 0, "science": 1, "sports": 2}', "news: 0 is no finite number above 0"),
        ('{"news": "much", "science": 1, "sports": 2}', "news: 'much' is no finite number above 0"),
        ("just words", "must hold a class name and its weight a line"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_no_weight_for_every_class_is_refused_in_one_line(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "w.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_class_weights(str(tmp_path / "w.json"), TOPICS, LABELS)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_says_what_to_give() -> None:
    with pytest.raises(InputError, match="give balanced, or a file such as"):
        read_class_weights("nowhere.json", TOPICS, LABELS)


@pytest.mark.parametrize("content", ["yes: 2\nno: 1\n", "'yes': 2\nOff: 1\n"])
def test_a_word_that_yaml_reads_as_a_switch_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "w.yaml").write_text(content)
    with pytest.raises(InputError, match="the classes are no, yes; put yes, no, on and off in quotes"):
        read_class_weights(str(tmp_path / "w.yaml"), ClassNames(("no", "yes")), LABELS[:2])
