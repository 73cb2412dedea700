"""Settings in which two configurations differ besides those that their labels name."""

from __future__ import annotations

import json

from sst2_ray import formatting
from sst2_ray.config.fields import flag, format_value
from sst2_ray.config.train import numeric_fields
from sst2_ray.results.analysis.ranking import Configuration

_SAID_ELSEWHERE = frozenset({"model", "random_weights", "learning_rate", "batch_size", "seed", "train_rows"})
"""Fields that labels name, and the one that the number of rows follows from."""


def difference_of_settings(a: Configuration, b: Configuration) -> str:
    """Say in which settings that affect the numbers two configurations differ; empty where no config of either is stored."""
    first, second = (_settings(c) for c in (a, b))
    shared = [name for name in first if name in second]
    differing = [
        f"{name} {_shown(first[name])} and {_shown(second[name])}" for name in shared if first[name] != second[name]
    ]
    if not differing:
        return ""
    said = f"They differ in more than their labels say: {'; '.join(differing)}."
    if [bool(one.get("--selection-fraction")) for one in (first, second)] in ([True, False], [False, True]):
        said += " Where the fraction is 0, epochs were chosen by these very scores, which are then too high."
    return said


def _settings(c: Configuration) -> dict[str, object]:
    """Read on how many rows the runs trained, and the config that they share."""
    stored = json.loads(c.setting("config_json") or "{}") if c.runs else {}
    fields = {flag(name): stored[name] for name in numeric_fields() if name in stored and name not in _SAID_ELSEWHERE}
    return {"rows trained on": c.setting("num_train_rows"), **fields} if fields else {}


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return formatting.number(value)
    return format_value(value) if value not in (None, [], "") else "not given"
