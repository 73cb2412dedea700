"""From a resolved model to a classifier: its config, its weights from a folder or from random numbers, a fresh head."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from sst2_ray.errors import InputError
from sst2_ray.modeling.attention import FLASH, choose_attention
from sst2_ray.modeling.classifier import LABELS, ModernBertClassifier, SbertClassifier, SentenceClassifier
from sst2_ray.modeling.sources import ResolvedModel, local_folder

SBERT_DROPOUT = 0.1
"""Before SBERT's head, where the config does not say: what the notebook study used."""

_ENCODER_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "embedding_dropout",
    "mlp_dropout",
    "attention_dropout",
    "dropout",
)


def build_classifier(
    resolved: ResolvedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    dropout: float | None = None,
    encoder_dropout: float | None = None,
    device: torch.device | str = "cpu",
) -> SentenceClassifier:
    """The model on `device`, in fp32, with a fresh head; the same weights for the same seed on every machine.

    `dropout` and `encoder_dropout` as in TrainConfig. The global random state is left as it was. Raises InputError
    where the attention implementation cannot be had on `device` or the weights do not fit their architecture.
    """
    device = torch.device(device)
    config = _transformers_config(resolved, tokenizer, dropout, encoder_dropout)
    attention, reason = choose_attention(
        resolved.info.attention, device, half_precision=resolved.half_precision, supported=supported_attention(config)
    )
    folder = local_folder(resolved)
    source = f"--model {resolved.name}"
    info = dataclasses.replace(
        resolved.info, attention=attention, attention_reason=reason, origin=str(folder) if folder else ""
    )
    with _seeded(seed), quiet_transformers():
        if resolved.stack is None:
            auto = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
            backbone = load_backbone(auto, config, folder, attention, source=source, fresh=("classifier.", "head."))
            model: SentenceClassifier = ModernBertClassifier(info, backbone)
        else:
            auto = MODEL_MAPPING[type(config)]
            encoder = folder / resolved.stack.transformer_path if folder else None
            backbone = load_backbone(auto, config, encoder, attention, source=source, fresh=("pooler.",))
            model = SbertClassifier(info, backbone, resolved.stack, SBERT_DROPOUT if dropout is None else dropout)
    with _seeded(seed):
        _initialize_head(model)
    return counted(model).to(device)


def counted(model: SentenceClassifier) -> SentenceClassifier:
    """The model, its info now saying how many parameters are trained."""
    number = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.info = dataclasses.replace(model.info, num_parameters=number)
    return model


def _transformers_config(
    resolved: ResolvedModel, tokenizer: PreTrainedTokenizerFast, dropout: float | None, encoder_dropout: float | None
) -> PreTrainedConfig:
    config = CONFIG_MAPPING[resolved.architecture["model_type"]].from_dict(dict(resolved.architecture))
    if resolved.info.random_weights:
        config.vocab_size = len(tokenizer)
        for name in ("pad", "cls", "sep", "bos", "eos"):
            setattr(config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id", None))
        if config.model_type == "modernbert":
            config.bos_token_id, config.eos_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    if encoder_dropout is not None:
        for name in _ENCODER_DROPOUTS:
            if isinstance(getattr(config, name, None), (int, float)):
                setattr(config, name, encoder_dropout)
    if resolved.stack is None:
        config.id2label = dict(LABELS)
        config.label2id = {label: number for number, label in LABELS.items()}
        if dropout is not None:
            config.classifier_dropout = dropout
    return config


def supported_attention(config: PreTrainedConfig) -> frozenset[str]:
    """Attention implementations of the architecture."""
    model: Any = MODEL_MAPPING[type(config)]
    return frozenset(
        {"eager"}
        | ({"sdpa"} if model._supports_sdpa else set())
        | ({FLASH} if getattr(model, "_supports_flash_attn", False) else set())
    )


def load_backbone(
    model_class: Any,
    config: PreTrainedConfig,
    folder: Path | None,
    attention: str,
    *,
    source: str,
    fresh: tuple[str, ...] = (),
) -> PreTrainedModel:
    """The transformers model: from `folder`, or from random numbers where that is None.

    Only tensors whose names begin with one of `fresh` may be missing in the folder: a file that belongs to another
    architecture would otherwise pass as a pretrained model with random weights.
    """
    if folder is None:
        backbone: PreTrainedModel = model_class._from_config(config, dtype=torch.float32, attn_implementation=attention)
        return backbone
    try:
        backbone, loading = model_class.from_pretrained(
            str(folder),
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            # A head for another number of classes is replaced like any other.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: its weights cannot be loaded ({line}); download or export it again") from None
    mismatched = {str(entry[0]) for entry in loading["mismatched_keys"]}
    missing = sorted(key for key in {*loading["missing_keys"], *mismatched} if not key.startswith(fresh))
    if missing:
        raise InputError(
            f"{source}: its weights are not those of a {config.model_type} model of this shape: "
            f"{len(missing)} tensors are missing or of another size, e.g. {missing[0]}"
        )
    return backbone


def _initialize_head(model: SentenceClassifier) -> None:
    """Fresh weights for the last layer, whatever the folder held.

    ModernBERT: truncated normal of standard deviation hidden_size ** -0.5, as transformers initializes its classifiers;
    SBERT: normal of standard deviation 0.02, as BERT's. Biases are 0.
    """
    weight, bias = model.head_weights["weight"], model.head_weights["bias"]
    nn.init.zeros_(bias)
    if isinstance(model, ModernBertClassifier):
        std = model.backbone.config.hidden_size**-0.5
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    else:
        nn.init.normal_(weight, std=0.02)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """CPU random numbers from `seed` inside, the caller's outside: models are built on the CPU, then moved."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and load reports of transformers inside."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
