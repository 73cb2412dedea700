"""Checks of a model folder before anything is built from it: readable JSON, whole safetensors, no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sst2_ray.errors import InputError

JsonObject = dict[str, Any]
"""Content of a JSON file, of which no field is known to be there."""

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# sentence-transformers before 6.0 wrote one flag a mode, and concatenated in this order.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",  # nosec B105: a name of a field
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Modules that may follow the pooling; others would have to be imported by the name that the folder gives.
_AFTER_POOLING = ("Normalize", "Dense", "Dropout", "LayerNorm")

ENCODER_FOLDER = "encoder"
"""Folder of the encoder in an exported SBERT, whose top folder holds the classifier."""

META_FILE = "sst2_ray.json"
"""Facts of an export about itself."""

_LFS_POINTER = b"version https://git-lfs"
"""First bytes of what a clone without Git LFS holds in place of a large file."""

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")


@dataclass(frozen=True, kw_only=True)
class SbertStack:
    """Modules of a sentence-transformers folder, as far as a classifier needs them."""

    pooling_modes: tuple[str, ...] = ("mean",)
    """Modes out of POOLING_MODES; the features of several are concatenated."""
    transformer_path: str = ""
    """Folder of the transformer, relative to the model's."""
    pooling_path: str = "1_Pooling"
    """Folder of the pooling's config.json."""
    following: tuple[tuple[str, str], ...] = ()
    """(class name, folder) of the modules after the pooling, e.g. ("Normalize", "2_Normalize")."""
    lower_case: bool = False
    """Texts are lower-cased before the tokenizer's own normalization."""


def read_json(path: Path, *, source: str) -> JsonObject:
    """Read the JSON object in a file of a model folder. Raises InputError with one line that begins with `source`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{source}: {path.name} is missing in {path.parent}; give a whole model folder") from None
    except (OSError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{source}: {path} cannot be read ({line}); download or export the model again") from None
    if not isinstance(value, dict):
        raise InputError(f"{source}: {path} holds no JSON object; download or export the model again")
    return value


def check_weights(folder: Path, *, source: str) -> None:
    """Refuse a folder whose safetensors are missing, cut off or damaged. Reads headers only."""
    index = folder / "model.safetensors.index.json"
    shards = (
        read_json(index, source=source).get("weight_map", {}).values() if index.is_file() else ["model.safetensors"]
    )
    for name in sorted(set(shards)):
        path = folder / _inside(name, source=source)
        if not path.is_file():
            if any(folder.glob("*.bin")):
                raise InputError(
                    f"{source}: {folder} has its weights as a pickle only, which is never loaded; "
                    "save them as safetensors (save_pretrained of transformers does)"
                )
            raise InputError(f"{source}: {name} is missing in {folder}; give a whole model folder")
        check_safetensors(path, source=source)


def check_all_weights(folder: Path, stack: SbertStack | None, *, source: str) -> None:
    """Check the encoder's weights, and those of the modules after the pooling, which exports copy."""
    following = [path for kind, path in stack.following if kind in ("Dense", "LayerNorm")] if stack else []
    for path in [stack.transformer_path if stack else "", *following]:
        check_weights(folder / path, source=source)


def check_safetensors(path: Path, *, source: str) -> None:
    """Refuse a safetensors file whose header is damaged or whose length is not the one its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise InputError(
                    f"{source}: {path} is a pointer of Git LFS, not the weights; run git lfs pull in its folder, or "
                    "download the model"
                )
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(f"{source}: {path} is corrupt ({error}); download or export the model again") from None


def refuse_pickles(folder: Path, *, source: str) -> None:
    """Refuse an export with a file that loads by unpickling: exports hold safetensors and JSON only."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _PICKLES and not _is_openvino(path):
            raise InputError(
                f"{source}: {path.relative_to(folder)} may be a pickle, which runs code when it is loaded; "
                "an export holds none: remove it, or export the model again"
            )


def _is_openvino(path: Path) -> bool:
    """Tell whether a file holds the weights of an OpenVINO model, which are plain numbers beside their graph."""
    return path.suffix == ".bin" and path.parent.name == "openvino" and path.with_suffix(".xml").is_file()


def model_folder(folder: Path) -> Path:
    """Return the folder to start from: an exported SBERT's encoder, or `folder` itself."""
    inner = folder / ENCODER_FOLDER
    return inner if (folder / META_FILE).is_file() and (inner / "modules.json").is_file() else folder


def exported_corpora(folder: Path) -> tuple[str, ...]:
    """Return the data sets that an export says it was fine-tuned on; empty for any other folder."""
    path = folder / META_FILE
    if not path.is_file() and folder.name == ENCODER_FOLDER:
        path = folder.parent / META_FILE
    if not path.is_file():
        return ()
    return tuple(str(name) for name in read_json(path, source=str(folder)).get("corpora", ()))


def refuse_adapter(folder: Path, *, source: str) -> None:
    """Refuse a folder that holds an adapter (PEFT) and no model, saying how it becomes one."""
    if (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return
    path = folder / "adapter_config.json"
    if path.is_file():
        base = read_json(path, source=source).get("base_model_name_or_path") or "its base model"
        raise InputError(
            f"{source}: it holds an adapter of {base}, not a model; merge it (peft: "
            "PeftModel.from_pretrained(base, FOLDER).merge_and_unload().save_pretrained(MERGED)), save the tokenizer "
            "beside it, and give that folder"
        )


def read_stack(folder: Path, *, source: str) -> SbertStack | None:
    """Read the modules of a sentence-transformers folder; None where there is no modules.json.

    Nothing is imported by a name that a folder gives: only the classes known here count, whatever their module path.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        named = [(str(m["type"]).rsplit(".", 1)[-1], _inside(str(m["path"]), source=source)) for m in modules]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{source}: {path} is not a list of modules; download or export the model again") from None
    kinds = [kind for kind, _ in named]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind not in _AFTER_POOLING for kind in kinds[2:]):
        raise InputError(
            f"{source}: its modules are {', '.join(kinds) or 'none'}; a classifier is built on Transformer, Pooling "
            f"and then any of {', '.join(_AFTER_POOLING)}"
        )
    transformer = _transformer_settings(folder / named[0][1], source=source)
    return SbertStack(
        pooling_modes=_pooling_modes(folder / named[1][1] / "config.json", source=source),
        transformer_path=named[0][1],
        pooling_path=named[1][1],
        following=tuple(named[2:]),
        lower_case=bool(transformer.get("do_lower_case", False)),
    )


def _transformer_settings(folder: Path, *, source: str) -> JsonObject:
    """Read sentence_bert_config.json, which older folders name after their own architecture."""
    files = sorted(folder.glob("sentence_*_config.json"))
    settings = read_json(files[0], source=source) if files else {}
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise InputError(f"{source}: its transformer is set up for {task}, not for sentence features")
    return settings


def _pooling_modes(path: Path, *, source: str) -> tuple[str, ...]:
    """Read the modes of a Pooling module, in either of its two spellings."""
    config = read_json(path, source=source)
    modes = config.get("pooling_mode") or [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag)] or "mean"
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise InputError(f"{source}: pooling mode {mode!r} is not known; known: {', '.join(POOLING_MODES)}")
    return modes


def _inside(relative: str, *, source: str) -> str:
    """Return `relative`, a path that a folder's own JSON names; refuse one that leads out of the folder."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{source}: {relative!r} leads out of the model folder; download or export the model again")
    return relative
