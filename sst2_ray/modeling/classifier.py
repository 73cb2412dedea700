"""Sentence classifiers of two kinds: ModernBERT with its own head; SBERT with pooling, dropout and a linear head."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
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
from sst2_ray.modeling.dropout import KEYED_ATTENTION, DropoutKeys
from sst2_ray.modeling.folders import SbertStack
from sst2_ray.modeling.packing import PACKED_TYPES, Packing, pack, to_rows
from sst2_ray.modeling.pooling import pool
from sst2_ray.modeling.sources import ModelInfo, ResolvedModel, local_folder, resolve_model

__all__ = ["LABELS", "ModelInfo", "ResolvedModel", "SentenceClassifier", "build_classifier", "resolve_model"]

LABELS = {0: "negative", 1: "positive"}

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


class SentenceClassifier(nn.Module, ABC):
    """An encoder with a head of two classes, fp32 parameters. `backbone` is the transformers model inside."""

    def __init__(self, info: ModelInfo, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.info = info
        self.backbone: Any = backbone  # its submodules are known by architecture only
        self.dropout_keys: DropoutKeys | None = None
        self.can_pack = backbone.config.model_type in PACKED_TYPES and backbone.config._attn_implementation == "sdpa"
        if self.can_pack:
            self.backbone.set_attn_implementation(KEYED_ATTENTION)

    def packs(self, device: torch.device) -> bool:
        """Whether batches on `device` are computed without padding (see `packing`)."""
        return self.can_pack and device.type == "cpu"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [rows, 2] in fp32 from token ids and their mask, integers [rows, width], padded on the right."""
        if self.info.attention == FLASH:
            self._follow_precision(input_ids.device.type)
        if self.packs(input_ids.device):
            hidden, attention_mask = self._packed_hidden(input_ids, pack(attention_mask))
        else:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.classify(hidden, attention_mask).float()

    def _packed_hidden(self, input_ids: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Token vectors [rows, width, size] and their mask, computed without padding."""
        keys = self.dropout_keys
        with keys.packed(packing) if keys is not None else nullcontext():
            hidden = self.encoder(
                input_ids=input_ids.reshape(-1)[packing.source][None],
                position_ids=packing.position[None],
                # Two kinds of layers ask ModernBERT's mask by name; the rectangles bring their own.
                attention_mask={"full_attention": None, "sliding_attention": None} if self._slides else None,
                packing=packing,
            ).last_hidden_state
        return to_rows(hidden[0], packing)

    @property
    def _slides(self) -> bool:
        return bool(self.backbone.config.model_type == "modernbert")

    @property
    @abstractmethod
    def encoder(self) -> Any:
        """The transformers model that gives token vectors."""

    @abstractmethod
    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [rows, 2] in the precision of the computation, from [rows, width, size] and [rows, width]."""

    @property
    @abstractmethod
    def head_weights(self) -> dict[str, Tensor]:
        """`weight` [2, features] and `bias` [2] of the last layer."""

    def _follow_precision(self, device_type: str) -> None:
        """Flash attention computes in 16 bits only: outside autocast (evaluation, in fp32) sdpa takes its place."""
        wanted = FLASH if torch.is_autocast_enabled(device_type) else "sdpa"
        if self.backbone.config._attn_implementation != wanted:
            self.backbone.set_attn_implementation(wanted)


class ModernBertClassifier(SentenceClassifier):
    """transformers' ModernBertForSequenceClassification: its pooling, prediction head and classifier."""

    @property
    def encoder(self) -> Any:
        return self.backbone.model

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        features = pool(hidden, attention_mask, (self.backbone.config.classifier_pooling,))
        logits: Tensor = self.backbone.classifier(self.backbone.drop(self.backbone.head(features)))
        return logits

    @property
    def head_weights(self) -> dict[str, Tensor]:
        return {"weight": self.backbone.classifier.weight, "bias": self.backbone.classifier.bias}


class SbertClassifier(SentenceClassifier):
    """A sentence encoder, its own pooling, dropout and a linear head.

    The head stands right after the pooling. What a sentence-transformers model does behind it (Normalize, Dense) shapes
    embeddings for cosine similarity: unit-length features of 384 numbers would leave a linear head almost no scale to
    work with. These modules are not trained, and are exported as they came.

    The encoder's own pooler (BERT's dense layer over [CLS]) feeds nothing here: it is taken out of the module, so that
    it is neither computed nor counted nor decayed, and kept in `pooler_state` for the export.
    """

    def __init__(self, info: ModelInfo, backbone: PreTrainedModel, stack: SbertStack, dropout: float) -> None:
        super().__init__(info, backbone)
        self.stack = stack
        self.pooler_state: dict[str, Tensor] = {}
        pooler = getattr(backbone, "pooler", None)
        if isinstance(pooler, nn.Module):
            self.pooler_state = {name: tensor.clone() for name, tensor in pooler.state_dict(prefix="pooler.").items()}
            self.backbone.pooler = None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.config.hidden_size * len(stack.pooling_modes), len(LABELS))

    @property
    def encoder(self) -> Any:
        return self.backbone

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        features = pool(hidden, attention_mask, self.stack.pooling_modes)  # [rows, features]
        logits: Tensor = self.head(self.dropout(features))
        return logits

    @property
    def head_weights(self) -> dict[str, Tensor]:
        return {"weight": self.head.weight, "bias": self.head.bias}


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
