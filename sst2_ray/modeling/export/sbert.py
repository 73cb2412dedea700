"""The layout of exported SBERTs, which sentence-transformers runs whole: encoder, pooling and head.

`encoder/` is the fine-tuned sentence-transformers model, complete with the modules after its pooling. The top folder's
modules.json chains its transformer and its pooling to the head in `classifier/`, so that
`SentenceTransformer(FOLDER).encode(texts)` gives logits. The top folder has no config.json: transformers has no
architecture with this pooling, and would otherwise load the encoder as a classifier with a random head.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from sst2_ray.errors import InputError
from sst2_ray.modeling.classifier import SbertClassifier
from sst2_ray.modeling.sources.folders import ENCODER_FOLDER, POOLING_FLAGS, SbertStack, check_safetensors, read_stack

HEAD_FOLDER = "classifier"
_OLD_HEAD = "classifier_head.safetensors"
"""Head of exports before this layout, whose encoder lies in the top folder."""

_MODULES = "sentence_transformers.models"
"""sentence-transformers' own module path up to version 5, still understood by 6."""


def write_sbert(model: SbertClassifier, tokenizer: PreTrainedTokenizerFast, folder: Path, max_length: int) -> None:
    """Write encoder, tokenizer, pooling and head below `folder`."""
    stack, encoder = model.stack, folder / ENCODER_FOLDER
    transformer = encoder / stack.transformer_path
    transformer.mkdir(parents=True)
    model.backbone.save_pretrained(transformer, state_dict=plain({**model.backbone.state_dict(), **model.pooler_state}))
    write_tokenizer(tokenizer, transformer, max_length, type_ids=model.takes_type_ids)
    write_json(
        transformer / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": stack.lower_case}
    )
    flags = {flag: mode in stack.pooling_modes for flag, mode in POOLING_FLAGS.items()}
    size = model.backbone.config.hidden_size
    (encoder / stack.pooling_path).mkdir(parents=True, exist_ok=True)
    write_json(encoder / stack.pooling_path / "config.json", {"word_embedding_dimension": size, **flags})
    origin = Path(model.info.origin) if model.info.origin else None
    if origin is not None:
        for _, path in stack.following:
            _copy_module(origin / path, encoder / path)
        prompts = origin / "config_sentence_transformers.json"
        if prompts.is_file():
            shutil.copyfile(prompts, encoder / prompts.name)
    chain = [("Transformer", stack.transformer_path), ("Pooling", stack.pooling_path)]
    _write_modules(encoder, [*chain, *stack.following])
    inside = [(kind, f"{ENCODER_FOLDER}/{path}".rstrip("/")) for kind, path in chain]
    _write_modules(folder, [*inside, ("Dense", HEAD_FOLDER)])
    _write_head(model, folder / HEAD_FOLDER)


def read_export_stack(folder: Path, *, source: str) -> tuple[SbertStack, Path]:
    """Return the modules of an exported SBERT and the folder that they are relative to, in the old layout too."""
    encoder = folder / ENCODER_FOLDER if (folder / ENCODER_FOLDER / "modules.json").is_file() else folder
    stack = read_stack(encoder, source=source)
    if stack is None:
        raise InputError(f"{source}: modules.json is missing; export the model again")
    return stack, encoder


def load_head(model: SbertClassifier, folder: Path, *, source: str) -> None:
    """Load the head of an exported SBERT, in the old layout too."""
    path = folder / HEAD_FOLDER / "model.safetensors"
    if not path.is_file() and (folder / _OLD_HEAD).is_file():
        path = folder / _OLD_HEAD
    if not path.is_file():
        raise InputError(f"{source}: {path.relative_to(folder)} is missing; export the model again")
    check_safetensors(path, source=source)
    try:
        model.head.load_state_dict({name.removeprefix("linear."): t for name, t in load_file(path).items()})
    except RuntimeError as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{source}: {path.name} does not fit the encoder ({line}); export the model again") from None


def _write_head(model: SbertClassifier, folder: Path) -> None:
    """Write the head as a Dense module of sentence-transformers, without an activation."""
    folder.mkdir()
    head = plain(model.head_weights)
    save_file({f"linear.{name}": tensor for name, tensor in head.items()}, folder / "model.safetensors")
    settings = {
        "in_features": head["weight"].size(1),
        "out_features": head["weight"].size(0),
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    write_json(folder / "config.json", settings)


def _write_modules(folder: Path, modules: list[tuple[str, str]]) -> None:
    values = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_MODULES}.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ]
    write_json(folder / "modules.json", values)


def _copy_module(source: Path, target: Path) -> None:
    """Copy the files of a module that is not trained, e.g. Dense; Normalize often has none."""
    for file in sorted(source.glob("*")) if source.is_dir() else ():
        if file.suffix in (".json", ".safetensors"):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / file.name)


def write_tokenizer(
    tokenizer: PreTrainedTokenizerFast, folder: Path, max_length: int, *, type_ids: bool = False
) -> None:
    """Write the tokenizer so that transformers 4 loads it as well. `type_ids`: it tells the model which token is whose."""
    tokenizer.model_max_length = max_length
    # Settings of the last call would otherwise be saved as the tokenizer's own.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for noise in ("backend", "is_local", "local_files_only"):
        values.pop(noise, None)
    # The name under which transformers 4 knows this class as well.
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    if type_ids:
        values["model_input_names"] = [*tokenizer.model_input_names, "token_type_ids"]
    write_json(path, values)


def plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy to contiguous fp32 tensors on the CPU."""
    return {name: tensor.detach().to("cpu", torch.float32).contiguous().clone() for name, tensor in state.items()}


def write_json(path: Path, value: object) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
