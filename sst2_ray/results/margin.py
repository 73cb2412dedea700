"""The margin of a tie that the sweeps of a results table were given, for commands that are not given one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sst2_ray.config.sweep import DEFAULT_MARGIN
from sst2_ray.errors import InputError
from sst2_ray.own_files import CONFIG_FILE, read_own
from sst2_ray.storage import Storage

MAX_SWEEPS = 20
"""Sweeps whose config is read, those with the most trials first."""


def margin_points(experiments: Iterable[tuple[str, Iterable[str]]]) -> float:
    """Return the `--margin` of sweeps, in points; the default unless all of them have the same one.

    Args:
        experiments: storage paths, each with the experiments of its trials, one name a trial. Single runs have no margin.
    """
    found = {margin for storage_path, names in experiments for margin in _given(storage_path, names)}
    return found.pop() if len(found) == 1 else DEFAULT_MARGIN


def _given(storage_path: str, names: Iterable[str]) -> Iterable[float]:
    storage = Storage.open(storage_path)
    for name, _ in Counter(names).most_common(MAX_SWEEPS):
        try:
            config = read_own(storage.child(name), CONFIG_FILE, of=name) or {}
        except (OSError, InputError):
            continue  # a damaged one, an import, a file of predictions
        if "sweep" in config:
            yield float(config["sweep"].get("margin", DEFAULT_MARGIN))
