"""Tiny random models of many encoder families, each as its own transformers config writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedTokenizerFast,
    SplinterConfig,
    SplinterModel,
)

from tests.support.models import toy_tokenizer

_COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4}

FAMILIES: dict[str, dict[str, Any]] = {
    "albert": {**_COMMON, "embedding_size": 16},
    "bert": _COMMON,
    "big_bird": {**_COMMON, "attention_type": "original_full"},
    "camembert": _COMMON,
    "convbert": {**_COMMON, "embedding_size": 32, "num_groups": 1},
    "data2vec-text": _COMMON,
    "deberta": {**_COMMON, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {
        **_COMMON,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "electra": {**_COMMON, "embedding_size": 16},
    "ernie": _COMMON,
    "esm": {**_COMMON, "mask_token_id": 4, "position_embedding_type": "absolute"},
    "eurobert": {**_COMMON, "num_key_value_heads": 4, "head_dim": 8, "mask_token_id": 4},
    "flaubert": _XLM,
    "fnet": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64},
    "funnel": {"block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    "gte": _COMMON,
    "ibert": _COMMON,
    "longformer": {**_COMMON, "attention_window": [16, 16]},
    "megatron-bert": _COMMON,
    "mobilebert": {**_COMMON, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {**_COMMON, "global_attn_every_n_layers": 2},
    "mpnet": _COMMON,
    "nystromformer": {**_COMMON, "segment_means_seq_len": 64, "num_landmarks": 64},
    "rembert": {**_COMMON, "input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": _COMMON,
    "roberta-prelayernorm": _COMMON,
    "roformer": {**_COMMON, "embedding_size": 32},
    "squeezebert": {**_COMMON, "embedding_size": 32},
    "xlm": _XLM,
    "xlm-roberta": _COMMON,
}
"""Settings of a tiny model by `model_type`."""


def tiny_config(model_type: str, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Any:
    """A config of the family for the tokenizer's vocabulary, with 130 positions unless `changes` say otherwise."""
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
    settings = {"vocab_size": len(tokenizer), "max_position_embeddings": 130, **tokens, **FAMILIES[model_type]}
    settings |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    return CONFIG_MAPPING[model_type](**{**settings, **changes})


def family_folder(model_type: str, folder: Path, *, seed: int = 7, **changes: Any) -> Path:
    """The family's classifier and the toy tokenizer, as `save_pretrained` writes them."""
    tokenizer = toy_tokenizer()
    torch.manual_seed(seed)
    config = tiny_config(model_type, tokenizer, **changes)
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)](config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def splinter_folder(folder: Path) -> Path:
    """An encoder whose family has no sequence classifier in transformers."""
    tokenizer = toy_tokenizer()
    torch.manual_seed(7)
    SplinterModel(SplinterConfig(vocab_size=len(tokenizer), pad_token_id=0, **_COMMON)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
