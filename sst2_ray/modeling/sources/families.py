"""Facts about families of encoders that their configs do not state, or state under different names."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sst2_ray.errors import InputError
from sst2_ray.modeling.sources.folders import JsonObject

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_OFFSET_POSITIONS = frozenset(
    {
        "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "roberta",
        "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip
"""Families that number positions from pad_token_id + 1 on, so that their table serves fewer tokens than it has rows."""

_MPNET_OFFSET = 2
"""First position of MPNet, whatever its pad_token_id."""

UNPADDED_FAMILIES = frozenset({"bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"})
"""Families that take positions from their caller and attention from transformers' interface, so that batches can be
computed without padding. DeBERTa's attention does not allow it."""

PACKED_FAMILIES = UNPADDED_FAMILIES | {"mpnet"}
"""Families that a CPU computes without padding: MPNet's bias by distance is one that FlashAttention does not take."""

_TYPED = frozenset({"funnel"})
"""Families that tell the texts of a pair apart although their configs state no number of types."""

_SIZE_NAMES = {
    "hidden": ("hidden_size", "d_model", "dim", "emb_dim"),
    "inner": ("intermediate_size", "hidden_dim", "d_inner", "ffn_dim"),
    "layers": ("num_hidden_layers", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
}


@dataclass(frozen=True, kw_only=True)
class EncoderSizes:
    """Sizes of an encoder under one name each."""

    hidden: int
    inner: int
    """Width of the feed-forward layers."""
    layers: int
    heads: int
    positions: int
    """Rows of the table of positions; 0: there is none."""


def encoder_sizes(config: PreTrainedConfig) -> EncoderSizes:
    """Read the sizes of a transformers config, whatever its family calls them.

    A family without a feed-forward width of its own has four times the hidden size; one without heads has one.
    """
    found = {
        size: next((int(value) for name in names if isinstance(value := getattr(config, name, None), int)), None)
        for size, names in _SIZE_NAMES.items()
    }
    hidden = found["hidden"]
    if hidden is None:
        raise InputError(f"--model: the config of a {config.model_type} model states no hidden size")
    return EncoderSizes(
        hidden=hidden,
        inner=found["inner"] or 4 * hidden,
        layers=found["layers"] or len(getattr(config, "block_sizes", ())) or 1,
        heads=found["heads"] or 1,
        positions=int(getattr(config, "max_position_embeddings", 0) or 0),
    )


def first_position(architecture: JsonObject) -> int:
    """Return the position of a text's first token in the encoder's table."""
    model_type = architecture.get("model_type")
    if model_type == "mpnet":
        return _MPNET_OFFSET
    if model_type not in _OFFSET_POSITIONS:
        return 0
    pad = architecture.get("pad_token_id")
    return (1 if pad is None else int(pad)) + 1


def max_positions(architecture: JsonObject) -> int | None:
    """Return the largest number of tokens of a text, special tokens included; None: the architecture sets no bound."""
    positions = architecture.get("max_position_embeddings") or architecture.get("n_positions")
    if not isinstance(positions, int) or positions <= 0:
        return None
    return positions - first_position(architecture)


def has_own_head(model_type: str) -> bool:
    """Tell whether transformers has a sequence classifier of this family of encoders. Imports torch."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    return CONFIG_MAPPING[model_type] in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


def takes_type_ids(architecture: JsonObject) -> bool:
    """Tell whether an encoder is told which text of a pair a token belongs to. Imports torch."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    config = CONFIG_MAPPING[architecture["model_type"]].from_dict(dict(architecture))
    types = 2 if config.model_type in _TYPED else getattr(config, "type_vocab_size", 0) or 0
    if types < 2:
        return False
    found = MODEL_MAPPING[type(config)]
    encoder = found[0] if isinstance(found, tuple) else found
    return "token_type_ids" in inspect.signature(encoder.forward).parameters


def is_decoder(architecture: JsonObject) -> bool:
    """Tell whether a model generates text: by its config, or because its family has no masked language model. Imports torch."""
    if architecture.get("is_encoder_decoder") or architecture.get("is_decoder"):
        return True
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    family = CONFIG_MAPPING[architecture["model_type"]]
    if family().is_encoder_decoder:
        return True
    return family in MODEL_FOR_CAUSAL_LM_MAPPING and family not in MODEL_FOR_MASKED_LM_MAPPING
