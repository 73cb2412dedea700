"""Export of fine-tuned models as folders that others load without this package: safetensors and JSON, nothing pickled.

ModernBERT: a folder for `transformers.pipeline("text-classification", model=FOLDER)`. SBERT: a folder for
`SentenceTransformer(FOLDER)`, with the head beside it (`classifier_head.safetensors`, `labels.json`). Both hold
`sst2_ray.json`: the model's kind, training data and metrics.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedTokenizerFast,
)

from sst2_ray.errors import InputError
from sst2_ray.modeling.attention.choice import choose_attention
from sst2_ray.modeling.build import counted, load_backbone, quiet_transformers, supported_attention
from sst2_ray.modeling.classifier import LABELS, ModernBertClassifier, SbertClassifier, SentenceClassifier
from sst2_ray.modeling.export.card import META_FILE, CardFacts, card_text, meta_values
from sst2_ray.modeling.sources import ModelInfo
from sst2_ray.modeling.sources.folders import check_safetensors, check_weights, read_json, read_stack, refuse_pickles
from sst2_ray.modeling.tokenizers import tokenizer_from_folder

__all__ = ["CardFacts", "ExportMeta", "export_model", "load_export"]

HEAD_FILE = "classifier_head.safetensors"
LABELS_FILE = "labels.json"

_POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


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


def export_model(
    classifier: SentenceClassifier, tokenizer: PreTrainedTokenizerFast, out_dir: Path, card: CardFacts
) -> None:
    """Write the export to `out_dir`, a local folder, replacing what stood there; it appears whole or not at all."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=out_dir.parent) as scratch:
        folder = Path(scratch) / out_dir.name
        folder.mkdir()
        with quiet_transformers():
            if isinstance(classifier, SbertClassifier):
                _write_sbert(classifier, tokenizer, folder, card)
            else:
                classifier.backbone.save_pretrained(folder, state_dict=_plain(classifier.backbone.state_dict()))
                _write_tokenizer(tokenizer, folder, card.config.max_length)
        _write_json(folder / META_FILE, meta_values(card))
        (folder / "README.md").write_text(card_text(card), encoding="utf-8")
        if out_dir.exists():
            shutil.rmtree(out_dir)
        folder.rename(out_dir)


def load_export(
    folder: Path, *, device: torch.device | str = "cpu"
) -> tuple[SentenceClassifier, PreTrainedTokenizerFast, ExportMeta]:
    """Load the classifier in evaluation mode, its tokenizer, and its facts.

    Nothing is unpickled. Raises InputError with one line where the folder is missing, damaged, not an export of this
    package, or holds a file that could be a pickle.
    """
    source = f"--model-dir {folder}"
    if not folder.is_dir():
        raise InputError(f"{source}: no such folder; give the folder of an exported model")
    if not (folder / META_FILE).is_file():
        raise InputError(
            f"{source}: it has no {META_FILE}, so it is no export of this package; give a run's model folder"
        )
    refuse_pickles(folder, source=source)
    meta = _read_meta(folder, source)
    stack = read_stack(folder, source=source) if meta.info.kind == "sbert" else None
    encoder = folder / (stack.transformer_path if stack else "")
    check_weights(encoder, source=source)
    tokenizer = tokenizer_from_folder(
        encoder, max_length=meta.max_length, lower_case=bool(stack and stack.lower_case), source=source
    )
    values = read_json(encoder / "config.json", source=source)
    try:
        config = CONFIG_MAPPING[str(values.get("model_type"))].from_dict(values)
    except Exception as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{source}: config.json describes no model ({line}); export the model again") from None
    attention, _ = choose_attention("auto", torch.device("cpu"), supported=supported_attention(config))
    info = dataclasses.replace(meta.info, attention=attention)
    mapping: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if stack is None else MODEL_MAPPING
    fresh = ("pooler.",) if stack else ()
    with quiet_transformers():
        backbone = load_backbone(mapping[type(config)], config, encoder, attention, source=source, fresh=fresh)
    model: SentenceClassifier
    if stack is None:
        model = ModernBertClassifier(info, backbone)
    else:
        model = SbertClassifier(info, backbone, stack, dropout=0.0)
        _load_head(model, folder / HEAD_FILE, source)
    return counted(model).to(device).eval(), tokenizer, meta


def _read_meta(folder: Path, source: str) -> ExportMeta:
    """Read `sst2_ray.json`."""
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
        )
        if info.kind not in ("modernbert", "sbert"):
            raise ValueError(f"kind {info.kind!r}")
        return ExportMeta(
            info=info,
            corpora=tuple(values["corpora"]),
            max_length=int(values["max_length"]),
            config_hash=values["config_hash"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: {META_FILE} is damaged ({error}); export the model again") from None


def _load_head(model: SbertClassifier, path: Path, source: str) -> None:
    if not path.is_file():
        raise InputError(f"{source}: {path.name} is missing; export the model again")
    check_safetensors(path, source=source)
    try:
        model.head.load_state_dict(load_file(path))
    except RuntimeError as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{source}: {path.name} does not fit the encoder ({line}); export the model again") from None


def _write_sbert(model: SbertClassifier, tokenizer: PreTrainedTokenizerFast, folder: Path, card: CardFacts) -> None:
    stack = model.stack
    encoder = folder / stack.transformer_path
    encoder.mkdir(parents=True, exist_ok=True)
    weights = _plain({**model.backbone.state_dict(), **model.pooler_state})
    model.backbone.save_pretrained(encoder, state_dict=weights)
    _write_tokenizer(tokenizer, encoder, card.config.max_length)
    settings = {"max_seq_length": card.config.max_length, "do_lower_case": stack.lower_case}
    _write_json(encoder / "sentence_bert_config.json", settings)
    _write_pooling(model, folder / stack.pooling_path)
    modules = [("Transformer", stack.transformer_path), ("Pooling", stack.pooling_path), *stack.following]
    # These names were sentence-transformers' own up to 5 and are still understood by 6.
    _write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
    )
    for _, path in stack.following:
        _copy_module(Path(model.info.origin) / path, folder / path)
    prompts = Path(model.info.origin) / "config_sentence_transformers.json"
    if model.info.origin and prompts.is_file():
        shutil.copyfile(prompts, folder / prompts.name)
    save_file(_plain(dict(model.head_weights)), folder / HEAD_FILE)
    _write_json(folder / LABELS_FILE, {str(number): label for number, label in LABELS.items()})


def _write_pooling(model: SbertClassifier, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    modes = model.stack.pooling_modes
    size = model.backbone.config.hidden_size
    flags = {flag: mode in modes for mode, flag in _POOLING_FLAGS.items()}
    _write_json(folder / "config.json", {"word_embedding_dimension": size, **flags})


def _copy_module(source: Path, target: Path) -> None:
    """Copy the files of a module that is not trained, e.g. Dense; Normalize often has none."""
    for file in sorted(source.glob("*")) if source.is_dir() else ():
        if file.suffix in (".json", ".safetensors"):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / file.name)


def _write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, max_length: int) -> None:
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for noise in ("backend", "is_local", "local_files_only"):
        values.pop(noise, None)
    # The name under which transformers 4 knows this class as well.
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write_json(path, values)


def _plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy to contiguous fp32 tensors on the CPU."""
    return {name: tensor.detach().to("cpu", torch.float32).contiguous().clone() for name, tensor in state.items()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
