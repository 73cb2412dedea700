"""Export of fine-tuned models as folders that others load without this package: safetensors and JSON, nothing pickled.

Encoders with a head of their family: a folder for `transformers.pipeline("text-classification", model=FOLDER)`. SBERT:
a folder for `SentenceTransformer(FOLDER).encode`, which gives logits (see sbert.py). Both hold `sst2_ray.json`: the
model's kind, classes, training data and metrics.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from sst2_ray.errors import InputError
from sst2_ray.modeling.attention.choice import choose_attention
from sst2_ray.modeling.build import (
    counted,
    encoder_class,
    headed_classifier,
    load_backbone,
    quiet_transformers,
    supported_attention,
)
from sst2_ray.modeling.classifier import SbertClassifier, SentenceClassifier
from sst2_ray.modeling.export.card import FORMAT, CardFacts, card_text, meta_values
from sst2_ray.modeling.export.meta import ExportMeta, read_meta
from sst2_ray.modeling.export.sbert import (
    load_head,
    plain,
    read_export_stack,
    write_json,
    write_sbert,
    write_tokenizer,
)
from sst2_ray.modeling.export.usage import usage
from sst2_ray.modeling.sources import ModelInfo
from sst2_ray.modeling.sources.folders import META_FILE, check_weights, read_json, refuse_pickles
from sst2_ray.modeling.tokenizers import check_vocabulary, tokenizer_from_folder

__all__ = ["CardFacts", "ExportMeta", "convert_export", "export_model", "load_export"]


_log = logging.getLogger(__name__)


def export_model(
    classifier: SentenceClassifier, tokenizer: PreTrainedTokenizerFast, out_dir: Path, card: CardFacts
) -> None:
    """Write the export to `out_dir`, a local folder, replacing what stood there; it appears whole or not at all."""
    _write(classifier, tokenizer, out_dir, card.config.max_length, meta_values(card), card_text(card))


def convert_export(folder: Path, out_dir: Path) -> None:
    """Write an export of an older version to `out_dir` in the layout of today, with the same weights and facts."""
    model, tokenizer, meta = load_export(folder)
    values = {**read_json(folder / META_FILE, source=str(folder)), **FORMAT, "labels": list(model.info.labels)}
    card = (folder / "README.md").read_text(encoding="utf-8").split("## Use")[0]
    _write(model, tokenizer, out_dir, meta.max_length, values, card + usage(model.info, meta.max_length) + "\n")


def _write(
    classifier: SentenceClassifier,
    tokenizer: PreTrainedTokenizerFast,
    out_dir: Path,
    max_length: int,
    meta: dict[str, object],
    card: str,
) -> None:
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=out_dir.parent) as scratch:
        folder = Path(scratch) / out_dir.name
        folder.mkdir()
        with quiet_transformers():
            if isinstance(classifier, SbertClassifier):
                write_sbert(classifier, tokenizer, folder, max_length)
            else:
                classifier.backbone.save_pretrained(folder, state_dict=plain(classifier.backbone.state_dict()))
                write_tokenizer(tokenizer, folder, max_length, type_ids=classifier.takes_type_ids)
        write_json(folder / META_FILE, meta)
        (folder / "README.md").write_text(card, encoding="utf-8")
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
    meta = read_meta(folder, source)
    stack, base = read_export_stack(folder, source=source) if meta.info.kind == "sbert" else (None, folder)
    encoder = base / (stack.transformer_path if stack else "")
    check_weights(encoder, source=source)
    tokenizer = tokenizer_from_folder(
        encoder, max_length=meta.max_length, lower_case=bool(stack and stack.lower_case), source=source
    )
    config = _read_config(encoder, source)
    check_vocabulary(tokenizer, config.vocab_size, source=source)
    attention, _ = choose_attention("auto", torch.device(device), supported=supported_attention(config))
    info = dataclasses.replace(meta.info, attention=attention)
    architecture = encoder_class(config) if stack else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with quiet_transformers():
        backbone = load_backbone(architecture, config, encoder, attention, source=source, head=stack is None)
    if stack is None:
        _check_labels(info, config, source)
        return counted(headed_classifier(info, backbone)).to(device).eval(), tokenizer, meta
    if base == folder:
        _log.warning(
            "%s: an export of an older version, which standard tools load with a random head; "
            'python -c "from pathlib import Path; from sst2_ray.modeling.export.folder import convert_export; '
            "convert_export(Path('%s'), Path('NEW'))\" writes one that they load right or refuse",
            source,
            folder,
        )
    model = SbertClassifier(dataclasses.replace(info, origin=str(base)), backbone, stack, dropout=0.0)
    load_head(model, folder, source=source)
    return counted(model).to(device).eval(), tokenizer, meta


def _read_config(folder: Path, source: str) -> PreTrainedConfig:
    """Read the transformers config of an export."""
    values = read_json(folder / "config.json", source=source)
    try:
        return CONFIG_MAPPING[str(values.get("model_type"))].from_dict(values)
    except Exception as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{source}: config.json describes no model ({line}); export the model again") from None


def _check_labels(info: ModelInfo, config: PreTrainedConfig, source: str) -> None:
    """Refuse a config.json whose classes are not those of `sst2_ray.json`: their order decides what a logit means."""
    names = tuple(config.id2label[number] for number in sorted(config.id2label))
    if names != info.labels:
        raise InputError(
            f"{source}: config.json names the classes {', '.join(names)}, {META_FILE} {', '.join(info.labels)}; "
            "export the model again"
        )
