"""Weights of classes in the training loss: balanced by their rows, or from a file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from sst2_ray.data.labels import ClassNames, LabelArray, canonical_label
from sst2_ray.data.streams import one_line
from sst2_ray.errors import InputError

BALANCED = "balanced"
_SWITCHES = {"true", "false"}


def read_class_weights(given: str | None, classes: ClassNames, labels: LabelArray) -> tuple[float, ...] | None:
    """Return a weight for each class; None: all rows count the same.

    balanced: rows / (classes * rows of the class), so that every class has the same sum of weights (King and Zeng, Political
    Analysis 9 (2001) 137-163; scikit-learn's class_weight="balanced").

    Args:
        given: `--class-weights`: balanced, or a JSON or YAML file with a weight for each class name.
        classes: Of the training split.
        labels: Of the training rows, [rows].

    Raises:
        InputError: The file cannot be read, lacks a class, names another one, or holds a weight that is not above 0.
    """
    if given is None:
        return None
    if given == BALANCED:
        counts = np.bincount(labels, minlength=len(classes))
        return tuple(float(len(labels) / (len(classes) * max(1, count))) for count in counts)
    weights = _read(given)
    numbers = classes.match(list(weights))
    unknown = [name for name in weights if name not in numbers]
    missing = [name for number, name in enumerate(classes.names) if number not in numbers.values()]
    if unknown or missing:
        what = f"names {unknown[0]}, which is no class" if unknown else f"has no weight for {missing[0]}"
        hint = (
            "; put yes, no, on and off in quotes, which YAML reads as true and false" if _SWITCHES & {*unknown} else ""
        )
        raise InputError(f"--class-weights {given}: {what}; the classes are {classes}{hint}")
    by_number = {numbers[name]: weight for name, weight in weights.items()}
    return tuple(by_number[number] for number in range(len(classes)))


def _read(file: str) -> dict[str, float]:
    """Read the weights of a file by the one spelling of each class name."""
    import yaml

    try:
        values = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"--class-weights {file}: cannot be read ({one_line(error)}); give balanced, or a file such as "
            + json.dumps({"negative": 1.0, "positive": 2.5})
        ) from None
    if not isinstance(values, dict):
        raise InputError(f"--class-weights {file}: must hold a class name and its weight a line, e.g. positive: 2.5")
    weights = {}
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise InputError(f"--class-weights {file}: {name}: {value!r} is no finite number above 0")
        weights[canonical_label(name) or str(name)] = float(value)
    return weights
