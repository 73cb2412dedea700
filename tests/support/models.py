"""Models of the tests' own: architectures at toy size, in the layouts that people have on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertForMaskedLM

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.modeling.export.card import CardFacts
from sst2_ray.modeling.export.folder import export_model
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer, train_bpe

SENTENCES = [
    "a gripping , funny film",
    "it never comes to life",
    "no movement , no yuks , not much of anything .",
    "an utterly compelling ` who wrote it ' in which the reputation of the most famous author who ever lived comes "
    "into question .",
    "uneasy",
    "the emotions are raw and will strike a nerve with anyone who 's ever had family trauma .",
    "a warm , funny , engaging film .",
]

_BERT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_MODERNBERT = {**_BERT, "global_attn_every_n_layers": 2, "max_position_embeddings": 256}


def toy_tokenizer():
    """Train a BPE of about 300 entries."""
    return train_bpe(SENTENCES, max_length=128, vocabulary=300)


def modernbert_folder(folder: Path, **config) -> Path:
    """Write what the hub has of ModernBERT: the masked language model's weights and the tokenizer."""
    tokenizer = toy_tokenizer()
    torch.manual_seed(7)
    model = ModernBertForMaskedLM(
        ModernBertConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            **{**_MODERNBERT, **config},
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sbert_folder(
    folder: Path,
    *,
    modes=("mean",),
    following=("Normalize",),
    lower_case=False,
    transformer_path="",
    dtype=torch.float32,
) -> Path:
    """Write a sentence-transformers folder, its pooling as before version 6."""
    tokenizer = toy_tokenizer()
    torch.manual_seed(7)
    encoder = folder / transformer_path
    model = BertModel(BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **_BERT))
    model.to(dtype).save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    settings = {"max_seq_length": 100, "do_lower_case": lower_case}
    (encoder / "sentence_bert_config.json").write_text(json.dumps(settings))
    names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    flags = {f"pooling_mode_{names.get(mode, mode)}": True for mode in modes}
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **flags}))
    paths = [transformer_path, "1_Pooling", *(f"{i}_{kind}" for i, kind in enumerate(following, start=2))]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(("Transformer", "Pooling", *following), paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def add_sbert_modules(folder: Path, mode: str = "mean") -> None:
    """Make a folder of transformers a sentence-transformers model, as version 6 writes it."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules])
    )


def build(
    model, *, seed=0, dropout=None, encoder_dropout=None, **config
) -> tuple[SentenceClassifier, object, TrainConfig]:
    """Build the classifier of a folder or a name, with its tokenizer and config."""
    train_config = TrainConfig(model=str(model), **config)
    resolved = resolve_model(train_config)
    tokenizer = load_tokenizer(resolved, lambda: SENTENCES)
    classifier = build_classifier(resolved, tokenizer, seed=seed, dropout=dropout, encoder_dropout=encoder_dropout)
    return classifier.eval(), tokenizer, train_config


def card_facts(classifier: SentenceClassifier, config: TrainConfig, **changes) -> CardFacts:
    facts = {
        "config": config,
        "info": classifier.info,
        "source": "reviews of the tests' own",
        "eval_split": "dev of the tests' own",
        "corpora": (),
        "num_train_rows": 1000,
        "num_dev_rows": 872,
        "accuracy": 775 / 872,
        "f1": 0.891,
        "loss": 0.31,
        "epoch": 1.5,
        "global_step": 24,
    }
    return CardFacts(**{**facts, **changes})


def spread_head(classifier: SentenceClassifier, tokenizer, texts=SENTENCES) -> None:
    """Set a head under which about half of `texts` is positive, most of them clearly: labels do not hang on rounding."""
    weight, bias = classifier.head_weights["weight"], classifier.head_weights["bias"]
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
        bias.zero_()
        logits = classifier(*encode(tokenizer, texts))
        scale = 3.0 / (logits[:, 1] - logits[:, 0]).std()
        weight.mul_(scale)
        bias[1] = -(scale * (logits[:, 1] - logits[:, 0])).median() + 1e-3


def export_of(model, out: Path, *, corpora=(), texts=SENTENCES, **config) -> Path:
    """Export a model that was never trained, its head spread."""
    classifier, tokenizer, train_config = build(model, **config)
    spread_head(classifier, tokenizer, texts)
    export_model(classifier, tokenizer, out, card_facts(classifier, train_config, corpora=corpora))
    return out


def pair_export(folder: Path, columns: tuple[str, str]) -> Path:
    """Export a toy ModernBERT that reads pairs."""
    model, tokenizer, config = build(modernbert_folder(folder / "model"), max_length=64)
    model.info = dataclasses.replace(model.info, text_columns=columns)
    spread_head(model, tokenizer)
    export_model(model, tokenizer, folder / "export", card_facts(model, config))
    return folder / "export"


def encode(tokenizer, texts=SENTENCES, max_length=128):
    """Return input_ids and attention_mask, padded to the longest."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


def run_without_package(code: str, folder: Path) -> str:
    """Return what a fresh Python prints, started in `folder`, that cannot import this package; chatter on stderr is dropped."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    blocked = "import sys; sys.modules['sst2_ray'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code],
        cwd=folder,
        env={**env, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
