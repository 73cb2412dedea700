"""Both kinds of classifiers: deterministic, fp32, theirs alone in weights that belong to them."""

from __future__ import annotations

import dataclasses
import pickle
import shutil

import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.classifier import ModernBertClassifier, SbertClassifier
from sst2_ray.modeling.export.folder import export_model, load_export
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer
from tests.support import models
from tests.support.families import family_folder, splinter_folder
from tests.support.models import SENTENCES, build, card_facts, encode


@pytest.fixture(params=["modernbert_folder", "sbert_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_logits_are_two_a_row_in_fp32(folder):
    model, tokenizer, _ = build(folder)
    ids, mask = encode(tokenizer)
    for kind in (torch.int64, torch.int32):
        logits = model(ids.to(kind), mask.to(kind))
        assert logits.shape == (len(SENTENCES), 2)
        assert logits.dtype == torch.float32


def test_logits_are_fp32_under_autocast_as_well(folder):
    model, tokenizer, _ = build(folder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(*encode(tokenizer)).dtype == torch.float32


def test_padding_changes_no_logit(folder):
    model, tokenizer, _ = build(folder)
    together = model(*encode(tokenizer))
    alone = torch.cat([model(*encode(tokenizer, [text])) for text in SENTENCES])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_every_parameter_takes_part(folder):
    model, tokenizer, _ = build(folder)
    model(*encode(tokenizer)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_same_seed_gives_the_same_weights_bit_for_bit(folder):
    assert same(state_of(build(folder, seed=3)[0]), state_of(build(folder, seed=3)[0]))


def test_another_seed_changes_the_head_alone(folder):
    one, other = build(folder, seed=1)[0], build(folder, seed=2)[0]
    assert not torch.equal(one.head_weights["weight"], other.head_weights["weight"])
    fresh = ("classifier.", "head.", "backbone.classifier.")
    kept = [name for name in one.state_dict() if not name.startswith(fresh)]
    assert kept
    assert all(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in kept)


@pytest.mark.parametrize("name", ["modernbert-mini", "sbert-minilm"])
def test_random_weights_depend_on_the_seed_alone(modernbert_folder, name):
    def weights(seed):
        torch.manual_seed(torch.seed())
        return state_of(build(name, seed=seed, random_weights=True, tokenizer=str(modernbert_folder))[0])

    assert same(weights(5), weights(5))
    assert not same(weights(5), weights(6))


def test_building_leaves_the_random_state_alone(folder):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    build(folder, seed=4)
    assert torch.equal(torch.rand(1), expected)


def test_weights_kept_in_16_bits_are_trained_in_32(tmp_path):
    model = build(models.sbert_folder(tmp_path / "half", dtype=torch.bfloat16))[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_info_says_what_was_built(folder):
    model = build(folder)[0]
    assert model.info.num_parameters == sum(p.numel() for p in model.parameters())
    assert (model.info.attention, model.info.source, model.info.label) == ("sdpa", "folder", folder.name)


def test_modernbert_keeps_the_checkpoints_pooling_and_dropout(tmp_path):
    folder = models.modernbert_folder(tmp_path / "mean", classifier_pooling="mean", classifier_dropout=0.2)
    model = build(folder)[0]
    assert isinstance(model, ModernBertClassifier)
    assert model.backbone.config.classifier_pooling == "mean"
    assert model.backbone.drop.p == 0.2
    assert build(folder, dropout=0.3)[0].backbone.drop.p == 0.3


def test_modernbert_keeps_the_pretrained_prediction_head(modernbert_folder):
    from safetensors.torch import load_file

    saved = load_file(modernbert_folder / "model.safetensors")["head.dense.weight"]
    assert torch.equal(build(modernbert_folder)[0].backbone.head.dense.weight, saved)


def test_sbert_has_dropout_0_1_unless_told(sbert_folder):
    assert build(sbert_folder)[0].dropout.p == 0.1
    assert build(sbert_folder, dropout=0.0)[0].dropout.p == 0.0


@pytest.mark.parametrize("value", [None, 0.0, 0.25])
def test_encoder_dropout_reaches_every_place(sbert_folder, modernbert_folder, value):
    wanted = {"sbert": 0.1, "modernbert": 0.0} if value is None else {"sbert": value, "modernbert": value}
    bert = build(sbert_folder, encoder_dropout=value)[0].backbone
    assert {m.p for m in bert.modules() if isinstance(m, torch.nn.Dropout)} == {wanted["sbert"]}
    modernbert = build(modernbert_folder, encoder_dropout=value)[0].backbone.config
    for name in ("attention_dropout", "embedding_dropout", "mlp_dropout"):
        assert getattr(modernbert, name) == wanted["modernbert"]


def test_sberts_features_are_those_of_its_own_pooling(sbert_folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    for folder in (
        sbert_folder,
        models.sbert_folder(tmp_path / "two", modes=("cls", "mean"), transformer_path="0_BERT"),
    ):
        model, tokenizer, _ = build(folder)
        theirs = SentenceTransformer(str(folder), device="cpu")
        features = theirs.preprocess(SENTENCES)
        for module in list(theirs)[:2]:
            features = module(features)
        expected = model.head(features["sentence_embedding"])
        torch.testing.assert_close(model(*encode(tokenizer)), expected, rtol=1e-5, atol=1e-6)


def test_the_unused_pooler_is_neither_trained_nor_lost(sbert_folder):
    model = build(sbert_folder)[0]
    assert isinstance(model, SbertClassifier)
    assert not any("pooler" in name for name in model.state_dict())
    assert sorted(model.pooler_state) == ["pooler.dense.bias", "pooler.dense.weight"]


def test_an_encoder_without_modules_keeps_the_head_of_its_family(tmp_path, sbert_folder):
    plain = shutil.copytree(
        sbert_folder, tmp_path / "plain", ignore=shutil.ignore_patterns("modules.json", "1_*", "2_*")
    )
    model = build(plain)[0]
    assert (model.info.kind, type(model.backbone).__name__) == ("encoder", "BertForSequenceClassification")


def test_an_encoder_whose_family_has_no_head_is_mean_pooled_and_says_so(tmp_path):
    model, tokenizer, _ = build(splinter_folder(tmp_path / "splinter"))
    assert model.info.kind == "sbert"
    assert model.info.notes == ("no sentence-transformers modules in it: its token vectors are mean-pooled",)
    ids, mask = encode(tokenizer)
    hidden = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(model(ids, mask), model.head(mean))


def test_weights_of_another_architecture_are_refused(tmp_path, sbert_folder, modernbert_folder):
    mixed = shutil.copytree(sbert_folder, tmp_path / "mixed")
    shutil.copyfile(modernbert_folder / "model.safetensors", mixed / "model.safetensors")
    with pytest.raises(InputError, match=r"its weights are not those of a bert model of this shape: \d+ tensors"):
        build(mixed)


def test_weights_of_another_size_are_refused(tmp_path, sbert_folder):
    wider = shutil.copytree(sbert_folder, tmp_path / "wider")
    text = (wider / "config.json").read_text().replace('"intermediate_size": 64', '"intermediate_size": 128')
    (wider / "config.json").write_text(text)
    with pytest.raises(InputError, match="missing or of another size"):
        build(wider)


def test_random_weights_take_their_table_and_ids_from_the_tokenizer(modernbert_folder):
    model, tokenizer, _ = build("modernbert-mini", random_weights=True, tokenizer=str(modernbert_folder))
    config = model.backbone.config
    assert config.vocab_size == len(tokenizer) == 300
    assert (config.pad_token_id, config.cls_token_id, config.sep_token_id) == (0, 2, 3)
    assert config.layer_types == ["full_attention", "sliding_attention"] * 2
    assert model.info.label == "modernbert-mini (random weights)"
    assert model.info.random_weights


def test_random_weights_of_a_folders_shape_are_not_its_weights(sbert_folder):
    random, _, _ = build(sbert_folder, random_weights=True)
    pretrained, _, _ = build(sbert_folder)
    assert random.info.label == f"{sbert_folder.name} (random weights)"
    assert random.info.source == "random"
    name = "backbone.encoder.layer.0.attention.self.query.weight"
    assert random.state_dict()[name].shape == pretrained.state_dict()[name].shape
    assert not torch.equal(random.state_dict()[name], pretrained.state_dict()[name])


@pytest.mark.parametrize(("name", "millions"), [("modernbert-base", 149.6), ("sbert", 108.9), ("sbert-mpnet", 108.9)])
def test_named_shapes_have_their_sizes(modernbert_tokenizer_folder, name, millions):
    # The vocabulary is ModernBERT's for all, so the two BERT sizes are theirs plus 50,368 - 30,522 (30,527) rows of 768.
    table = 0.0 if name == "modernbert-base" else (50_368 - 30_522) * 768 / 1e6
    config = TrainConfig(model=name, random_weights=True, tokenizer=str(modernbert_tokenizer_folder))
    resolved = resolve_model(config)
    with torch.device("meta"):
        model = build_classifier(resolved, load_tokenizer(resolved), seed=0, device="meta")
    assert model.info.num_parameters / 1e6 == pytest.approx(millions + table, abs=0.1)


def test_what_workers_are_sent_is_small(minilm_folder):
    assert len(pickle.dumps(resolve_model(TrainConfig(model=str(minilm_folder))))) < 4000


def test_minilm_is_the_packaged_one(minilm_folder):
    model, tokenizer, _ = build(minilm_folder)
    assert model.info.num_parameters == 22_713_216 - 384 * 385 + 2 * 385  # without its pooler, with our head
    assert model(*encode(tokenizer)).shape == (len(SENTENCES), 2)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_task_that_a_folder_was_trained_for_does_not_survive(tmp_path, pooled):
    folder = family_folder("bert", tmp_path / "model", num_labels=3, problem_type="multi_label_classification")
    if pooled:
        models.add_sbert_modules(folder)
    model, tokenizer, config = build(folder)
    assert model.head_weights["weight"].shape[0] == 2
    assert model.backbone.config.problem_type is None
    export_model(model, tokenizer, tmp_path / "export", card_facts(model, config))
    assert "multi_label" not in "".join(path.read_text() for path in (tmp_path / "export").rglob("config.json"))


def test_classes_of_any_number_and_name_travel_into_the_export(tmp_path):
    folder = family_folder("roberta", tmp_path / "model")
    config = TrainConfig(model=str(folder))
    resolved = resolve_model(config)
    resolved = dataclasses.replace(resolved, info=dataclasses.replace(resolved.info, labels=("ham", "eggs", "spam")))
    tokenizer = load_tokenizer(resolved)
    model = build_classifier(resolved, tokenizer, seed=0).eval()
    assert model(*encode(tokenizer)).shape == (len(SENTENCES), 3)
    export_model(model, tokenizer, tmp_path / "export", card_facts(model, config))
    loaded = load_export(tmp_path / "export")[0]
    assert loaded.info.labels == ("ham", "eggs", "spam")
    assert loaded.backbone.config.id2label == {0: "ham", 1: "eggs", 2: "spam"}
    assert "tell ham (0), eggs (1), spam (2) apart" in (tmp_path / "export" / "README.md").read_text()
