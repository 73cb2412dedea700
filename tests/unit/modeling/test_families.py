"""Encoders of many families keep the head that transformers gives them, train, and load elsewhere with the same answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.modeling.build import supported_attention
from sst2_ray.modeling.classifier import EncoderClassifier
from sst2_ray.modeling.dropout import row_keys
from sst2_ray.modeling.export.folder import export_model, load_export
from sst2_ray.modeling.layout.varlen import to_varlen
from sst2_ray.modeling.optimizer import build_optimizer
from sst2_ray.modeling.sources import max_positions, resolve_model
from sst2_ray.modeling.sources.families import PACKED_FAMILIES, UNPADDED_FAMILIES, encoder_sizes, is_decoder
from tests.support import models
from tests.support.families import FAMILIES, family_folder, tiny_config
from tests.support.flash import compute_with_flash
from tests.support.models import SENTENCES, build, card_facts, encode, toy_tokenizer

OWN_HEAD = sorted(set(FAMILIES) - {"modernbert"})
UNPADDED, PACKED = sorted(UNPADDED_FAMILIES), sorted(PACKED_FAMILIES)
LABELS = torch.arange(len(SENTENCES)) % 2


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Toy models gain nothing from several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(folder, **options):
    """The classifier after three steps that moved every part of it."""
    model, tokenizer, config = build(folder, learning_rate=1e-3, **options)
    keys, optimizer = model.train().key_dropout(), build_optimizer(model, config)
    ids, mask = encode(tokenizer)
    for step in range(3):
        keys.set(torch.from_numpy(row_keys(seed=0, global_step=step, row_ids=np.arange(len(ids)))))
        torch.nn.functional.cross_entropy(model(ids, mask), LABELS).backward()
        optimizer.step()
        optimizer.zero_grad()
    keys.set(None)
    return model.eval(), tokenizer, config


@pytest.mark.parametrize("family", OWN_HEAD)
def test_a_family_trains_with_its_own_head_and_its_export_answers_alike_in_plain_transformers(family, tmp_path):
    folder = family_folder(family, tmp_path / "model")
    model, tokenizer, config = trained(folder)
    assert (model.info.kind, type(model)) == ("encoder", EncoderClassifier)
    ids, mask = encode(tokenizer)
    with torch.no_grad():
        expected = model(ids, mask)
    export_model(model, tokenizer, tmp_path / "export", card_facts(model, config))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    assert plain.config.id2label == {0: "negative", 1: "positive"}
    again = load_export(tmp_path / "export")[0]
    with torch.no_grad():
        for found in (plain(input_ids=ids, attention_mask=mask).logits, again(ids, mask)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("family", OWN_HEAD)
def test_the_sizes_of_a_family_are_those_of_its_layers(family):
    sizes = encoder_sizes(tiny_config(family, toy_tokenizer()))
    assert (sizes.hidden, sizes.layers) == (32, 2)
    assert sizes.inner == (128 if family in ("xlm", "flaubert") else 64)
    assert sizes.heads == (1 if family == "fnet" else 4)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"funnel"}))  # it has no positions of its own
def test_the_last_position_can_be_used_and_the_next_cannot(family):
    config = tiny_config(family, toy_tokenizer(), max_position_embeddings=24, pad_token_id=0)
    length = max_positions(config.to_dict())
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        model(input_ids=torch.full((1, length), 9), attention_mask=torch.ones(1, length, dtype=torch.long))
        if family not in ("deberta-v2", "eurobert", "gte", "modernbert"):  # their positions are relative or computed
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, length + 1), 9))


@pytest.mark.parametrize("family", ["ibert", "data2vec-text", "esm", "roberta-prelayernorm", "longformer"])
def test_more_tokens_than_positions_are_refused_before_the_start(family, tmp_path):
    folder = family_folder(family, tmp_path / "model", pad_token_id=1)
    with pytest.raises(InputError, match=r"--max-length 130: .* has 128 positions; use 128 or less"):
        resolve_model(TrainConfig(model=str(folder), max_length=130))


# ---- without padding


def outcome(model, keys, *inputs):
    """Logits and gradients."""
    keys.set(torch.from_numpy(row_keys(seed=0, global_step=3, row_ids=np.arange(len(SENTENCES)))))
    model.zero_grad()
    logits = model(*inputs)
    torch.nn.functional.cross_entropy(logits, LABELS).backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("family", PACKED)
def test_a_packed_batch_has_the_logits_and_gradients_of_a_padded_one(family, pooled, tmp_path):
    folder = family_folder(family, tmp_path / "model")
    if pooled:
        models.add_sbert_modules(folder)
    model, tokenizer, _ = build(folder, encoder_dropout=0.2, dropout=0.2)
    assert (model.info.kind == "sbert") == pooled
    keys, inputs = model.train().key_dropout(), encode(tokenizer)
    assert model.packs(inputs[0].device)
    packed = outcome(model, keys, *inputs)
    model.supports_packing = False
    torch.testing.assert_close(packed, outcome(model, keys, *inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", UNPADDED)
def test_a_batch_in_varlen_layout_has_the_logits_and_gradients_of_a_padded_one(family, tmp_path, monkeypatch):
    model, tokenizer, _ = build(family_folder(family, tmp_path / "model"), encoder_dropout=0.0, dropout=0.2)
    keys, inputs = model.train().key_dropout(), encode(tokenizer)
    model.supports_packing = False
    padded = outcome(model, keys, *inputs)
    with monkeypatch.context() as patch:
        compute_with_flash(model, patch)
        torch.testing.assert_close(outcome(model, keys, *to_varlen(*inputs)), padded, rtol=1e-4, atol=1e-5)
    model.lay_end_to_end()
    torch.testing.assert_close(outcome(model, keys, *to_varlen(*inputs)), padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_long_and_short_texts_of_mpnet_have_the_logits_and_gradients_of_a_padded_batch(dropout, tmp_path):
    folder = family_folder("mpnet", tmp_path / "model", max_position_embeddings=300)
    model, tokenizer, _ = build(folder, encoder_dropout=dropout, dropout=dropout, max_length=298)
    texts = [f"{text} " * times for text, times in zip(SENTENCES, (1, 40, 12, 3), strict=False)]
    texts += SENTENCES[len(texts) :]
    found = tokenizer(texts, padding=True, truncation=True, max_length=298, return_tensors="pt")
    inputs = (found["input_ids"], found["attention_mask"])
    assert inputs[0].size(1) > 130  # beyond the width of plain matrix products
    keys = model.train().key_dropout()
    packed = outcome(model, keys, *inputs)
    model.supports_packing = False
    torch.testing.assert_close(packed, outcome(model, keys, *inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2", "albert"])
def test_other_families_are_computed_with_padding(family, tmp_path):
    model = build(family_folder(family, tmp_path / "model"))[0]
    assert model.supports_packing == (family == "mpnet")
    assert not model.supports_varlen
    assert "eager" in supported_attention(model.backbone.config)


# ---- decoders


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3", "t5", "bart", "modernbert-decoder", "xlnet"])
def test_decoders_are_refused(model_type, tmp_path):
    assert is_decoder({"model_type": model_type})
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has a decoder, which generates text; only encoders are fine-tuned here"):
        resolve_model(TrainConfig(model=str(tmp_path)))
