"""Exports: whole or not at all, the same model again, loaded by others without this package, and never by unpickling."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from sst2_ray.errors import InputError
from sst2_ray.modeling.export.folder import convert_export, export_model, load_export
from tests.support import models
from tests.support.models import SENTENCES, build, card_facts, encode, export_of, run_without_package

KINDS = ["modernbert_folder", "sbert_folder"]
LABELS = ("negative", "positive")

PIPELINE = """
import json, sys
from transformers import pipeline
classify = pipeline("text-classification", model=".", device="cpu", dtype="float32")
print(json.dumps([[r["label"], r["score"]] for r in classify(json.loads(open("texts.json").read()), truncation=True)]))
"""
ENCODE = """
import json
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("encoder", device="cpu")
print(json.dumps({"max": model.max_seq_length, "modules": [type(m).__name__ for m in model],
                  "vectors": model.encode(json.loads(open("texts.json").read())).tolist()}))
"""


@pytest.fixture(scope="module")
def exports(tmp_path_factory, modernbert_folder, sbert_folder):
    out = tmp_path_factory.mktemp("exports")
    return {
        "modernbert_folder": export_of(modernbert_folder, out / "modernbert", max_length=40),
        "sbert_folder": export_of(sbert_folder, out / "sbert", max_length=40),
    }


@pytest.fixture(params=KINDS)
def export(request, exports):
    return exports[request.param]


@pytest.fixture
def copy(tmp_path, export):
    return shutil.copytree(export, tmp_path / "copy")


def labels_of(model, tokenizer, texts, max_length=128):
    with torch.inference_mode():
        probabilities = model(*encode(tokenizer, texts, max_length)).softmax(dim=1)
    return [(LABELS[int(p.argmax())], float(p.max())) for p in probabilities]


def refusal(folder):
    with pytest.raises(InputError) as caught:
        load_export(folder)
    message = str(caught.value)
    assert message.startswith(f"--model-dir {folder}: ")
    assert "\n" not in message
    return message


# ---- the same again


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_computes_what_was_exported(request, tmp_path, kind):
    model, tokenizer, config = build(request.getfixturevalue(kind), max_length=40)
    export_model(model, tokenizer, tmp_path / "out", card_facts(model, config, corpora=("glue",)))
    loaded, its_tokenizer, meta = load_export(tmp_path / "out")
    assert torch.equal(model(*encode(tokenizer)), loaded(*encode(its_tokenizer)))
    assert its_tokenizer(SENTENCES)["input_ids"] == tokenizer(SENTENCES)["input_ids"]
    assert (meta.corpora, meta.max_length, meta.config_hash) == (("glue",), 40, config.config_hash)
    assert not loaded.training
    assert loaded.info.num_parameters == model.info.num_parameters


def test_a_lower_casing_folder_stays_one(tmp_path):
    export = export_of(models.sbert_folder(tmp_path / "lower", lower_case=True), tmp_path / "export")
    tokenizer = load_export(export)[1]
    assert tokenizer("A FILM")["input_ids"] == tokenizer("a film")["input_ids"]


def test_a_transformer_in_a_subfolder_stays_there(tmp_path):
    folder = models.sbert_folder(tmp_path / "old", transformer_path="0_BERT", modes=("cls", "mean"))
    export = export_of(folder, tmp_path / "export")
    assert (export / "encoder" / "0_BERT" / "model.safetensors").is_file()
    model, tokenizer, _ = load_export(export)
    assert model.head.weight.shape == (2, 64)
    assert model(*encode(tokenizer)).shape == (len(SENTENCES), 2)


def test_it_holds_safetensors_json_and_the_card_alone(export):
    suffixes = {path.suffix for path in export.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".md"}


def test_no_empty_folder_is_left_that_an_object_store_would_lose(export):
    assert all(any(path.iterdir()) for path in export.rglob("*") if path.is_dir())


def test_it_replaces_what_stood_there_and_leaves_nothing_beside(tmp_path, sbert_folder):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.json").write_text("{}")
    export_of(sbert_folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "old.json").exists()


def test_an_export_that_fails_leaves_what_stood_there(tmp_path, sbert_folder):
    export_of(sbert_folder, tmp_path / "out")
    before = (tmp_path / "out" / "encoder" / "model.safetensors").read_bytes()
    model, tokenizer, config = build(sbert_folder)
    with pytest.raises(ValueError, match="0 correct of 0"):
        export_model(model, tokenizer, tmp_path / "out", card_facts(model, config, num_dev_rows=0))
    assert (tmp_path / "out" / "encoder" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# ---- for others


def test_a_pipeline_without_this_package_gives_the_same_labels(tmp_path, exports):
    folder = shutil.copytree(exports["modernbert_folder"], tmp_path / "export")
    (folder / "texts.json").write_text(json.dumps(SENTENCES))
    theirs = json.loads(run_without_package(PIPELINE, folder))
    model, tokenizer, _ = load_export(exports["modernbert_folder"])
    ours = labels_of(model, tokenizer, SENTENCES, max_length=40)
    assert {label for label, _ in ours} == {"negative", "positive"}
    assert [label for label, _ in theirs] == [label for label, _ in ours]
    # The spread head multiplies the rounding of padded and unpadded sums as well.
    assert [score for _, score in theirs] == pytest.approx([score for _, score in ours], abs=1e-3)


def test_sentence_transformers_without_this_package_encodes(tmp_path, exports):
    folder = shutil.copytree(exports["sbert_folder"], tmp_path / "export")
    (folder / "texts.json").write_text(json.dumps(SENTENCES))
    theirs = json.loads(run_without_package(ENCODE, folder))
    assert theirs["modules"] == ["Transformer", "Pooling", "Normalize"]
    assert theirs["max"] == 40
    vectors = torch.tensor(theirs["vectors"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(SENTENCES)))
    model, tokenizer, _ = load_export(exports["sbert_folder"])
    model.head = torch.nn.Identity()
    features = torch.nn.functional.normalize(model(*encode(tokenizer, max_length=40)), dim=1)
    torch.testing.assert_close(vectors, features.detach(), rtol=1e-4, atol=1e-5)


def test_the_trained_encoder_is_what_is_exported(tmp_path, sbert_folder):
    model, tokenizer, config = build(sbert_folder)
    with torch.no_grad():
        model.backbone.embeddings.word_embeddings.weight.add_(1.0)
    export_model(model, tokenizer, tmp_path / "out", card_facts(model, config))
    loaded = load_export(tmp_path / "out")[0]
    assert torch.equal(
        loaded.backbone.embeddings.word_embeddings.weight, model.backbone.embeddings.word_embeddings.weight
    )


def test_modules_behind_the_pooling_come_as_they_were(tmp_path):
    from safetensors.torch import save_file
    from sentence_transformers import SentenceTransformer

    folder = models.sbert_folder(tmp_path / "dense", following=("Dense", "Normalize"))
    (folder / "2_Dense").mkdir()
    activation = "torch.nn.modules.linear.Identity"
    settings = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": activation}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
    save_file(
        {"linear.weight": torch.ones(8, 32), "linear.bias": torch.zeros(8)}, folder / "2_Dense" / "model.safetensors"
    )
    export = export_of(folder, tmp_path / "export")
    assert SentenceTransformer(str(export / "encoder"), device="cpu").encode(SENTENCES).shape == (len(SENTENCES), 8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cards_snippet_runs_and_agrees(exports, kind):
    folder = exports[kind]
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.S)
    printed = [line.split() for line in run_without_package(code, folder).strip().splitlines()]
    model, tokenizer, _ = load_export(folder)
    texts = ["a gripping , funny film", "it never comes to life"]
    expected = [[label, str(round(score, 4))] for label, score in labels_of(model, tokenizer, texts)]
    assert printed == expected


def test_the_packaged_minilm_survives_the_way_there_and_back(tmp_path, minilm_folder):
    export = export_of(minilm_folder, tmp_path / "minilm")
    (export / "texts.json").write_text(json.dumps(SENTENCES))
    theirs = torch.tensor(json.loads(run_without_package(ENCODE, export))["vectors"])
    shutil.copyfile(export / "texts.json", tmp_path / "texts.json")
    code = ENCODE.replace('"encoder"', repr(str(minilm_folder)))
    untouched = torch.tensor(json.loads(run_without_package(code, tmp_path))["vectors"])
    torch.testing.assert_close(theirs, untouched, rtol=1e-4, atol=1e-5)


# ---- what is refused


def test_a_folder_that_is_not_there():
    from pathlib import Path

    assert refusal(Path("nowhere")).endswith("no such folder; give the folder of an exported model")


def test_a_folder_that_is_no_export(sbert_folder):
    assert "it has no sst2_ray.json, so it is no export of this package" in refusal(sbert_folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "1_Pooling/extra.pkl", "training_args.pt"])
def test_a_planted_pickle(copy, name):
    path = copy / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert f"{name} may be a pickle, which runs code when it is loaded" in refusal(copy)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "sst2_ray.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_file(copy, file, damage):
    path = copy / file
    if not path.is_file():
        path = copy / "encoder" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    refusal(copy)


@pytest.mark.parametrize("damage", ["missing", "truncated", "another size"])
def test_a_damaged_head(tmp_path, exports, damage):
    from safetensors.torch import save_file

    folder = shutil.copytree(exports["sbert_folder"], tmp_path / "copy")
    path = folder / "classifier" / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    if damage == "another size":
        save_file({"linear.weight": torch.zeros(2, 33), "linear.bias": torch.zeros(2)}, path)
    assert "model.safetensors" in refusal(folder)


@pytest.mark.parametrize("change", [{"kind": "gpt"}, {"corpora": None}, {"max_length": "many"}, {"label": ...}])
def test_metadata_that_cannot_be(copy, change):
    path = copy / "sst2_ray.json"
    values = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
    assert "sst2_ray.json is damaged" in refusal(copy)


def test_weights_that_are_not_the_models(tmp_path, exports):
    folder = shutil.copytree(exports["modernbert_folder"], tmp_path / "copy")
    shutil.copyfile(exports["sbert_folder"] / "encoder" / "model.safetensors", folder / "model.safetensors")
    assert "its weights are not those of a modernbert model" in refusal(folder)


def contents(folder):
    """Files by name; a card's pretty-printed JSON compared by value."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {n: json.loads(p.read_text()) if p.suffix == ".json" else p.read_bytes() for n, p in files.items()}


def old_layout(export, out):
    """The same SBERT as it was exported before its encoder had a folder of its own."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(export / "encoder", out)
    head = load_file(export / "classifier" / "model.safetensors")
    save_file({name.removeprefix("linear."): t for name, t in head.items()}, out / "classifier_head.safetensors")
    shutil.copyfile(export / "README.md", out / "README.md")
    (out / "labels.json").write_text(json.dumps({"0": "negative", "1": "positive"}))
    meta = json.loads((export / "sst2_ray.json").read_text())
    del meta["labels"]
    (out / "sst2_ray.json").write_text(json.dumps({**meta, "format_version": 1}))
    return out


def test_an_export_in_the_old_layout_still_loads_says_how_to_convert_it_and_can_be_fine_tuned(
    tmp_path, exports, caplog
):
    old = old_layout(exports["sbert_folder"], tmp_path / "old")
    model, tokenizer, _ = load_export(old)
    assert torch.equal(model(*encode(tokenizer)), load_export(exports["sbert_folder"])[0](*encode(tokenizer)))
    assert "convert_export(Path(" in caplog.text
    convert_export(old, tmp_path / "converted")
    converted = load_export(tmp_path / "converted")[0]
    assert torch.equal(model(*encode(tokenizer)), converted(*encode(tokenizer)))
    assert contents(tmp_path / "converted") == contents(exports["sbert_folder"])
    again = build(old)[0]
    assert again.info.label == "old"
    assert torch.equal(
        again.backbone.embeddings.word_embeddings.weight, model.backbone.embeddings.word_embeddings.weight
    )


def test_an_export_of_an_sbert_can_be_fine_tuned_and_keeps_its_modules(tmp_path):
    export = export_of(models.sbert_folder(tmp_path / "model"), tmp_path / "export", corpora=("glue",))
    model, tokenizer, config = build(export)
    assert (model.info.kind, model.info.label, model.info.trained_on) == ("sbert", "export", ("glue",))
    assert model.stack.following == (("Normalize", "2_Normalize"),)
    export_model(model, tokenizer, tmp_path / "again", card_facts(model, config))
    assert torch.equal(model(*encode(tokenizer)), load_export(tmp_path / "again")[0](*encode(tokenizer)))


def test_a_config_with_its_classes_in_another_order_is_refused(tmp_path, exports):
    folder = shutil.copytree(exports["modernbert_folder"], tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "positive", "1": "negative"}
    config["label2id"] = {"positive": 0, "negative": 1}
    (folder / "config.json").write_text(json.dumps(config))
    assert "config.json names the classes positive, negative" in refusal(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_that_lost_its_tokenizer_is_refused(tmp_path, exports, kind):
    folder = shutil.copytree(exports[kind], tmp_path / "copy")
    for path in folder.rglob("tokenizer*"):
        path.unlink()
    message = refusal(folder)
    assert "the vocabulary of its tokenizer is missing" in message or "no tokenizer can be loaded" in message


def test_an_export_can_be_fine_tuned_again_with_a_fresh_head(exports):
    model, _, _ = build(exports["modernbert_folder"], seed=1)
    exported, _, _ = load_export(exports["modernbert_folder"])
    assert torch.equal(
        model.backbone.model.embeddings.tok_embeddings.weight, exported.backbone.model.embeddings.tok_embeddings.weight
    )
    assert not torch.equal(model.head_weights["weight"], exported.head_weights["weight"])


def test_all_dev_sentences_of_sst2_get_the_same_labels(tmp_path, sst2_dev, modernbert_tokenizer_folder):
    export = export_of(
        "modernbert-mini", tmp_path / "export", tokenizer=str(modernbert_tokenizer_folder), texts=sst2_dev
    )
    (export / "texts.json").write_text(json.dumps(sst2_dev))
    theirs = [label for label, _ in json.loads(run_without_package(PIPELINE, export))]
    (export / "texts.json").unlink()
    model, tokenizer, _ = load_export(export)
    assert theirs == [label for label, _ in labels_of(model, tokenizer, sst2_dev)]
    assert 400 < theirs.count("positive") < 472
