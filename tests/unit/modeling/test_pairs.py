"""Pairs of texts through the models: one sequence, types where the family has them, the same answers in everybody's tools."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from sst2_ray.errors import InputError
from sst2_ray.modeling.dropout import row_keys
from sst2_ray.modeling.export.folder import export_model, load_export
from sst2_ray.modeling.layout.varlen import model_inputs
from sst2_ray.modeling.sources.families import takes_type_ids
from sst2_ray.predict.predictor import Predictor
from tests.support.families import family_folder, tiny_config
from tests.support.flash import compute_with_flash
from tests.support.models import SENTENCES, add_sbert_modules, build, card_facts, spread_head, toy_tokenizer

PAIRS = [*zip(SENTENCES, SENTENCES[1:] + SENTENCES[:1], strict=True)]
COLUMNS = ("premise", "hypothesis")
LABELS = torch.arange(len(PAIRS)) % 2

TYPED = ("bert", "albert", "electra", "funnel", "squeezebert")
UNTYPED = ("modernbert", "distilbert", "mpnet", "deberta-v2")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Toy models gain nothing from several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def typed_tokenizer():
    """The toy tokenizer, with a type of its own for the second text of a pair."""
    tokenizer = toy_tokenizer()
    cls, sep = (("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )
    return tokenizer


def pair_model(family, folder, *, pooled=False, **options):
    """The model of a family that reads pairs, its tokenizer and its config."""
    family_folder(family, folder)
    typed_tokenizer().save_pretrained(folder)
    if pooled:
        add_sbert_modules(folder)
    model, tokenizer, config = build(folder, **options)
    model.info = dataclasses.replace(model.info, text_columns=COLUMNS)
    return model, tokenizer, config


def encode(tokenizer):
    """input_ids, attention_mask and token_type_ids."""
    found = tokenizer(
        *map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt", return_token_type_ids=True
    )
    return found["input_ids"], found["attention_mask"], found["token_type_ids"]


def outcome(model, keys, *inputs):
    """Logits and gradients."""
    keys.set(torch.from_numpy(row_keys(seed=0, global_step=3, row_ids=np.arange(len(PAIRS)))))
    model.zero_grad()
    logits = model(*inputs)
    torch.nn.functional.cross_entropy(logits, LABELS).backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("family", TYPED)
def test_families_with_types_take_them(family):
    assert takes_type_ids(tiny_config(family, toy_tokenizer()).to_dict())


@pytest.mark.parametrize("family", UNTYPED)
def test_families_without_types_do_not(family):
    assert not takes_type_ids(tiny_config(family, toy_tokenizer()).to_dict())


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_packed_pairs_have_the_logits_and_gradients_of_padded_ones_and_types_count(family, pooled, tmp_path):
    model, tokenizer, _ = pair_model(family, tmp_path / "model", pooled=pooled, encoder_dropout=0.2, dropout=0.2)
    keys, inputs = model.train().key_dropout(), encode(tokenizer)
    assert model.packs(inputs[0].device)
    packed = outcome(model, keys, *inputs)
    untyped = outcome(model, keys, *inputs[:2])
    assert not torch.allclose(packed[0], untyped[0], atol=1e-4)
    model.supports_packing = False
    torch.testing.assert_close(packed, outcome(model, keys, *inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_pairs_in_varlen_layout_have_the_logits_and_gradients_of_padded_ones(family, tmp_path, monkeypatch):
    model, tokenizer, _ = pair_model(family, tmp_path / "model", encoder_dropout=0.0, dropout=0.2)
    keys, inputs = model.train().key_dropout(), encode(tokenizer)
    model.supports_packing = False
    padded = outcome(model, keys, *inputs)
    compute_with_flash(model, monkeypatch)
    laid_out = model_inputs(*inputs, varlen=True, move=lambda tensor: tensor)
    torch.testing.assert_close(outcome(model, keys, *laid_out), padded, rtol=1e-4, atol=1e-5)


def exported(family, folder, **options):
    model, tokenizer, config = pair_model(family, folder / "model", **options)
    spread_head(model, tokenizer)
    export_model(model, tokenizer, folder / "export", card_facts(model, config))
    return folder / "export"


@pytest.mark.parametrize("family", [*TYPED, *UNTYPED, "roberta", "xlm-roberta"])
def test_an_export_of_pairs_answers_alike_in_plain_transformers(family, tmp_path):
    folder = exported(family, tmp_path)
    assert load_export(folder)[2].info.text_columns == COLUMNS
    expected = Predictor(folder, precision="fp32").logits(PAIRS)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    assert ("token_type_ids" in inputs) == takes_type_ids(plain.config.to_dict())
    with torch.no_grad():
        found = plain(**inputs).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_the_code_on_the_card_reads_pairs(tmp_path):
    folder = exported("bert", tmp_path)
    card = (folder / "README.md").read_text()
    assert "reads a pair (premise, hypothesis) as one sequence with the tokenizer's separator" in card
    assert 'pairs = [{"text": "a man plays a guitar", "text_pair": "a person makes music"}]' in card
    classify = pipeline("text-classification", model=str(folder), dtype="float32")
    answers = classify([{"text": a, "text_pair": b} for a, b in PAIRS], truncation=True, max_length=128)
    best = Predictor(folder, precision="fp32").logits(PAIRS).argmax(1)
    assert [answer["label"] for answer in answers] == [("negative", "positive")[number] for number in best]


def test_an_sbert_of_pairs_answers_alike_in_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = exported("bert", tmp_path, pooled=True)
    card = (folder / "README.md").read_text()
    assert "pooled as a whole (a cross-encoder)" in card
    assert 'pairs = [("a man plays a guitar", "a person makes music")]' in card
    found = SentenceTransformer(str(folder), device="cpu").encode(PAIRS, convert_to_numpy=True)
    np.testing.assert_allclose(found, Predictor(folder, precision="fp32").logits(PAIRS), rtol=1e-3, atol=1e-3)


def test_a_predictor_of_pairs_takes_tuples_lists_and_dicts_and_nothing_else(tmp_path):
    predictor = Predictor(exported("bert", tmp_path), precision="fp32")
    expected = predictor.logits(PAIRS)
    for form in (
        [list(pair) for pair in PAIRS],
        [dict(zip(COLUMNS, pair, strict=True)) for pair in PAIRS],
        [{"text": a, "text_pair": b, "other": 1} for a, b in PAIRS],
        [(f" {a}\n", b) for a, b in PAIRS],
    ):
        np.testing.assert_allclose(predictor.logits(form), expected, atol=1e-5)
    batch = {
        name: np.array(column, dtype=object) for name, column in zip(COLUMNS, zip(*PAIRS, strict=True), strict=True)
    }
    assert predictor(batch)["predicted"].tolist() == expected.argmax(1).tolist()
    for item in ("one text", ("one",), ("a", "b", "c"), {"premise": "a"}, ("a", None)):
        with pytest.raises(
            InputError, match=r"texts: item 1 is no pair of texts, which this model reads \(premise, hyp"
        ):
            predictor.logits([PAIRS[0], item])
    with pytest.raises(InputError, match="column text: the model reads pairs"):
        Predictor(tmp_path / "export", column="text")
