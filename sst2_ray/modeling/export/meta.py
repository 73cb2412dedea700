"""Facts that an export states about itself (`sst2_ray.json`), read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sst2_ray.config.registry import ModelKind
from sst2_ray.errors import InputError
from sst2_ray.modeling.sources import ModelInfo
from sst2_ray.modeling.sources.folders import META_FILE, read_json


@dataclass(frozen=True, kw_only=True)
class ExportMeta:
    """Facts that an export states about itself (`sst2_ray.json`)."""

    info: ModelInfo
    corpora: tuple[str, ...]
    """Data sets that it was fine-tuned on, for the rules of known leaks."""
    max_length: int
    """Tokens a sentence is truncated to."""
    config_hash: str
    """Config hash of the run that made it."""
    data: str = ""
    """`--data` of that run; empty: not known."""
    labels_flag: tuple[str, ...] = ()
    """`--labels` of that run; empty: it fixed no classes."""


def local_export(given: str, *, flag: str = "--model-dir ") -> Path:
    """Return the local folder of an export: `given`, or the folder `model` in it.

    Raises:
        InputError: With one line that begins with `flag`: it is an address, or no export of this package.
    """
    if "://" in given:
        raise InputError(f"{flag}{given}: is not on this machine; copy it to a local folder first")
    folder = Path(given).expanduser()
    inner = folder / "model"
    found = inner if (inner / META_FILE).is_file() and not (folder / META_FILE).is_file() else folder
    if not found.is_dir():
        raise InputError(f"{flag}{given}: no such folder; give a run's model folder")
    if not (found / META_FILE).is_file():
        raise InputError(
            f"{flag}{given}: it has no {META_FILE}, so it is no export of this package; give the model folder of a "
            "run or a trial (`sst2-ray best` copies a sweep's best)"
        )
    return found


def read_meta(folder: Path, source: str) -> ExportMeta:
    """Read `sst2_ray.json`. Raises InputError with one line that begins with `source`."""
    values = read_json(folder / META_FILE, source=source)
    try:
        info = ModelInfo(
            kind=values["kind"],
            source=values["source"],
            revision=values["revision"],
            random_weights=values["random_weights"],
            label=values["label"],
            attention="auto",
            origin=str(folder),
            trained_on=tuple(values["corpora"]),
            labels=tuple(values.get("labels", ModelInfo.labels)),
            text_columns=tuple(values.get("text_columns", ())),
        )
        if info.kind not in get_args(ModelKind):
            raise ValueError(f"kind {info.kind!r}")
        return ExportMeta(
            info=info,
            corpora=tuple(values["corpora"]),
            max_length=int(values["max_length"]),
            config_hash=values["config_hash"],
            data=str(values.get("config", {}).get("data") or ""),
            labels_flag=tuple(map(str, values.get("config", {}).get("labels") or ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: {META_FILE} is damaged ({error}); export the model again") from None
