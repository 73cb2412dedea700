"""Sentence classifiers: encoders with the head of their family in transformers, and SBERT with pooling and a linear head."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sst2_ray.modeling.attention import modernbert, mpnet
from sst2_ray.modeling.attention.choice import FLASH, VARLEN
from sst2_ray.modeling.attention.keyed import KEYED_ATTENTION, install_keyed_dropout
from sst2_ray.modeling.attention.varlen import VARLEN_INTERFACE
from sst2_ray.modeling.dropout import DropoutKeys
from sst2_ray.modeling.layout.packing import Packing, pack
from sst2_ray.modeling.layout.varlen import Varlen
from sst2_ray.modeling.pooling import pool, pool_packed, pool_varlen
from sst2_ray.modeling.sources import ModelInfo
from sst2_ray.modeling.sources.families import PACKED_FAMILIES, UNPADDED_FAMILIES, first_position, takes_type_ids
from sst2_ray.modeling.sources.folders import SbertStack


class SentenceClassifier(nn.Module, ABC):
    """Encoder with a head for the classes of `info.labels` and fp32 parameters; `backbone` is the transformers model."""

    def __init__(self, info: ModelInfo, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.info = info
        self.backbone = backbone
        self.dropout_keys: DropoutKeys | None = None
        self._unpads = backbone.config.model_type in UNPADDED_FAMILIES
        self.supports_packing = self._unpads and backbone.config._attn_implementation == "sdpa"
        """True: `forward` computes batches on a CPU without padding (see layout.packing)."""
        if self.supports_packing:
            self.backbone.set_attn_implementation(KEYED_ATTENTION)
        elif backbone.config.model_type in PACKED_FAMILIES - UNPADDED_FAMILIES:
            mpnet.install(backbone)
            self.supports_packing = True
        self.supports_varlen = self._unpads and info.attention == FLASH
        """True: `forward` also takes a Varlen layout, on a GPU under autocast."""
        if info.attention == VARLEN:
            self.lay_end_to_end()

    def lay_end_to_end(self) -> None:
        """Compute batches in varlen layout by torch's own FlashAttention: its contract in plain torch on a CPU."""
        self.info = dataclasses.replace(self.info, attention=VARLEN)
        self.supports_packing, self.supports_varlen = False, True
        modernbert.install(self.backbone)

    @property
    def takes_type_ids(self) -> bool:
        """Tell whether it reads pairs and is told which text each token belongs to."""
        return bool(self.info.text_columns) and takes_type_ids(self.backbone.config.to_dict())

    def packs(self, device: torch.device) -> bool:
        """Tell whether `forward` computes batches on `device` without padding."""
        return self.supports_packing and device.type == "cpu"

    def key_dropout(self) -> DropoutKeys:
        """Make all dropout of the model depend on keys alone; returns where to set them before each batch."""
        self.dropout_keys = install_keyed_dropout(self, self.backbone)
        return self.dropout_keys

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | Varlen, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Compute logits [rows, classes] in fp32.

        Args:
            input_ids: int64 [rows, width], padded on the right; [T] with a Varlen layout.
            attention_mask: int64 [rows, width], or the Varlen layout of the ids where the model `supports_varlen`.
            token_type_ids: The text of a pair that each id belongs to, in the ids' shape; None: single texts, or a model
                that does not take them.
        """
        self._follow(attention_mask, input_ids.device.type)
        if isinstance(attention_mask, Varlen):
            assert self.supports_varlen, "any other attention would mix the sentences"
            hidden = self._unpadded(input_ids, token_type_ids, attention_mask)
            features = pool_varlen(hidden, attention_mask, self.pooling_modes)
        elif self.packs(input_ids.device):
            packing = pack(attention_mask)
            types = None if token_type_ids is None else token_type_ids.reshape(-1)[packing.source]
            hidden = self._unpadded(input_ids.reshape(-1)[packing.source], types, packing)
            features = pool_packed(hidden, packing, self.pooling_modes)
        else:
            return self.padded_logits(input_ids, attention_mask, _types(token_type_ids)).float()
        return self.classify(features).float()

    def padded_logits(self, input_ids: Tensor, attention_mask: Tensor, types: dict[str, Tensor]) -> Tensor:
        """Compute logits of a padded batch, in the precision of the computation."""
        masks = self.masks(attention_mask)
        hidden = self.encoder(input_ids=input_ids, attention_mask=masks, **types).last_hidden_state
        return self.classify(pool(hidden, attention_mask, self.pooling_modes))

    def _unpadded(self, input_ids: Tensor, token_type_ids: Tensor | None, layout: Packing | Varlen) -> Tensor:
        """Compute token vectors [T, size] of ids [T] and type ids [T] without padding."""
        keys = self.dropout_keys
        with keys.packed(layout) if keys is not None else nullcontext():
            hidden = self.encoder(
                input_ids=input_ids[None],
                position_ids=layout.position[None] + self._first_position,
                # ModernBERT's two kinds of layers look their mask up by name; the layout brings its own.
                attention_mask={"full_attention": None, "sliding_attention": None} if self._slides else None,
                **_types(None if token_type_ids is None else token_type_ids[None]),
                **layout.for_attention,
            ).last_hidden_state
        first: Tensor = hidden[0]
        return first

    def masks(self, attention_mask: Tensor) -> Tensor | dict[str, Tensor]:
        """Make the masks of attention from a batch's, int64 [rows, width].

        transformers makes them as well, but looks first whether anything is padding at all, which waits for a GPU: in
        training that would be in every micro-batch.
        """
        config = self.backbone.config
        if not (self.training and self._unpads and config._attn_implementation in ("sdpa", KEYED_ATTENTION)):
            return attention_mask
        full = attention_mask.bool()[:, None, None]  # [rows, 1, 1, width]
        if not self._slides:
            return full
        place = torch.arange(full.size(-1), device=full.device)
        near = (place[:, None] - place).abs() <= config.sliding_window  # [width, width]
        return {"full_attention": full, "sliding_attention": full & near}

    @property
    def _first_position(self) -> int:
        """Return the position of a sentence's first token."""
        config = self.backbone.config
        return first_position({"model_type": config.model_type, "pad_token_id": config.pad_token_id})

    @property
    def _slides(self) -> bool:
        """Tell whether some layers attend over a sliding window."""
        return bool(self.backbone.config.model_type == "modernbert")

    @property
    @abstractmethod
    def encoder(self) -> PreTrainedModel:
        """The transformers model that gives token vectors."""

    @property
    @abstractmethod
    def pooling_modes(self) -> tuple[str, ...]:
        """Return how token vectors become a sentence's features (see `pooling`)."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Compute logits [rows, classes], in the precision of the computation, from features [rows, features]."""

    @property
    @abstractmethod
    def head_weights(self) -> dict[str, Tensor]:
        """Return `weight` [classes, features] and `bias` [classes] of the last layer."""

    @torch.no_grad()
    def rescale(self, temperature: float, shift: float | None) -> None:
        """Divide the logits by a temperature, then add `shift` to that of class 1 of two: in the last layer's weights."""
        weight, bias = self.head_weights["weight"], self.head_weights["bias"]
        weight.div_(temperature)
        bias.div_(temperature)
        if shift is not None:
            bias[1] += shift

    def _follow(self, layout: Tensor | Varlen, device_type: str) -> None:
        """Switch to the attention that a batch's layout and precision need: FlashAttention computes in 16 bits only."""
        if self.info.attention == VARLEN:
            wanted = VARLEN_INTERFACE if isinstance(layout, Varlen) else KEYED_ATTENTION
        elif self.info.attention == FLASH:
            wanted = FLASH if torch.is_autocast_enabled(device_type) else "sdpa"
        else:
            return
        if self.backbone.config._attn_implementation != wanted:
            self.backbone.set_attn_implementation(wanted)


def _types(token_type_ids: Tensor | None) -> dict[str, Tensor]:
    """Return the keyword argument of an encoder that takes type ids."""
    return {} if token_type_ids is None else {"token_type_ids": token_type_ids}


class ModernBertClassifier(SentenceClassifier):
    """ModernBERT with the pooling, prediction head and classifier of transformers."""

    @property
    def encoder(self) -> PreTrainedModel:
        """Return the module that turns ids into token vectors."""
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


class EncoderClassifier(SentenceClassifier):
    """Encoder of any other family with the sequence classification head that transformers gives it."""

    @property
    def encoder(self) -> PreTrainedModel:
        return self.backbone.base_model

    @property
    def pooling_modes(self) -> tuple[str, ...]:
        return ("cls",)

    def padded_logits(self, input_ids: Tensor, attention_mask: Tensor, types: dict[str, Tensor]) -> Tensor:
        masks = self.masks(attention_mask)
        logits: Tensor = self.backbone(input_ids=input_ids, attention_mask=masks, **types).logits
        return logits

    def classify(self, features: Tensor) -> Tensor:
        """Apply the head of a PACKED_FAMILIES member to the vectors of the first tokens [rows, size]."""
        model = self.backbone
        first = features[:, None]  # [rows, 1, size]: heads take the first token themselves
        if model.config.model_type == "bert":
            logits: Tensor = model.classifier(model.dropout(model.bert.pooler(first)))
        elif model.config.model_type == "distilbert":
            logits = model.classifier(model.dropout(torch.relu(model.pre_classifier(features))))
        else:
            logits = model.classifier(first)
        return logits

    @property
    def head_weights(self) -> dict[str, Tensor]:
        last = [
            m for m in self.backbone.modules() if isinstance(m, nn.Linear) and m.out_features == len(self.info.labels)
        ]
        return {"weight": last[-1].weight, "bias": last[-1].bias}


class SbertClassifier(SentenceClassifier):
    """Sentence encoder with its own pooling, dropout and a linear head.

    The head stands right after the pooling. The modules of a sentence-transformers model after it (Normalize, Dense)
    shape embeddings for cosine similarity: unit-length features would leave a linear head almost no scale to work with.
    These modules are not trained and are exported unchanged.

    The encoder's own pooler (BERT's dense layer over [CLS]) feeds nothing here: it is removed from the module, so that
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
        self.head = nn.Linear(backbone.config.hidden_size * len(stack.pooling_modes), len(info.labels))

    @property
    def encoder(self) -> PreTrainedModel:
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
