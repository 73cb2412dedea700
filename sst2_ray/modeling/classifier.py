"""Sentence classifiers of two kinds: ModernBERT with its own head; SBERT with pooling, dropout and a linear head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
)

from sst2_ray.modeling.attention import FLASH
from sst2_ray.modeling.dropout import KEYED_ATTENTION, DropoutKeys
from sst2_ray.modeling.folders import SbertStack
from sst2_ray.modeling.packing import PACKED_TYPES, Packing, pack
from sst2_ray.modeling.pooling import pool, pool_end_to_end, pool_packed
from sst2_ray.modeling.sources import ModelInfo
from sst2_ray.modeling.varlen import Varlen

LABELS = {0: "negative", 1: "positive"}


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
        self.can_lay_end_to_end = backbone.config.model_type in PACKED_TYPES and info.attention == FLASH

    def packs(self, device: torch.device) -> bool:
        """Whether batches on `device` are computed without padding by `forward` itself (see `packing`)."""
        return self.can_pack and device.type == "cpu"

    def forward(self, input_ids: Tensor, attention_mask: Tensor | Varlen) -> Tensor:
        """Logits [rows, 2] in fp32 from token ids and their mask, integers [rows, width], padded on the right; where the
        model `can_lay_end_to_end` also from ids [T] and their layout, under autocast."""
        if self.info.attention == FLASH:
            self._follow_precision(input_ids.device.type)
        if isinstance(attention_mask, Varlen):
            assert self.backbone.config._attn_implementation == FLASH, "any other attention would mix the sentences"
            hidden = self._unpadded(input_ids, attention_mask)
            features = pool_end_to_end(hidden, attention_mask, self.pooling_modes)
        elif self.packs(input_ids.device):
            packing = pack(attention_mask)
            hidden = self._unpadded(input_ids.reshape(-1)[packing.source], packing)
            features = pool_packed(hidden, packing, self.pooling_modes)
        else:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            features = pool(hidden, attention_mask, self.pooling_modes)
        return self.classify(features).float()

    def _unpadded(self, input_ids: Tensor, layout: Packing | Varlen) -> Tensor:
        """Token vectors [T, size] of ids [T], computed without padding."""
        keys = self.dropout_keys
        with keys.packed(layout) if keys is not None else nullcontext():
            hidden = self.encoder(
                input_ids=input_ids[None],
                position_ids=layout.position[None],
                # Two kinds of layers ask ModernBERT's mask by name; a layout brings its own.
                attention_mask={"full_attention": None, "sliding_attention": None} if self._slides else None,
                **layout.for_attention,
            ).last_hidden_state
        first: Tensor = hidden[0]
        return first

    @property
    def _slides(self) -> bool:
        return bool(self.backbone.config.model_type == "modernbert")

    @property
    @abstractmethod
    def encoder(self) -> Any:
        """The transformers model that gives token vectors."""

    @property
    @abstractmethod
    def pooling_modes(self) -> tuple[str, ...]:
        """How token vectors become a sentence's features (see `pooling`)."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits [rows, 2] in the precision of the computation, from a sentence's features [rows, features]."""

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

    @property
    def pooling_modes(self) -> tuple[str, ...]:
        return (self.backbone.config.classifier_pooling,)

    def classify(self, features: Tensor) -> Tensor:
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

    @property
    def pooling_modes(self) -> tuple[str, ...]:
        return self.stack.pooling_modes

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(features))
        return logits

    @property
    def head_weights(self) -> dict[str, Tensor]:
        return {"weight": self.head.weight, "bias": self.head.bias}
