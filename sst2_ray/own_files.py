"""JSON files that runs and sweeps leave in their folders, which people may have edited."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sst2_ray.errors import InputError
from sst2_ray.storage import Storage

CONFIG_FILE = "config.json"
"""Name of the file that says what a run or a sweep was started with."""


def read_own(
    folder: Storage,
    name: str,
    *,
    of: str,
    keys: Collection[str] = (),
    remedy: str = "choose another name",
) -> dict[str, Any] | None:
    """Read a JSON object from the folder of a run or a sweep.

    Args:
        folder: of the run or sweep.
        name: of the file in it.
        of: flag and value that named the folder; the error begins with it.
        keys: that the object must have.
        remedy: end of the error.

    Returns:
        The object; None where there is no such file.

    Raises:
        InputError: The file is no JSON, no object, or lacks a key.
    """
    if not folder.exists(name):
        return None
    try:
        value = folder.read_json(name)
        missing = sorted(set(keys) - set(value)) if isinstance(value, dict) else ()
        why = f"it lacks {', '.join(missing)}" if missing else ""
    except ValueError as error:
        value, why = None, str(error)
    if not isinstance(value, dict) or why:
        raise InputError(f"{of}: {folder.path(name)} is damaged ({why or 'it holds no keys and values'}); {remedy}")
    return value
